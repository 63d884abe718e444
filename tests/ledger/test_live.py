"""What happens in a ledger now, read by another process, on both engines."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greentrain.budget import Budget
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.ledger.live import LiveView, live_view
from tests.ledger.events import window
from tests.report.ledgers import come, decide

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

# Uses 50 W from its beginning on, and waits to be killed.
CHILD = """
import sys, time
from greentrain.energy import ConstantMeter, WindowRecorder
from greentrain.ledger import Ledger

ledger = Ledger(sys.argv[1])
meter = ConstantMeter(50.0)
meter.start()
recorder = WindowRecorder(meter)
run = ledger.open_run("stream", "digits", beat=recorder.open_windows, heartbeat_s=0.05)
recorder.enter("train_epoch", epoch=3)
time.sleep(600)
"""


@pytest.fixture
def now(ledger: Ledger) -> list[datetime]:
    """The time of the ledger's clock."""
    moments = [NOON]
    ledger.clock = lambda: moments[0]
    return moments


def test_an_empty_ledger_is_empty(ledger: Ledger) -> None:
    view = live_view(ledger)
    assert view.is_empty
    assert (view.runs, view.budgets, view.decisions) == ((), {}, ())


def test_a_number_of_decisions_is_not_negative(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match="last is -1"):
        live_view(ledger, last=-1)


def test_the_power_is_that_between_the_last_two_heartbeats(
    ledger: Ledger, now: list[datetime]
) -> None:
    run = ledger.open_run("fit", "model")
    run.record(window("validation", by_source={"cpu": 10.0}))
    beats = [(10.0, 1000.0), (20.0, 1500.0)]  # 100 W, then 50 W
    for seconds, joules in beats:
        run.note("heartbeat", **beat("train_epoch", seconds, joules))
    run.flush()
    (shown,) = live_view(ledger).runs
    assert shown.phase is not None
    assert (shown.phase.phase, shown.phase.is_open) == ("train_epoch", True)
    assert shown.phase.power_w == pytest.approx(50.0)
    run.note("heartbeat", **beat("probe", 2.0, 60.0))  # the first of its phase
    run.flush()
    (shown,) = live_view(ledger).runs
    assert shown.phase is not None and shown.phase.power_w == pytest.approx(30.0)
    run.note("heartbeat", **beat("probe", 3.0, None))
    run.flush()
    (shown,) = live_view(ledger).runs
    assert shown.phase is not None and shown.phase.power_w is None
    run.record(window("probe", by_source={"cpu": 160.0, "gpu:0": None}, duration_s=4.0))
    run.flush()
    (shown,) = live_view(ledger).runs
    assert shown.phase is not None
    assert (shown.phase.is_open, shown.phase.complete) == (False, False)
    assert shown.phase.power_w == pytest.approx(40.0)
    run.close()


def beat(phase: str, duration_s: float, energy_j: float | None) -> dict[str, object]:
    return {
        "phase": phase,
        "started_utc": "2026-01-01T12:00:00.000000+00:00",
        "duration_s": duration_s,
        "energy_j": energy_j,
        "by_source": "{}",
        "complete": energy_j is not None,
    }


def test_a_run_without_a_row_for_a_minute_is_silent(ledger: Ledger, now: list[datetime]) -> None:
    run = ledger.open_run("stream", "digits")
    status = {}
    for seconds in (0, 60, 61):
        now[0] = NOON + timedelta(seconds=seconds)
        (shown,) = live_view(ledger).runs
        status[seconds] = (shown.status, shown.since)
    assert status == {0: ("running", NOON), 60: ("running", NOON), 61: ("silent", NOON)}
    run.close("failed")
    (shown,) = live_view(ledger).runs
    assert (shown.status, shown.since) == ("failed", now[0])


def test_the_newest_run_of_each_name_is_shown(ledger: Ledger, now: list[datetime]) -> None:
    for name in ("a", "b", "a", "c", "d", "e", "f"):
        ledger.open_run("fit", name).close()
    assert [run.name for run in live_view(ledger).runs] == ["f", "e", "d", "c", "a"]
    old = ledger.open_run("stream", "a")
    now[0] += timedelta(minutes=5)
    new = ledger.open_run("stream", "a")
    shown = [(run.name, run.kind, run.status) for run in live_view(ledger).runs]
    assert shown[:2] == [("a", "stream", "running"), ("f", "fit", "completed")]
    new.close()
    old.close()


def test_decisions_have_their_own_outcomes(ledger: Ledger, now: list[datetime]) -> None:
    budget = ledger.open_budget("digits", Budget.parse("1 Wh", num_experiences=3))
    run = ledger.open_run("stream", "digits")
    account = ledger.account(budget, run)
    decide(run, budget, 0)
    come(run, 0, energy_j=1.0)
    update = account.reserve(600.0, "update")
    decide(run, budget, 1, reservation_id=update, update_mode="WARM_START", step_fraction=0.5)
    (shown,) = live_view(ledger).runs
    assert shown.update is not None
    assert (shown.update.experience_id, shown.update.done) == ("experience-1", False)
    come(run, 1, reservation_id=update, energy_j=500.0, kept=False)
    account.settle(update, 500.0)
    baseline = account.reserve(900.0, "baseline")
    decide(run, budget, 1, reservation_id=baseline, update_mode="FULL_RETRAIN", step_fraction=1.0)
    come(run, 1, reservation_id=baseline, energy_j=800.0)
    account.settle(baseline, 800.0)
    view = live_view(ledger, last=2)
    assert view.runs[0].update is None
    assert [(one.update_mode, one.energy_j, one.kept) for one in view.decisions] == [
        ("FULL_RETRAIN", 800.0, True),
        ("WARM_START", 500.0, False),
    ]
    assert view.budgets["digits"].left == pytest.approx(3600.0 - 1300.0)
    assert live_view(ledger, last=0).decisions == ()
    assert len(live_view(ledger, last=9).decisions) == 3
    run.close()


def test_a_run_of_another_process_is_seen_before_and_after_it_is_killed(
    ledger: Ledger, url: str
) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, url], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while len(ledger.rows("heartbeat")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        view = live_view(ledger)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    (shown,) = view.runs
    assert (shown.name, shown.kind, shown.status) == ("digits", "stream", "running")
    assert shown.phase is not None
    assert (shown.phase.phase, shown.phase.epoch) == ("train_epoch", 3)
    assert shown.phase.power_w == pytest.approx(50.0)
    later = view.moment + timedelta(hours=1)
    ledger.clock = lambda: later
    assert status_of(live_view(ledger)) == "silent"


def status_of(view: LiveView) -> str:
    (shown,) = view.runs
    return shown.status
