"""The `greentrain top` command."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from greentrain.budget import Budget
from greentrain.cli.app import app
from greentrain.cli.top_command import frame, read_frame
from greentrain.cli.watching import next_frame
from greentrain.errors import ConfigurationError, GreentrainError, LedgerError
from greentrain.ledger import Ledger
from greentrain.ledger.live import live_view
from tests import prepared
from tests.ledger.events import window
from tests.report.ledgers import come, decide

ROOT = Path(__file__).parents[2]
EVIL = "[red]churn[/red]\x1b[2J"


class Half:
    """A grid of half a gram a joule."""

    def upper_g_per_j(self, moment: object) -> float:
        return 0.5


def top(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["top", *arguments], catch_exceptions=True)


def page(url: str, *arguments: str) -> str:
    result = top("--once", "--ledger", url, *arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def test_a_frame_shows_power_budgets_the_update_and_the_last_decisions(url: str) -> None:
    began = datetime.now(UTC) - timedelta(seconds=30)
    ledger = Ledger(url, clock=lambda: began)
    budget = ledger.open_budget("digits", Budget.parse("2 Wh", num_experiences=3))
    grams = ledger.open_budget("green", Budget.parse("1 kgCO2e", num_experiences=3))
    run = ledger.open_run("stream", EVIL)
    account = ledger.account(budget, run)
    decide(run, budget, 0)
    come(run, 0, energy_j=125.0)
    reservation = account.reserve(1800.0, "update")
    ledger.account(grams, run, carbon=Half()).reserve(400.0, "update")
    sentence = "[bold]More gain[/bold] per joule"
    decide(
        run,
        budget,
        1,
        reservation_id=reservation,
        update_mode="WARM_START",
        step_fraction=0.5,
        sentence=sentence,
    )
    run.record(window("probe", by_source={"cpu": 84.0}, duration_s=2.0, epoch=1))
    run.flush()
    text = page(url)
    assert "\x1b" not in text
    for part in (
        "[red]churn[/red]",
        "running for 3",
        "42 W",
        "after probe 1",
        "warm start 50 % on experience-1",
        "digits 1.5 Wh 2 Wh 0 Wh 0.5 Wh",
        "green 0.8 kg CO2e 1 kg CO2e 0 kg CO2e 0.2 kg CO2e",
        sentence,
        "no outcome",
        "125 J",
        "nothing to gain",
    ):
        assert part in text
    assert sentence not in page(url, "--last", "0")
    run.close()
    text = page(url)
    assert "completed" in text and "42 W" not in text
    ledger.close()


def test_a_killed_run_is_shown_as_such(url: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=3)
    ledger = Ledger(url, clock=lambda: long_ago)
    budget = ledger.open_budget("digits", Budget.parse("2 Wh", num_experiences=3))
    run = ledger.open_run("stream", "digits")
    reservation = ledger.account(budget, run).reserve(1800.0, "update")
    decide(run, budget, 0, reservation_id=reservation, update_mode="FULL_RETRAIN")
    text = page(url)
    assert "no row for 3 h: killed, or waiting for data" in text
    assert "full retrain on experience-0, not finished" in text
    run.close("failed")
    assert "failed 3 h ago" in page(url)
    ledger.close()


def test_a_ledger_without_a_row_says_so(url: str) -> None:
    Ledger(url).close()
    assert "nothing is recorded yet; a run appears here once it has begun" in page(url)


def test_piped_output_is_one_frame(url: str) -> None:
    Ledger(url).close()
    result = top("--ledger", url)
    assert result.exit_code == 0
    assert result.output.count("nothing is recorded yet") == 1


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "1e9"])
def test_an_interval_that_cannot_be_used(url: str, interval: str) -> None:
    Ledger(url).close()
    result = top("--ledger", url, "--interval", interval)
    assert isinstance(result.exception, ConfigurationError)
    assert "give the seconds between two frames" in str(result.exception)


def test_a_missing_ledger_and_another_file(tmp_path: Path) -> None:
    missing = top("--once", "--ledger", str(tmp_path / "none.db"))
    assert isinstance(missing.exception, GreentrainError)
    assert "does not exist" in str(missing.exception)
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    empty = top("--once", "--ledger", str(tmp_path / "empty.db"))
    assert isinstance(empty.exception, LedgerError)
    assert "it is empty" in str(empty.exception)


def test_a_ledger_that_cannot_be_read_keeps_the_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(str(path)).close()
    shown, note = next_frame(lambda: read_frame(str(path), 5), "before")
    assert shown != "before" and note is None
    path.write_bytes(b"no database" * 1000)
    shown, note = next_frame(lambda: read_frame(str(path), 5), "before")
    assert shown == "before"
    assert note is not None and note.startswith("not up to date, tried again soon: ")


def test_a_ledger_that_was_deleted_or_replaced_is_not_shown_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(str(path))
    ledger.open_run("measure", "old").close()
    assert next_frame(lambda: read_frame(str(path), 5), "before")[1] is None
    ledger.close()
    path.unlink()
    shown, note = next_frame(lambda: read_frame(str(path), 5), "before")
    assert shown == "before" and note is not None and "does not exist" in note
    assert not path.exists()
    with closing(Ledger(str(path))) as other:
        other.open_run("measure", "new").close()
    assert "new (measure)" in page(str(path)) and "old (measure)" not in page(str(path))


def test_a_long_run_is_shown_after_many_short_ones(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        long = ledger.open_run("stream", "long")
        for number in range(60):
            ledger.open_run("measure", f"short {number}").close()
        text = page(url)
        assert "long (stream) running" in text and "short 59 (measure)" in text
        long.close()


def test_a_narrow_frame_has_no_reasons(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        budget = ledger.open_budget("digits", Budget.parse("2 Wh", num_experiences=3))
        run = ledger.open_run("stream", "digits")
        decide(run, budget, 0, sentence="A long reason. " * 40)
        come(run, 0, energy_j=125.0)
        run.close()
        narrow = Console(width=60, record=True)
        narrow.print(frame(live_view(ledger), "ledger.db", wide=False))
    text = narrow.export_text()
    assert "125 J" in text and "long reason" not in text
    assert len(text.splitlines()) < 30


def test_many_runs_are_counted(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        running = [ledger.open_run("stream", f"s{number:02}") for number in range(25)]
        text = page(url)
        assert "s24 (stream)" in text and "s05 (stream)" in text and "s04 (stream)" not in text
        assert "and 5 more, which began earlier" in text
        for run in running:
            run.close()


def test_on_a_terminal_frames_follow_until_ctrl_c(url: str) -> None:
    ledger = Ledger(url)
    ours, theirs = pty.openpty()
    arguments = ("top", "--ledger", url, "--interval", "0.2")
    child = subprocess.Popen(
        [sys.executable, *prepared.CLI, *arguments],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        # A background job of a shell ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    try:
        seen = read_until(ours, "nothing is recorded yet")
        run = ledger.open_run("measure", "prepare data")
        seen += read_until(ours, "prepare")
        run.close()
        seen += read_until(ours, "completed")
        child.send_signal(signal.SIGINT)
        read_until(ours, None)
        assert child.wait(timeout=30) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        ledger.close()
    assert "Traceback" not in seen


def read_until(terminal: int, text: str | None) -> str:
    """Read a terminal until a text appears, or until its end."""
    seen, deadline = "", time.monotonic() + 20
    while text is None or text not in " ".join(seen.split()):  # a long line is wrapped
        assert time.monotonic() < deadline, " ".join(seen[-2000:].split())
        try:
            seen += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            assert text is None, seen
            break
    return seen
