"""Sources and heartbeats, which a run's own thread asks for, and what they save from a kill."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greentrain.carbon import Emissions
from greentrain.energy import Source, Window
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, last_descriptions, verify, with_recovered
from greentrain.ledger.writer import Writer
from tests.ledger.events import CALIBRATION, CPU, NEW_YEAR, window

KILLS = int(os.environ.get("GREENTRAIN_KILLS", "10"))
ROOT = Path(__file__).parents[2]
SOON_S = 0.002
CARD = Source(name="gpu:0", method="counter", relative_uncertainty=0.05, uuid="GPU-1")


class Beat:
    """Gives one list of windows after the other; the last one again and again.

    ``beaten`` is set once the thread has asked again after the last one, so that all are written.
    """

    def __init__(self, *lists: list[Window]) -> None:
        self.lists = list(lists)
        self.asked = 0
        self.beaten = threading.Event()

    def __call__(self) -> list[Window]:
        self.asked += 1
        if self.asked > len(self.lists):
            self.beaten.set()
        return self.lists[min(self.asked, len(self.lists)) - 1]

    def wait(self) -> None:
        assert self.beaten.wait(timeout=10.0)


def rows(ledger: Ledger, kind: str, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in keys) for row in ledger.rows(kind)]


# Sources


def test_sources_are_asked_for_in_a_thread_and_opening_waits_for_nobody(ledger: Ledger) -> None:
    known = threading.Event()
    asked_in: list[str] = []

    def sources() -> list[Source]:
        asked_in.append(threading.current_thread().name)
        assert known.wait(timeout=10.0)
        return [CPU]

    run = ledger.open_run("fit", "model", sources=sources)
    assert ledger.rows("source") == []
    assert len(ledger.rows("run")) == 1
    run.append("calibration", **CALIBRATION)  # nor does a row that no window goes before
    run.record(window(by_source={"cpu": 1.0}))
    known.set()
    run.flush()
    assert rows(ledger, "source", "run_id", "name") == [(run.run_id, "cpu")]
    (source,), (drawn,) = ledger.rows("source"), ledger.rows("window")
    assert source["entry_id"] < drawn["entry_id"]
    run.close()
    assert asked_in == ["greentrain-ledger"] * 2


def test_what_changed_of_a_source_is_written_again_when_the_run_closes(ledger: Ledger) -> None:
    now = [CPU, CARD]
    run = ledger.open_run("fit", "model", sources=lambda: now)
    run.record(window(by_source={"cpu": 1.0, "gpu:0": 1.0}))
    run.flush()
    now = [CPU, dataclasses.replace(CARD, relative_uncertainty=None, note="shared")]
    run.close()
    assert rows(ledger, "source", "name", "relative_uncertainty", "uuid", "note") == [
        ("cpu", 0.2, None, "a model"),
        ("gpu:0", 0.05, "GPU-1", None),
        ("gpu:0", None, "GPU-1", "shared"),
    ]
    last = last_descriptions(ledger.rows("source"))[run.run_id]
    assert {name: row["note"] for name, row in last.items()} == {
        "cpu": "a model",
        "gpu:0": "shared",
    }
    assert verify(ledger).ok


def test_sources_that_are_known_are_written_with_the_opening_row(ledger: Ledger) -> None:
    threads = threading.active_count()
    run = ledger.open_run("fit", "model", sources=(source for source in (CPU, CARD)))
    assert rows(ledger, "source", "name") == [("cpu",), ("gpu:0",)]
    assert threading.active_count() == threads
    run.close()
    assert len(ledger.rows("source")) == 2


def test_sources_that_are_unknown_are_asked_for_again(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [RuntimeError("no driver yet"), RuntimeError("no driver yet"), [CARD]]

    def sources() -> list[Source]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    beat = Beat([window(by_source={"cpu": 1.0})], [window(by_source={"cpu": 2.0})])
    run = ledger.open_run("fit", "model", sources=sources, beat=beat, heartbeat_s=SOON_S)
    beat.wait()
    # Asked at the start, and at each beat that named what nobody had described.
    answers[:] = [[CPU, CARD]]
    run.close()
    assert sorted(rows(ledger, "source", "name")) == [("cpu",), ("gpu:0",)]
    ours = [record for record in caplog.records if "no driver yet" in record.getMessage()]
    assert 1 <= len(ours) <= 2
    assert verify(ledger).ok


def test_a_source_whose_numbers_are_none_is_refused(ledger: Ledger) -> None:
    odd = dataclasses.replace(CARD, power_limit_w=float("nan"))
    with pytest.raises(ConfigurationError, match="power_limit_w of the source 'gpu:0' is nan"):
        ledger.open_run("fit", "model", sources=[odd])
    assert ledger.rows("run") == []


# Heartbeats


def test_a_heartbeat_is_written_where_anything_changed(ledger: Ledger) -> None:
    fit = window("fit", by_source={"cpu": 5.0})
    epochs = [window("train_epoch", by_source={"cpu": joules}, epoch=3) for joules in (1.0, 2.0)]
    beat = Beat([], [fit, epochs[0]], [fit, epochs[0]], [fit, epochs[1]])
    before = threading.enumerate()  # a killed run of another file's fixture still has its thread
    run = ledger.open_run(
        "fit",
        "model",
        beat=beat,
        emissions=lambda window: Emissions(grams=0.5, intensity_g_per_kwh=400.0),
        heartbeat_s=SOON_S,
    )
    beat.wait()
    assert rows(ledger, "heartbeat", "phase", "epoch", "energy_j", "complete") == [
        ("fit", None, 5.0, True),
        ("train_epoch", 3, 1.0, True),
        ("train_epoch", 3, 2.0, True),
    ]
    assert set(rows(ledger, "heartbeat", "emissions_g", "intensity_g_per_kwh")) == {(0.5, 400.0)}
    run.close()
    begun = [one for one in threading.enumerate() if one not in before]
    assert not [one for one in begun if one.name == "greentrain-ledger"]
    assert verify(ledger).ok and verify(ledger).notes == ()


def test_heartbeats_count_where_their_phase_never_closed(ledger: Ledger) -> None:
    later = NEW_YEAR + timedelta(minutes=1)
    first = window(by_source={"cpu": 10.0})
    second = window(by_source={"cpu": 3.0}, started=later)
    outer = window("fit", by_source={"cpu": 7.0})
    beat = Beat([outer, first], [outer, second])
    run = ledger.open_run("fit", "killed", beat=beat, heartbeat_s=SOON_S)
    run.record(window(by_source={"cpu": 11.0}))  # the first epoch closed
    beat.wait()
    run.flush()
    found = [(row["phase"], row["energy_j"], row["recovered"]) for row in ledger.windows()]
    assert sorted(found) == [
        ("fit", 7.0, True),
        ("train_epoch", 3.0, True),
        ("train_epoch", 11.0, False),
    ]
    notes = verify(ledger).notes
    assert [note.split(":")[0] for note in notes] == ["unclosed", "recovered"]
    assert "10 J of 2 phase(s)" in notes[1]
    run.close()
    assert [row["recovered"] for row in ledger.windows()] == [False]
    assert verify(ledger).notes == ()


def test_of_each_phase_the_last_heartbeat_counts() -> None:
    def row(entry_id: int, phase: str, energy_j: float, run_id: str = "a") -> dict[str, Any]:
        return {
            "entry_id": entry_id,
            "run_id": run_id,
            "phase": phase,
            "started_utc": "2026",
            "energy_j": energy_j,
        }

    windows = [row(3, "epoch", 30.0), row(6, "fit", 60.0, "b")]
    beats = [row(1, "epoch", 1.0), row(2, "fit", 2.0), row(4, "fit", 4.0), row(5, "fit", 5.0, "b")]
    beats.append(row(7, "epoch", 7.0, "c"))
    found = with_recovered(windows, beats, [{"run_id": "c"}])
    assert [(one["entry_id"], one["recovered"]) for one in found] == [
        (3, False),
        (4, True),
        (6, False),
    ]


def test_a_beat_that_raises_is_said_once_and_stops_nothing(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[None] = []
    enough = threading.Event()

    def beat() -> list[Window]:
        asked.append(None)
        if len(asked) >= 4:
            enough.set()
        raise RuntimeError("the card is lost")

    with ledger.open_run("fit", "model", beat=beat, heartbeat_s=SOON_S) as run:
        assert enough.wait(timeout=10.0)
        run.record(window(by_source={"cpu": 1.0}))
    assert len(ledger.rows("window")) == 1
    assert caplog.messages == ["rows are missing, because their supplier failed: the card is lost"]


def test_rows_that_are_lost_are_one_line_and_a_traceback_for_debugging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def write(rows: list[str], awaited: bool) -> None:
        if rows:
            raise ValueError("no\nspace")

    writer = Writer(write)
    with caplog.at_level(logging.DEBUG, logger="greentrain"):
        writer.put("a row")
        writer.close()
    line, detail = caplog.records
    assert line.getMessage() == "1 rows could not be written and are lost: ValueError: no\\nspace"
    assert (line.levelname, line.exc_info) == ("ERROR", None)
    assert detail.levelname == "DEBUG"
    assert detail.exc_info is not None


def test_grams_that_cannot_be_worked_out_cost_no_joules(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    def emissions(_: object) -> Emissions:
        raise RuntimeError("the series has a hole")

    beat = Beat(*([window(by_source={"cpu": joules})] for joules in (1.0, 2.0)))
    run = ledger.open_run("fit", "model", beat=beat, emissions=emissions, heartbeat_s=SOON_S)
    beat.wait()
    run.close()
    assert rows(ledger, "heartbeat", "energy_j", "emissions_g") == [(1.0, None), (2.0, None)]
    assert caplog.messages == ["the emissions of a heartbeat are unknown: the series has a hole"]


def test_heartbeats_that_cannot_be_written_wait_and_only_the_last_is_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outer = window("fit", by_source={"cpu": 5.0})
    epochs = [window(by_source={"cpu": joules}) for joules in (1.0, 2.0, 3.0)]
    beat = Beat(*([outer, epoch] for epoch in epochs))

    def refuse(*arguments: Any) -> str:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as patch:
        run = ledger.open_run("fit", "model", beat=beat, heartbeat_s=SOON_S)
        patch.setattr(ledger.store, "append", refuse)
        beat.wait()
    run.close()
    kept = rows(ledger, "heartbeat", "phase", "energy_j")
    assert ("fit", 5.0) in kept and kept[-1] == ("train_epoch", 3.0)
    assert ("train_epoch", 2.0) not in kept
    waits = "rows of the ledger wait in a local file, because the disk is full"
    assert caplog.messages.count(waits) == 1


@pytest.mark.parametrize("heartbeat_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_heartbeat_takes_a_time(ledger: Ledger, heartbeat_s: float) -> None:
    with pytest.raises(ConfigurationError, match="heartbeat_s is"):
        ledger.open_run("fit", "model", beat=list, heartbeat_s=heartbeat_s)


# Kills

# One warmed process forks a child for each kill. A child draws a joule more each time that it is
# asked for a heartbeat, and says so down a pipe before it answers.
CHILDREN = """
import os, sys, time
from greentrain.ledger.writer import Writer
from tests.ledger.events import CALIBRATION, CPU, window
from greentrain.ledger import Ledger

Ledger(sys.argv[1]).close()
for delay_s in map(float, sys.argv[2:]):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        drawn_j = 0

        def beat():
            global drawn_j
            drawn_j += 1
            os.write(write, b".")
            return [window("train_epoch", by_source={"cpu": float(drawn_j)})]

        run = Ledger(sys.argv[1]).open_run(
            "fit", str(delay_s), sources=lambda: [CPU], beat=beat, heartbeat_s=0.2
        )
        run.record(window("validation", by_source={"cpu": 100.0}))
        run.flush()
        os.write(write, b"!")
        time.sleep(60)
    os.close(write)
    while os.read(read, 1) != b"!":
        pass
    time.sleep(delay_s)
    os.kill(child, 9)
    os.waitpid(child, 0)
    print(len(os.read(read, 1000)))
    os.close(read)
"""


def kill(path: Path, delays_s: list[float]) -> list[int]:
    """Kill a child after each delay; return how often each was asked for a heartbeat."""
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, str(path), *map(str, delays_s)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def test_at_most_one_heartbeat_is_lost_to_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    moments = random.Random(0)
    delays_s = [0.9, *(moments.uniform(0.1, 0.9) for _ in range(KILLS - 1))]
    asked = kill(path, delays_s)
    ledger = Ledger(str(path), create=False)
    found = verify(ledger)
    assert found.failures == ()
    windows = ledger.windows()
    ids = [row["run_id"] for row in ledger.rows("run")]
    assert len(ids) == len(delays_s)
    for run_id, beats in zip(ids, asked, strict=True):
        mine = [row for row in windows if row["run_id"] == run_id]
        assert [row["energy_j"] for row in mine if not row["recovered"]] == [100.0]
        recovered_j = sum(row["energy_j"] for row in mine if row["recovered"])
        assert beats - 1 <= recovered_j <= beats
    assert max(asked) >= 3
    with ledger.open_run("fit", "the next") as run:
        run.record(window(by_source={"cpu": 1.0}))
    assert verify(ledger).ok
    ledger.close()


# Speed


def test_nothing_is_left_to_compile_or_import_when_a_ledger_is_opened(tmp_path: Path) -> None:
    code = (
        "import sys, greentrain.ledger as ledger\n"
        "before = set(sys.modules)\n"
        "opened = ledger.Ledger(sys.argv[1])\n"
        "opened.open_run('fit', 'model', environment=ledger.environment()).close()\n"
        "print(*(name for name in set(sys.modules) - before if 'sqlalchemy' in name))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
