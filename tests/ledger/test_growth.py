"""The memory of ``verify`` does not grow with a ledger, and later rows can be verified alone."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greentrain.budget import Budget
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import ExportedHeads, Ledger, RunLog, verify
from tests.ledger.test_verify import alter, draw, query, story, tell

__all__ = ["story"]  # a fixture
BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"
MOST_BYTES = 1_000_000
"""Growth of the memory for 15,000 rows: 15,000 rows in memory would take 20 MB."""


@pytest.fixture
def database(story: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(story, tmp_path / "ledger.db"))


def exported(ledger: Ledger) -> ExportedHeads:
    return ExportedHeads(exported_utc="new year", heads=ledger.heads())


def peak_bytes(ledger: Ledger) -> int:
    tracemalloc.start()
    try:
        found = verify(ledger)
        assert (found.failures, found.notes, found.uncovered) == ((), (), ())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from filled_ledger import fill

    peaks = {}
    for rows in (300, 14_000, 29_000):  # the first fills caches; chunks are full at 14,000
        path = tmp_path / f"{rows}.db"
        assert rows <= fill(str(path), rows) < rows + 100
        ledger = Ledger(str(path), create=False)
        peaks[rows] = peak_bytes(ledger)
        ledger.close()
    assert peaks[29_000] - peaks[14_000] < MOST_BYTES


def test_nothing_but_later_rows_is_read(database: Path) -> None:
    ledger = Ledger(str(database))
    heads = exported(ledger)
    found = verify(ledger, heads, new_only=True)
    assert (found.rows, found.earlier, found.failures) == (0, 3 * 20, ())
    assert found.heads == ledger.heads()
    tell(ledger, ledger.open_budget("four", Budget.parse("1 Wh", num_experiences=2)), "four")
    found = verify(ledger, heads, new_only=True)
    assert (found.rows, found.earlier, found.failures, found.notes) == (20, 3 * 20, (), ())
    assert found.heads == verify(ledger).heads == ledger.heads()
    ledger.close()


def test_an_earlier_row_that_was_altered_is_found_only_by_a_full_verification(
    database: Path,
) -> None:
    ledger = Ledger(str(database), create=False)
    heads = exported(ledger)
    alter(database, "UPDATE windows SET energy_j = 26.0 WHERE energy_j = 25.0")
    assert verify(ledger, heads, new_only=True).ok
    assert not verify(ledger, heads).ok
    ledger.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE windows SET energy_j = energy_j + 1 WHERE entry_id = :last",
        "UPDATE entries SET recorded_utc = recorded_utc || 'x' WHERE id = :last",
        "DELETE FROM windows WHERE entry_id = :last",
        "UPDATE runs SET heads = '{}' WHERE name = 'four'",
        "UPDATE entries SET hash = prev_hash WHERE kind = 'run' AND id > 60",
        "UPDATE reservations SET sum_spent = sum_spent + 1 WHERE entry_id > 60",
    ],
)
def test_a_later_row_that_was_altered_is_found(database: Path, statement: str) -> None:
    ledger = Ledger(str(database))
    heads = exported(ledger)
    tell(ledger, ledger.open_budget("four", Budget.parse("1 Wh", num_experiences=2)), "four")
    ((last,),) = query(database, "SELECT MAX(entry_id) FROM windows")
    values = {"last": last} if ":last" in statement else {}
    assert alter(database, statement, **values) >= 1
    found = verify(ledger, heads, new_only=True)
    assert (found.earlier, found.ok) == (60, False)
    ledger.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE entries SET hash = prev_hash WHERE kind = 'closing' AND id = 60"],
        ["DELETE FROM closings WHERE entry_id = 60", "DELETE FROM entries WHERE id = 60"],
        ["INSERT INTO entries VALUES (-1, 'window', 'runs', 99, '', '', '')"],
    ],
)
def test_all_rows_are_read_if_the_heads_are_not_those_of_the_ledger(
    database: Path, statements: list[str]
) -> None:
    ledger = Ledger(str(database), create=False)
    heads = exported(ledger)
    alter(database, *statements)
    found = verify(ledger, heads, new_only=True)
    assert found.rows >= 56
    assert (found.earlier, found.ok) == (0, False)
    assert found == verify(ledger, heads)
    ledger.close()


def test_a_reservation_from_before_the_heads_is_settled_after_them(ledger: Ledger) -> None:
    with ledger.open_run("fit", "model") as run:
        account = ledger.account(ledger.open_budget("digits", Budget(energy_j=100.0)), run)
        open_still = account.reserve(10.0, "update")
        reservation = account.reserve(50.0, "update")
        draw(run, reservation, 20.0)
        run.flush()
        heads = exported(ledger)
        draw(run, reservation, 30.0)
        account.settle(reservation, 50.0)
    found = verify(ledger, heads, new_only=True)
    assert (found.rows, found.failures) == (3, ())
    assert found.notes == ("open: 10 J reserved for update were never settled and count as spent",)
    assert open_still in {row["reservation_id"] for row in ledger.rows("reservation")}


def test_a_later_payment_has_to_follow_from_the_sums_before(ledger: Ledger) -> None:
    run = ledger.open_run("fit", "model")
    account = ledger.account(ledger.open_budget("digits", Budget(energy_j=100.0)), run)
    account.settle(account.reserve(50.0, "update"), 60.0)
    heads = exported(ledger)
    account.settle(account.reserve(30.0, "update"), 30.0)
    assert verify(ledger, heads, new_only=True).failures == ()
    _write_settlement(ledger, run, sum_spent=80.0)
    failures = verify(ledger, heads, new_only=True).failures
    assert any("do not follow" in failure for failure in failures)


def _write_settlement(ledger: Ledger, run: RunLog, *, sum_spent: float) -> None:
    """Append a reservation with right hashes and a wrong sum."""
    (last, *_) = reversed(ledger.rows("reservation"))
    kept = {name: last[name] for name in last if name not in ("entry_id", "recorded_utc")}
    run.append("reservation", **{**kept, "reservation_id": "other", "sum_spent": sum_spent})


def test_with_a_key_it_is_needed_here_too(tmp_path: Path) -> None:
    url, key = str(tmp_path / "ledger.db"), "a key that is long enough"
    ledger = Ledger(url, key=key)
    ledger.open_run("fit", "one").close()
    heads = exported(ledger)
    ledger.open_run("fit", "two").close()
    assert verify(ledger, heads, new_only=True).ok
    plain = Ledger(url, create=False)
    with pytest.raises(LedgerError, match="no key was given"):
        verify(plain, heads, new_only=True)
    plain.close()
    ledger.close()


def test_without_heads_no_row_is_new(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match="no exported heads"):
        verify(ledger, new_only=True)


def test_the_command_says_what_it_did_not_read(database: Path, tmp_path: Path) -> None:
    heads = tmp_path / "heads.json"
    command = ["verify", str(database), "--heads", str(heads)]
    refused = CliRunner().invoke(app, [*command, "--new-only"])
    assert refused.exit_code != 0
    assert CliRunner().invoke(app, command).exit_code == 0
    done = CliRunner().invoke(app, [*command, "--new-only"])
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    assert "0 new rows: everything follows from the exported heads" in said
    assert "The 60 rows before were not read" in said
    assert "They cover 60 of 60 rows" in said
