"""The mean of the weights that an update passes through."""

from __future__ import annotations

import torch
from pytorch_lightning import Callback
from torch import nn

from greentrain.callbacks import BudgetGuard
from greentrain.updating.averaging import MeanWeights
from tests.models import Classifier, Clock, Tick, constant_meter
from tests.updating.fitting import train, updater


class Trail(Callback):
    """Note the weights after each step."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, module, *args):
        self.weights.append(module.layer.weight.detach().clone())


def test_a_mean_over_fewer_steps_than_its_horizon_is_the_plain_mean():
    trail = Trail()
    model, _ = train(updater(), callbacks=[trail, MeanWeights(12)], steps=12)
    assert torch.allclose(model.layer.weight, torch.stack(trail.weights).mean(0), atol=1e-6)
    assert not torch.allclose(model.layer.weight, trail.weights[-1], atol=1e-3)


def test_a_longer_one_forgets_exponentially():
    trail = Trail()
    model, _ = train(updater(modes={"average": 0.2}), callbacks=[trail], steps=20)
    expected = trail.weights[0]
    for step, weights in enumerate(trail.weights[1:], start=2):
        expected = expected + (weights - expected) * max(1 / step, 1 / 4)  # a fifth of 20 steps
    assert torch.allclose(model.layer.weight, expected, atol=1e-6)


def test_the_mean_is_taken_of_what_there_was_when_a_cap_ends_an_update():
    clock, trail = Clock(), Trail()
    guard = BudgetGuard(20.0, meter=constant_meter(clock))  # at 1 J a step
    model, _ = train(
        updater(modes={"average": 0.5}, callbacks=[Tick(clock)]), callbacks=[guard, trail]
    )
    assert 5 < len(trail.weights) <= 20
    assert torch.allclose(model.layer.weight, torch.stack(trail.weights).mean(0), atol=1e-6)


class Normalised(Classifier):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 4))


def test_running_statistics_are_averaged_with_the_weights_and_counters_are_not():
    class Statistics(Callback):
        means: list[torch.Tensor]

        def on_train_batch_end(self, trainer, module, *args):
            self.means = [*getattr(self, "means", []), module.layer[0].running_mean.clone()]

    seen = Statistics()
    model, _ = train(updater(Normalised), callbacks=[seen, MeanWeights(99)], steps=10)
    norm = model.layer[0]
    assert torch.allclose(norm.running_mean, torch.stack(seen.means).mean(0), atol=1e-6)
    assert int(norm.num_batches_tracked) == 10


def test_accumulated_batches_count_as_one_step_of_the_mean():
    trail = Trail()
    updating = updater(accumulate_grad_batches=4)
    model, _ = train(updating, callbacks=[trail, MeanWeights(99)], steps=8)
    steps = torch.stack([trail.weights[3], trail.weights[7]])
    assert torch.allclose(model.layer.weight, steps.mean(0), atol=1e-6)
