"""Annealing in torch's step hooks: schedules end on time, users' schedulers stay as they are."""

from __future__ import annotations

import functools

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback
from torch.optim import lr_scheduler

from greentrain.callbacks.anneal import RateScaler, catch_up, cosine_factor
from tests.callbacks.test_budget_guard import fit, guard_of
from tests.models import Classifier, Clock

STEPS = 200
SCHEDULERS = {
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, 30, gamma=0.5),
    "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, [50, 150], gamma=0.1),
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, 0.99),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, STEPS),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, 0.5, total_steps=STEPS),
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 1 / (1 + 0.01 * step)),
    "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, 1.0, 0.1, total_iters=STEPS),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 40),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=1),
}


class Scheduled(Classifier):
    """A classifier with a scheduler, which steps at each batch; the one on a plateau each epoch."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def training_step(self, batch, batch_idx):
        self.log("flat", 1.0, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        plateau = self.name == "ReduceLROnPlateau"
        config = {"scheduler": SCHEDULERS[self.name](optimizer), "monitor": "flat"}
        return [optimizer], [{**config, "interval": "epoch" if plateau else "step"}]


class Schedule(Callback):
    """Note the rates that the scheduler has set, after each batch."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer, *args, **kwargs):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@functools.cache
def rates(name: str, cap: float, *, anneal: bool) -> tuple[list[float], list[float]]:
    """Return the rates of the steps, and those that the scheduler has set after them."""
    clock, model, schedule = Clock(), Scheduled(name), Schedule()
    fit(guard_of(cap, clock, anneal=anneal), clock, schedule, model=model)
    return model.rates, schedule.rates


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_followed_exactly_while_the_cap_lasts_as_long_as_its_steps(name):
    alone = rates(name, 1e6, anneal=False)
    assert rates(name, 1e6, anneal=True) == alone
    assert rates(name, 225.0, anneal=True) == alone  # 200 J of steps, and doubt


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_steps_as_ever_where_the_cap_does_not_last(name):
    alone, schedule = rates(name, 1e6, anneal=False)
    taken, left_alone = rates(name, 80.0, anneal=True)
    assert 50 < len(taken) < 80
    assert left_alone == schedule[: len(left_alone)]
    assert taken[-1] < 0.1 * alone[len(taken) - 1]
    assert all(rate <= own for rate, own in zip(taken, alone, strict=False))


@pytest.mark.parametrize("cap", [70.0, 150.0, 230.0, 400.0])
def test_the_factor_is_one_while_no_more_of_the_cap_than_of_the_steps_is_used(cap):
    clock, model = Clock(), Scheduled("CosineAnnealingLR")
    guard = guard_of(cap, clock, anneal=True)
    shares = []

    class Shares(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            shares.append((trainer.global_step / STEPS, clock.seconds * 100.0 / cap))

    fit(guard, clock, Shares(), model=model)
    own, _ = rates("CosineAnnealingLR", 1e6, anneal=False)
    for (done, used), rate, full in zip(shares, model.rates, own, strict=False):
        if used <= done:
            assert rate == full
    assert guard.stopped == (cap < 200.0)


def test_validations_do_not_slow_a_schedule_down_that_the_cap_pays_for():
    def taken(cap, **options):
        clock, model = Clock(), Scheduled("LinearLR")
        fit(guard_of(cap, clock, **options), clock, model=model, val=True)
        return model.rates

    # 200 steps of 1 J and 10 validations of 2 J; 30 J are for doubt, 20 of them for ticks of 0.1 s.
    assert taken(250.0, anneal=True) == taken(1e6)


def test_a_schedule_ends_at_the_planned_steps():
    clock, model = Clock(), Classifier()
    fit(guard_of(1e6, clock, anneal=True), clock, model=model)
    assert max(model.rates) == pytest.approx(0.5, rel=0.02)
    assert model.rates[-1] < 0.01 * 0.5
    assert model.rates[0] < 0.1


@pytest.mark.parametrize("options", [{"max_steps": 50}, {"max_epochs": -1, "max_steps": 50}])
def test_a_schedule_ends_at_max_steps(options):
    clock, model = Clock(), Classifier()
    fit(guard_of(1e6, clock, anneal=True), clock, model=model, **options)
    assert len(model.rates) == 50
    assert model.rates[25] > 0.2
    assert model.rates[-1] < 0.01 * 0.5


def test_a_schedule_ends_at_the_cap_when_that_comes_first():
    clock, model = Clock(), Classifier()
    guard = guard_of(60.0, clock, anneal=True)
    fit(guard, clock, model=model)
    assert guard.stopped
    assert model.rates[-1] < 0.05 * 0.5
    assert max(model.rates) > 0.9 * 0.5


def test_a_schedule_ends_at_a_cap_of_carbon_too():
    clock, model = Clock(), Classifier()
    guard = guard_of("0.006 gCO2e", clock, zone="DE", anneal=True)  # about 60 J
    fit(guard, clock, model=model)
    assert guard.stopped
    assert model.rates[-1] < 0.05 * 0.5
    assert max(model.rates) > 0.9 * 0.5


def test_several_optimizers_are_annealed_under_manual_optimisation():
    class Two(Classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.other = torch.nn.Linear(2, 4)

        def training_step(self, batch, batch_idx):
            for optimizer, layer in zip(self.optimizers(), (self.layer, self.other), strict=True):
                optimizer.zero_grad()
                self.manual_backward(layer(batch[0]).square().mean())
                optimizer.step()

        def configure_optimizers(self):
            second = torch.optim.Adam(self.other.parameters(), lr=0.5)
            second.register_step_post_hook(self._note_rate)
            return [super().configure_optimizers(), second]

    clock, model = Clock(), Two()
    guard = guard_of(60.0, clock, anneal=True)
    trainer = fit(guard, clock, model=model)
    assert guard.stopped
    assert trainer.global_step == len(model.rates) == 2 * guard.steps
    assert model.rates[-2:] == pytest.approx([0.0, 0.0], abs=0.03)
    assert [group["lr"] for each in trainer.optimizers for group in each.param_groups] == [0.5, 0.5]


def test_rates_come_back_when_scaling_ends_and_however_often_it_begins():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    for _ in range(2):
        scaler = RateScaler([optimizer], lambda: 0.5)
        weight.grad = torch.ones(1)
        optimizer.step()
        scaler.remove()
    assert weight.item() == -0.5
    optimizer.step()
    assert weight.item() == -1.0
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_two_guards_do_not_both_anneal():
    clock = Clock()
    both = guard_of(1e6, clock, anneal=True), guard_of("5 gCO2e", clock, zone="DE", anneal=True)
    both[1].meter = both[0].meter
    with pytest.raises(MisconfigurationException, match="set it for one of them only"):
        fit(both[0], clock, both[1])
    fit(guard_of(1e6, clock, anneal=True), clock, max_epochs=1)


def test_the_shape_rises_and_falls_and_catches_up():
    assert cosine_factor(0.0) == 0.0
    assert cosine_factor(0.05) == 1.0
    assert cosine_factor(1.0) == pytest.approx(0.0)
    assert cosine_factor(2.0) == pytest.approx(0.0)
    assert catch_up(0.3, 0.3) == 1.0
    assert catch_up(0.3, 1.0) == pytest.approx(0.0)
