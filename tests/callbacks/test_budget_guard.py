"""BudgetGuard in a real Trainer: at 1 J a batch, every cap can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Callback, Trainer

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.callbacks.anneal import catch_up, shape
from greentrain.errors import BudgetExceeded, ConfigurationError
from tests.models import Classifier, Clock, Tick, constant_meter, loader


def fit(guard: BudgetGuard, clock: Clock, *, model=None, step_s=0.01, val=False, **options):
    trainer = Trainer(
        callbacks=[guard, Tick(clock, step_s=step_s, validation_s=0.02)],
        **{
            "max_epochs": 10,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **options,
        },
    )
    trainer.fit(Classifier() if model is None else model, loader(), loader(2) if val else None)
    return trainer


def guard_of(cap, clock, **options) -> BudgetGuard:
    return BudgetGuard(cap, meter=constant_meter(clock), **options)


def test_a_cap_ends_the_fit_just_below_it():
    clock = Clock()
    guard = guard_of(100.0, clock)
    trainer = fit(guard, clock)
    assert guard.stopped
    assert 88.0 <= guard.used_j <= 100.0  # 10 J are kept for the meter's lag of 0.1 s at 100 W
    assert trainer.global_step == guard.steps == round(guard.used_j)
    assert guard.joules_per_step == pytest.approx(1.0)
    assert "of 0.0278 Wh were drawn after" in guard.reason  # the cap: 100 J


def test_a_cap_that_is_not_reached_changes_nothing():
    clock = Clock()
    guard = guard_of("1 kWh", clock)
    trainer = fit(guard, clock)
    assert trainer.global_step == 200
    assert not guard.stopped
    assert guard.reason == ""


@settings(max_examples=15, deadline=None)
@given(cap_j=st.floats(5.0, 150.0), step_s=st.floats(0.002, 0.03))
def test_no_cap_is_overshot_the_closing_validation_included(cap_j, step_s):
    clock = Clock()
    guard = guard_of(cap_j, clock)
    fit(guard, clock, step_s=step_s, val=True, val_check_interval=5)
    step_j = step_s * 100.0
    # The first validation comes unannounced: its cost is not known before it was measured once.
    assert clock.seconds * 100.0 <= max(cap_j, 5 * step_j + 2.0 * 100.0 * 0.02 * 5)


def test_the_meter_is_read_seldom():
    clock = Clock()
    meter = constant_meter(clock)
    reads = []
    original = meter.read
    meter.read = lambda: reads.append(1) or original()  # count, and pass on
    guard = BudgetGuard(1e6, meter=meter)
    fit(guard, clock)
    assert guard.steps == 200
    assert len(reads) < 20


def test_the_guard_wins_over_min_epochs():
    clock = Clock()
    guard = guard_of(30.0, clock)
    trainer = fit(guard, clock, min_epochs=5)
    assert guard.stopped
    assert trainer.global_step <= 30


def test_warn_trains_on_and_says_so_once():
    clock = Clock()
    guard = guard_of(30.0, clock, on_exceed="warn")
    with pytest.warns(UserWarning, match="training goes on"):
        trainer = fit(guard, clock)
    assert trainer.global_step == 200
    assert not guard.stopped


def test_raise_raises():
    clock = Clock()
    with pytest.raises(BudgetExceeded, match="were drawn after"):
        fit(guard_of(30.0, clock, on_exceed="raise"), clock)


def test_annealing_ends_the_schedule_at_the_planned_steps():
    clock, model = Clock(), Classifier()
    fit(guard_of(1e6, clock, anneal=True), clock, model=model)
    assert max(model.rates) == pytest.approx(0.5, rel=0.02)
    assert model.rates[-1] < 0.01 * 0.5
    assert model.rates[0] < 0.1


def test_annealing_ends_the_schedule_at_the_cap_when_that_comes_first():
    clock, model = Clock(), Classifier()
    guard = guard_of(60.0, clock, anneal=True)
    fit(guard, clock, model=model)
    assert guard.stopped
    assert model.rates[-1] < 0.05 * 0.5
    assert max(model.rates) > 0.9 * 0.5


def test_a_module_keeps_its_own_schedule_while_the_energy_lasts():
    import torch

    class Scheduled(Classifier):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.LinearLR(
                optimizer, start_factor=1.0, end_factor=0.1, total_iters=200
            )
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    rates = []
    for cap, anneal in ((1e6, False), (1e6, True), (60.0, True)):
        clock, model = Clock(), Scheduled()
        fit(guard_of(cap, clock, anneal=anneal), clock, model=model)
        rates.append(model.rates)
    assert rates[0] == rates[1]
    assert rates[2][-1] < 0.2 * rates[0][len(rates[2])]


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
        Trainer(
            callbacks=[guard, Tick(clock), *callbacks],
            max_epochs=10,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(model, loader(), ckpt_path=ckpt_path)
        return guard, model

    resumed(1e6, None, Save())
    guard, model = resumed(1e6, path)
    assert guard.steps == 200
    assert model.rates[0] == pytest.approx(0.5 * shape(101 / 200), rel=0.02)
    assert model.rates[-1] < 0.01
    guard, _ = resumed(140.0, path)
    assert guard.stopped
    assert 125.0 <= guard.used_j <= 140.0  # the 100 J before the resume are in it


def test_guard_and_monitor_see_the_same_joules():
    clock = Clock()
    meter = constant_meter(clock)
    monitor, guard = EnergyMonitor(meter), BudgetGuard(50.0, meter=meter)
    trainer = Trainer(
        callbacks=[guard, monitor, Tick(clock)],
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), loader())
    assert guard.used_j == pytest.approx(monitor.total.total_j)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"cap": "0 Wh"}, "more than zero"),
        ({"cap": -1.0}, "more than zero"),
        ({"cap": "5 parsecs"}, "the unit 'parsecs' is not known"),
        ({"cap": "50 % of full"}, "has no amount"),
        ({"cap": 1.0, "on_exceed": "explode"}, "'stop', 'warn' and 'raise'"),
        ({"cap": 1.0, "keep_j": -1.0}, "keep_j"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        BudgetGuard(**arguments)


def test_the_shape_rises_and_falls_and_catches_up():
    assert shape(0.0) == 0.0
    assert shape(0.05) == 1.0
    assert shape(1.0) == pytest.approx(0.0)
    assert shape(2.0) == pytest.approx(0.0)
    assert catch_up(0.3, 0.3) == 1.0
    assert catch_up(0.3, 1.0) == pytest.approx(0.0)
