"""A fit with a deadline ends in time, and cleanly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint

from greentrain.callbacks import BudgetGuard
from greentrain.callbacks.stop_reason import StopReason
from greentrain.errors import BudgetExceeded, ConfigurationError
from tests.callbacks.forks import FORKS, free_port, stopped_together
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

__all__ = ["free_port"]
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def guarded(clock: Clock, seconds: float, **options: Any) -> BudgetGuard:
    return BudgetGuard(
        **{
            "deadline": NOON + timedelta(seconds=seconds),
            "clock": lambda: NOON + timedelta(seconds=clock.seconds),
            **options,
        }
    )


def fit(guard: BudgetGuard, clock: Clock, *, validation_s: float = 0.0, **options: Any) -> Any:
    """Train on 20 batches of 10 s an epoch."""
    tick = Tick(clock, step_s=10.0, validation_s=validation_s)
    used = trainer(guard, tick, **{"max_epochs": 3, **options})
    used.fit(Classifier(), loader(), loader(8) if validation_s else None)
    return used


def test_a_fit_that_is_fast_enough_is_not_stopped():
    clock = Clock()
    guard = guarded(clock, 620.0)
    assert fit(guard, clock).global_step == 60
    assert (guard.stopped, guard.stop_reason, guard.reason) == (
        False,
        StopReason.NOT_STOPPED,
        "",
    )


@pytest.mark.parametrize("seconds", [1.0, 15.0, 105.0, 333.0, 599.0])
def test_a_fit_ends_before_its_deadline(seconds):
    clock = Clock()
    guard = guarded(clock, seconds)
    used = fit(guard, clock)
    assert clock.seconds <= max(seconds, 10.0)  # a first step takes as long as it takes
    assert clock.seconds > seconds - 25.0
    assert guard.stopped
    assert guard.stop_reason is StopReason.DEADLINE
    assert "is left until the deadline 2026-12-01T12:" in guard.reason
    assert used.state.finished


@pytest.mark.parametrize("seconds", [150.0, 290.0, 450.0])
def test_the_last_validation_is_in_time(seconds, tmp_path):
    """A validation has 4 batches of 8 s."""
    clock = Clock()
    guard = guarded(clock, seconds)
    saved = ModelCheckpoint(tmp_path / "saved")
    tick = Tick(clock, step_s=10.0, validation_s=8.0)
    used = trainer(guard, tick, saved, max_epochs=3, enable_checkpointing=True)
    used.fit(Classifier(), loader(), loader(8))
    assert clock.seconds <= seconds
    assert guard.stopped
    assert "val_loss" in used.callback_metrics
    assert len([*tmp_path.glob("saved/*.ckpt")]) == 1


def test_a_time_of_day_is_its_next_occurrence():
    clock = Clock()
    guard = guarded(clock, 0.0, deadline="12:03")
    fit(guard, clock)
    assert guard.deadline == NOON + timedelta(minutes=3)
    assert clock.seconds <= 180.0


def test_it_warns_once_or_raises():
    clock = Clock()
    with pytest.warns(UserWarning, match="the deadline 2026-12-01T12:01.* has passed") as warned:
        used = fit(guarded(clock, 60.0, on_exceed="warn"), clock)
    assert used.global_step == 60
    assert len([each for each in warned if "deadline" in str(each.message)]) == 1
    clock = Clock()
    with pytest.raises(BudgetExceeded, match="is left until the deadline"):
        fit(guarded(clock, 60.0, on_exceed="raise"), clock)


def test_a_cap_and_a_deadline_hold_together():
    """A step uses 1 kJ at 100 W."""
    clock = Clock()
    guard = guarded(clock, 400.0, cap="10 kJ", meter=constant_meter(clock))
    fit(guard, clock)
    assert guard.stop_reason is StopReason.NO_ROOM
    assert guard.used_j <= 10_000.0
    clock = Clock()
    guard = guarded(clock, 100.0, cap="50 kJ", meter=constant_meter(clock))
    fit(guard, clock)
    assert guard.stop_reason is StopReason.DEADLINE
    assert clock.seconds <= 100.0


def test_a_deadline_alone_needs_no_meter(monkeypatch):
    monkeypatch.setattr("greentrain.callbacks.budget_guard.MeterLease", None)
    clock = Clock()
    guard = guarded(clock, 100.0)
    fit(guard, clock)
    assert (guard.cap_j, guard.cap_g, guard.used_j) == (None, None, 0.0)
    assert "12:01" in guard._repr_html_()


@FORKS
def test_all_processes_stop_at_one_step(tmp_path):
    clock = Clock()
    guard = guarded(clock, 333.0)
    stopped_together(tmp_path, guard, Tick(clock, step_s=10.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": None}, "limits nothing; give a cap such as '0.5 kWh', or deadline='06:00'"),
        ({"deadline": "at six"}, r"deadline\)='at six' is no time; give a time of day such as"),
        ({"deadline": NOON}, "is in the past; now it is 2026-12-01T12:00:00"),
        ({"deadline": NOON.replace(tzinfo=None)}, "has no time zone; add it"),
        ({"deadline": "9999-12-31T23:59-12:00"}, "outside of the years 1 to 9999 in UTC; give an"),
        ({"anneal": True}, r"BudgetGuard\(anneal=True\) concerns a cap, and there is only a dead"),
        ({"ledger": "sqlite:///a.db"}, r"ledger='sqlite:///a.db'\) concerns a cap"),
        ({"budget": "b", "ledger": "sqlite:///a.db"}, r"budget='b'\) concerns a cap"),
    ],
)
def test_bad_arguments_get_one_sentence(options, message):
    with pytest.raises(ConfigurationError, match=message):
        guarded(Clock(), 60.0, **options)


def test_a_clock_without_a_zone_is_refused():
    with pytest.raises(ConfigurationError, match=r"BudgetGuard\(clock=...\) returned "):
        BudgetGuard(deadline="06:00", clock=datetime.now)
