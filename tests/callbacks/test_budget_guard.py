"""BudgetGuard in a real Trainer: at 1 J a batch, every cap can be worked out by hand."""

from __future__ import annotations

import dataclasses
import logging
import math
from datetime import UTC, datetime, timedelta

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.callbacks import usage as usage_module
from greentrain.callbacks.anneal import cosine_factor
from greentrain.callbacks.stop_reason import StopReason
from greentrain.carbon import CsvIntensity
from greentrain.energy import ConstantMeter, Reading
from greentrain.errors import BudgetExceeded, ConfigurationError
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer


def fit(
    guard: BudgetGuard,
    clock: Clock,
    *others,
    model=None,
    step_s=0.01,
    val=False,
    path=None,
    **options,
):
    tick = Tick(clock, step_s=step_s, validation_s=0.02)
    options = {"max_epochs": 10, "num_sanity_val_steps": 0, **options}
    fitted = trainer(guard, tick, *others, **options)
    model = Classifier() if model is None else model
    fitted.fit(model, loader(), loader(2) if val else None, ckpt_path=path)
    return fitted


def guard_of(cap, clock, **options) -> BudgetGuard:
    """A guard at 100 W, whose cap is a text or a number of joules."""
    cap = cap if isinstance(cap, str) else Budget(energy_j=cap)
    return BudgetGuard(cap, meter=constant_meter(clock), **options)


def test_a_cap_ends_the_fit_just_below_it():
    clock = Clock()
    guard = guard_of(100.0, clock)
    trainer = fit(guard, clock)
    assert guard.stopped
    assert 96.0 <= guard.used_j <= 100.0  # two steps and some doubt
    assert trainer.global_step == guard.steps == round(guard.used_j)
    assert guard.joules_per_step == pytest.approx(1.0)
    assert guard.stop_reason is StopReason.NO_ROOM
    assert "of its cap of 100 J in" in guard.reason


class Lagging(ConstantMeter):
    """A meter that says that it is behind."""

    @property
    def sources(self):
        return tuple(dataclasses.replace(each, lag_s=0.2) for each in super().sources)


def test_what_a_meter_says_that_it_lags_is_kept_aside():
    clock = Clock()
    guard = BudgetGuard("100 J", meter=Lagging(100.0, clock=clock))
    fit(guard, clock)
    assert guard.stopped
    assert 75.0 <= guard.used_j <= 80.0  # 0.2 s at 100 W are 20 J


def test_a_cap_that_is_not_reached_changes_nothing():
    clock = Clock()
    guard = guard_of("1 kWh", clock)
    trainer = fit(guard, clock)
    assert trainer.global_step == 200
    assert not guard.stopped
    assert guard.stop_reason is StopReason.NOT_STOPPED
    assert guard.reason == ""


@settings(max_examples=15, deadline=None)
@given(cap_j=st.floats(40.0, 150.0), step_s=st.floats(0.002, 0.02))
def test_no_cap_is_overshot_the_closing_validation_included(cap_j, step_s):
    clock = Clock()
    guard = guard_of(cap_j, clock)
    fit(guard, clock, step_s=step_s, val=True, val_check_interval=5)
    assert clock.seconds * 100.0 <= cap_j


def test_a_validation_that_was_not_measured_is_bounded_from_training_steps():
    clock = Clock()
    guard = guard_of(300.0, clock)
    # 3 J in a batch that is trained on, and 3 J in one that is looked at.
    tick = Tick(clock, step_s=0.02, validation_s=0.01)
    trainer = fit(
        guard,
        clock,
        tick,
        val=True,
        max_epochs=50,
        check_val_every_n_epoch=None,
        **{"val_check_interval": 10**6, "limit_val_batches": 5},
    )
    assert guard.stopped
    assert trainer.global_step > 60
    assert clock.seconds * 100.0 <= 300.0


def test_the_first_step_is_taken_unless_it_is_known_not_to_fit(tmp_path):
    clock = Clock()
    guard = guard_of(0.5, clock)  # a step uses 1 J, which is unknown before it
    with pytest.warns(UserWarning, match="more than its cap of 0.5 J"):
        trainer = fit(guard, clock)
    assert trainer.global_step == 1
    assert guard.stopped
    assert guard.stop_reason is StopReason.CAP_EXCEEDED

    clock = Clock()
    guard = guard_of(1.5, clock)  # the sanity check uses 2 J
    with pytest.warns(UserWarning, match="more than its cap of 1.5 J"):
        trainer = fit(guard, clock, val=True, num_sanity_val_steps=2)
    assert trainer.global_step == 0
    assert guard.stopped

    path = tmp_path / "last.ckpt"
    fit(guard_of(1e6, Clock()), Clock(), max_epochs=1).save_checkpoint(path)
    clock = Clock()
    first = guard_of(1e6, clock)
    fit(first, clock, max_epochs=1).save_checkpoint(path)
    clock = Clock()
    guard = guard_of(first.used_j + 0.9, clock)  # the step is known from before the resume
    trainer = fit(guard, clock, path=path)
    assert trainer.global_step == 20
    assert clock.seconds == 0.0
    assert guard.stopped


def test_the_planned_end_is_no_stop():
    clock = Clock()
    guard = guard_of(201.0, clock)
    trainer = fit(guard, clock)
    assert trainer.global_step < 200  # a step and some doubt are kept aside
    clock = Clock()
    guard = guard_of(211.5, clock)
    trainer = fit(guard, clock, max_steps=200)
    assert trainer.global_step == 200
    assert not guard.stopped
    assert guard.reason == ""


def test_a_validation_every_third_epoch_is_foreseen():
    clock = Clock()
    guard = guard_of(250.0, clock)
    # Validations of 100 J: the first is paid; after the fifth epoch the sixth cannot be begun.
    tick = Tick(clock, step_s=0.0, validation_s=0.98)
    fit(guard, clock, tick, val=True, check_val_every_n_epoch=3, max_epochs=50)
    assert guard.stopped
    assert clock.seconds * 100.0 <= 250.0


def test_the_meter_is_read_seldom():
    clock = Clock()
    meter = constant_meter(clock)
    reads = []
    original = meter.read
    meter.read = lambda: reads.append(1) or original()  # count, and pass on
    guard = BudgetGuard("1e6 J", meter=meter)
    fit(guard, clock)
    assert guard.steps == 200
    assert len(reads) < 20


def test_looks_grow_with_the_logarithm_of_what_is_left():
    clock = Clock()
    meter = constant_meter(clock)
    reads = []
    original = meter.read
    meter.read = lambda: reads.append(1) or original()
    guard = BudgetGuard("1900 J", meter=meter)
    fit(guard, clock, max_epochs=100)
    assert 1860 < guard.steps < 1900
    assert len(reads) < 45  # 5 at the beginning, a quarter less left at each, 10 near the end


@pytest.mark.parametrize("least", [{"min_epochs": 5}, {"min_steps": 90, "max_epochs": 10}])
def test_the_guard_wins_over_min_epochs_and_min_steps(least):
    clock = Clock()
    guard = guard_of(30.0, clock)
    trainer = fit(guard, clock, **least)
    assert guard.stopped
    assert 5 < trainer.global_step <= 30


def test_why_a_fit_ends_is_logged(caplog):
    clock = Clock()
    with caplog.at_level(logging.INFO):
        guard = guard_of(30.0, clock)
        fit(guard, clock)
    logged = [message for message in caplog.messages if "BudgetGuard" in message]
    assert logged == [f"BudgetGuard stops the fit: {guard.reason}"]


def test_the_best_checkpoint_is_kept_and_the_last_one_saved(tmp_path):
    clock = Clock()
    guard = guard_of(100.0, clock)
    kept = ModelCheckpoint(tmp_path / "kept", monitor="val_acc", mode="max")
    ended = ModelCheckpoint(tmp_path / "ended", save_last=True)
    trainer = fit(guard, clock, kept, ended, val=True, max_epochs=50, enable_checkpointing=True)
    assert guard.stopped
    best = torch.load(kept.best_model_path, weights_only=True)
    last = torch.load(ended.last_model_path, weights_only=True)
    assert 0 < best["global_step"] <= last["global_step"] == trainer.global_step
    assert clock.seconds * 100.0 <= 100.0
    assert last["callbacks"][guard.state_key]["used_j"] == pytest.approx(guard.used_j)


def test_warn_trains_on_and_says_so_once():
    clock = Clock()
    guard = guard_of(30.0, clock, on_exceed="warn")
    with pytest.warns(UserWarning, match="training continues: on_exceed='warn'"):
        trainer = fit(guard, clock)
    assert trainer.global_step == 200
    assert not guard.stopped
    assert guard.stop_reason is StopReason.CAP_EXCEEDED


def test_raise_raises():
    clock = Clock()
    with pytest.raises(BudgetExceeded, match=r"of its cap of .* steps, and one more step"):
        fit(guard_of(30.0, clock, on_exceed="raise"), clock)


def test_gradient_accumulation_counts_batches():
    clock, model = Clock(), Classifier()
    guard = guard_of(1e6, clock, anneal=True)
    trainer = fit(guard, clock, model=model, accumulate_grad_batches=4)
    assert guard.steps == 200
    assert trainer.global_step == len(model.rates) == 50
    assert model.rates[-1] < 0.01


def test_a_resumed_fit_goes_on_under_the_same_cap_and_schedule(tmp_path):
    path = tmp_path / "mid-epoch.ckpt"

    class Save(Callback):
        def on_train_batch_end(self, trainer, *args, **kwargs):
            if trainer.global_step == 100:
                trainer.save_checkpoint(path)

    def resumed(cap, ckpt_path=None, *callbacks):
        clock, model = Clock(), Classifier()
        guard = guard_of(cap, clock, anneal=True)
        fitted = trainer(guard, Tick(clock), *callbacks, max_epochs=10)
        fitted.fit(model, loader(), ckpt_path=ckpt_path)
        return guard, model

    resumed(1e6, None, Save())
    guard, model = resumed(1e6, path)
    assert guard.steps == 200
    assert model.rates[0] == pytest.approx(0.5 * cosine_factor(101 / 200), rel=0.02)
    assert model.rates[-1] < 0.01
    guard, _ = resumed(140.0, path)
    assert guard.stopped
    assert 125.0 <= guard.used_j <= 140.0  # the 100 J before the resume are in it


def test_guard_and_monitor_see_the_same_joules():
    clock = Clock()
    meter = constant_meter(clock)
    monitor, guard = EnergyMonitor(meter), BudgetGuard("50 J", meter=meter)
    trainer(guard, monitor, Tick(clock), max_epochs=10).fit(Classifier(), loader())
    assert guard.used_j == pytest.approx(monitor.total.total_j)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"cap": "0 Wh"}, "more than zero"),
        ({"cap": "-1 J"}, "more than zero"),
        ({"cap": "5 parsecs"}, "the unit 'parsecs' is not known"),
        ({"cap": "50 % of full"}, "is not an amount for one fit"),
        ({"cap": "1 kWh per day"}, "is not an amount for one fit"),
        ({"cap": "500 gCO2e", "zone": "Atlantis"}, "no carbon intensity is known"),
        ({"cap": "1 J", "zone": "DE", "pue": 0.5}, "pue is 0.5"),
        ({"cap": "1 J", "on_exceed": "explode"}, "'stop', 'warn', 'raise'"),
        ({"cap": "1 J", "keep_j": -1.0}, "keep_j"),
        ({"cap": 0.5}, r"cap=0.5\) has no unit; write the unit, such as '0.5 Wh' or '0.5 J'"),
        ({"cap": True}, "has no unit"),
        ({"cap": None}, "limits nothing; give a cap"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        BudgetGuard(**arguments)


class Hours:
    """A wall clock on which each second of a fake one is an hour."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=self.clock.seconds)


def csv(folder, *intensities: float) -> CsvIntensity:
    """Intensities of one hour after the other."""
    path = folder / "intensity.csv"
    lines = [f"2026-01-01T{hour:02}:00:00+00:00,{g}" for hour, g in enumerate(intensities)]
    path.write_text("\n".join(["datetime_utc,carbon_intensity", *lines]))
    return CsvIntensity(path, zone="DE")


def test_a_cap_of_carbon_counts_each_joule_at_its_hour(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(usage_module, "utc_now", Hours(clock))
    # 100 J in each hour: at 36 g/kWh they are 1 mg, at 360 g/kWh 10 mg; times the PUE of 1.5.
    intensity = csv(tmp_path, 36.0, 360.0, 36.0, 36.0)
    guard = guard_of("0.009 gCO2e", clock, intensity=intensity, pue=1.5)
    trainer = fit(guard, clock)
    assert guard.stopped
    assert guard.cap_j is None
    # 1.5 mg in the first hour; the 7.5 mg that are left last for 50 J of the second one.
    true_g = 0.0015 + (clock.seconds - 1.0) * 0.015
    assert 130 < trainer.global_step < 150
    assert guard.used_g == pytest.approx(true_g, rel=0.01)
    assert 0.007 < true_g <= 0.009
    assert "of its cap of 9 mg CO2e in" in guard.reason


def test_grams_are_shown_next_to_a_cap_of_energy_and_go_on_over_a_resume(tmp_path):
    clock = Clock()
    first = guard_of(1e6, clock)  # has no zone yet
    fit(first, clock, max_epochs=1).save_checkpoint(tmp_path / "first.ckpt")
    clock = Clock()
    second = guard_of(1e6, clock, zone="DE")
    fit(second, clock, max_epochs=3, path=tmp_path / "first.ckpt")
    whole = EnergyMonitor(zone="DE").carbon.emissions(60.0, *[datetime.now(UTC)] * 2)
    assert second.used_j == pytest.approx(60.0)
    assert second.used_g == pytest.approx(whole.grams)
    assert first.used_g is None


def test_a_cap_of_energy_and_one_of_carbon_hold_together(tmp_path):
    for energy, carbon in (("60 J", "5 gCO2e"), ("5 Wh", "0.006 gCO2e")):
        clock = Clock()
        meter = constant_meter(clock)
        grams = BudgetGuard(carbon, zone="DE", meter=meter)
        trainer = fit(BudgetGuard(energy, meter=meter), clock, grams)
        assert 40 < trainer.global_step <= 65
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    saved = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    assert sum("BudgetGuard" in key for key in saved) == 2


def test_an_intensity_that_does_not_cover_the_fit_is_refused_in_setup(tmp_path):
    clock = Clock()
    guard = guard_of("5 gCO2e", clock, intensity=csv(tmp_path, 36.0, 36.0))  # of a day long ago
    with pytest.raises(ConfigurationError, match="present carbon intensity is unknown"):
        fit(guard, clock)


class Breaking(ConstantMeter):
    """A meter that fails from some time on."""

    def __init__(self, clock: Clock, fails_s: float) -> None:
        super().__init__(100.0, clock=clock)
        self.seconds = clock
        self.fails_s = fails_s

    def read(self) -> Reading:
        if self.seconds() >= self.fails_s:
            raise OSError("gone")
        return super().read()


class Falling(Breaking):
    """A meter whose joules fall, or are no number, from some time on."""

    joules = 0.0

    def read(self) -> Reading:
        if self.seconds() >= self.fails_s:
            return Reading(duration_s=self.seconds(), energy_j={"constant": self.joules})
        return ConstantMeter.read(self)


class NoNumber(Falling):
    joules = math.nan


@pytest.mark.parametrize("kind", [Breaking, Falling, NoNumber])
def test_a_meter_that_fails_does_not_open_the_cap(kind):
    clock = Clock()
    guard = BudgetGuard("150 J", meter=kind(clock, 0.5))
    with pytest.warns(UserWarning, match="can no longer be read"):
        trainer = fit(guard, clock)
    assert guard.stopped
    assert 120 < trainer.global_step <= 150  # its steps count 1 J each, as before


def test_a_cap_that_cannot_be_watched_is_reported():
    clock = Clock()
    with pytest.warns(UserWarning, match="measures nothing on this machine"):
        trainer = fit(BudgetGuard("5 J", meter=Breaking(clock, 0.0)), clock)
    assert trainer.global_step == 200


def test_a_guard_alone_finds_its_meter():
    guard = BudgetGuard("1 kWh")
    fit(guard, Clock(), max_epochs=1)
    assert guard.steps == 20
    assert guard.used_j > 0


def test_other_stages_are_not_watched():
    clock = Clock()
    guard = guard_of(1e6, clock)
    trainer = fit(guard, clock, max_epochs=1)
    used_j = guard.used_j
    trainer.validate(Classifier(), loader(2), verbose=False)
    assert guard.used_j == used_j > 0


def test_manual_optimisation_stops_too():
    class Manual(Classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    clock = Clock()
    guard = guard_of(60.0, clock)
    trainer = fit(guard, clock, model=Manual(), min_epochs=9)
    assert guard.stopped
    assert 40 < trainer.global_step <= 60


def test_a_monitor_and_a_guard_on_one_meter_cut_one_stream_of_windows(tmp_path):
    for first in (True, False):
        clock = Clock()
        meter = constant_meter(clock)
        monitor, guard = EnergyMonitor(meter, ledger=False, summary=False), BudgetGuard("80 J")
        order = (monitor, guard) if first else (guard, monitor)
        fitted = trainer(*order, Tick(clock, 0.01, 0.02), max_epochs=10)
        fitted.fit(Classifier(), loader(), loader(2))
        assert guard.stopped
        assert guard.used_j == pytest.approx(clock.seconds * 100.0)
        assert monitor.total.total_j == pytest.approx(guard.used_j)
        assert guard.used_j <= 80.0
