"""The mean of the weights that an update passes through."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

from greentrain.callbacks import BudgetGuard
from greentrain.control import Action, Always, UpdateMode
from greentrain.training.fit_callbacks import WeightAveraging
from tests.models import Classifier, Clock, Tick, constant_meter, experience
from tests.training.fitting import parts, train
from tests.training.streaming import open_stream


class Trail(Callback):
    """Note the weights after each step."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, module, *args):
        self.weights.append(module.layer.weight.detach().clone())


def plain(make_model=Classifier, **options):
    """An updater that averages nothing by itself."""
    return parts(make_model, modes={"weight_averaging": 0.0}, **options)


def test_a_mean_over_all_steps_is_the_plain_mean():
    trail = Trail()
    model, _ = train(plain(), callbacks=[trail, WeightAveraging(1.0)], steps=12)
    assert torch.allclose(model.layer.weight, torch.stack(trail.weights).mean(0), atol=1e-6)
    assert not torch.allclose(model.layer.weight, trail.weights[-1], atol=1e-3)


def in_proportion_to_their_number(trail):
    """The mean over half of the steps: the weights of step t count t times."""
    count = torch.arange(1.0, len(trail.weights) + 1)
    return (torch.stack(trail.weights) * count[:, None, None]).sum(0) / count.sum()


def test_a_mean_over_a_share_of_the_steps_forgets_as_the_fit_grows():
    trail = Trail()
    model, _ = train(parts(modes={"weight_averaging": 0.5}), callbacks=[trail], steps=20)
    assert torch.allclose(model.layer.weight, in_proportion_to_their_number(trail), atol=1e-6)


def test_a_mean_is_the_same_whatever_number_of_steps_was_planned_before_a_cap_ends_the_fit():
    clock, trail = Clock(), Trail()
    guard = BudgetGuard("20 J", meter=constant_meter(clock))  # at 1 J a step
    model, _ = train(
        parts(modes={"weight_averaging": 0.5}, callbacks=[Tick(clock)]), callbacks=[guard, trail]
    )
    assert 5 < len(trail.weights) <= 20
    assert torch.allclose(model.layer.weight, in_proportion_to_their_number(trail), atol=1e-6)


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
    model, _ = train(plain(Normalised), callbacks=[seen, WeightAveraging(1.0)], steps=10)
    norm = model.layer[0]
    assert torch.allclose(norm.running_mean, torch.stack(seen.means).mean(0), atol=1e-6)
    assert int(norm.num_batches_tracked) == 10


class Buffered(Classifier):
    """Has the buffers of a causal mask, of a sparse matrix and of a table that never changes."""

    def __init__(self):
        super().__init__()
        mask = torch.triu(torch.full((4, 4), -torch.inf), diagonal=1)
        self.register_buffer("mask", mask)
        self.register_buffer("hidden", mask.clone(), persistent=False)
        self.register_buffer("sparse", torch.eye(2).to_sparse())
        self.register_buffer("huge", torch.tensor(3e38))

    def training_step(self, batch, batch_idx):
        seen = torch.softmax(self.mask, -1) + torch.softmax(self.hidden, -1)
        return super().training_step(batch, batch_idx) * seen.sum() / 8


def test_buffers_that_have_no_mean_keep_their_values():
    model, _ = train(parts(Buffered), steps=10)
    fresh = Buffered()
    for name, buffer in fresh.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name].to_dense(), buffer.to_dense()), name


def test_a_successor_with_a_new_nan_in_a_buffer_is_not_kept(tmp_path):
    class Spoils(Classifier):
        bad = False

        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(2))
            self.register_buffer("unknown", torch.tensor([torch.nan]))  # from the start on

        def training_step(self, batch, batch_idx):
            if Spoils.bad:
                self.scale.fill_(torch.nan)
            return super().training_step(batch, batch_idx)

    policy = Always(mode=UpdateMode.WARM_START)
    with open_stream(tmp_path, Spoils, policy=policy) as stream:
        assert stream.update(experience("0", range(4))).kept
        Spoils.bad = True
        assert not stream.update(experience("1", range(4), seed=1)).kept
        assert float(stream.model.scale.sum()) == 2.0


def test_accumulated_batches_count_as_one_step_of_the_mean():
    trail = Trail()
    updating = plain(accumulate_grad_batches=4)
    model, _ = train(updating, callbacks=[trail, WeightAveraging(1.0)], steps=8)
    steps = torch.stack([trail.weights[3], trail.weights[7]])
    assert torch.allclose(model.layer.weight, steps.mean(0), atol=1e-6)


FULL = Action(mode=UpdateMode.FULL_RETRAIN)


def test_weights_are_averaged_by_default_and_not_where_the_share_is_none():
    trails = Trail(), Trail()
    averaged, _ = train(parts(), callbacks=[trails[0]], steps=20)
    last, _ = train(plain(), callbacks=[trails[1]], steps=20)
    expected = trails[0].weights[0]
    for step, weights in enumerate(trails[0].weights[1:], start=2):
        expected = expected + (weights - expected) / (1 + 0.3 * (step - 1))
    assert torch.allclose(averaged.layer.weight, expected, atol=1e-6)
    assert torch.equal(last.layer.weight, trails[1].weights[-1])


class Start(Callback):
    """Note the weights that an update starts from."""

    def on_train_start(self, trainer, module):
        self.weight = module.layer.weight.detach().clone()


@pytest.mark.parametrize("mode", [UpdateMode.WARM_START, UpdateMode.REPLAY])
def test_the_next_update_goes_on_from_where_the_steps_ended(mode):
    updating, trail, start = parts(), Trail(), Start()
    mean, _ = train(updating, callbacks=[trail], steps=12)
    updating.keep(mean, FULL)
    train(updating, mode=mode, callbacks=[start], steps=4)
    assert torch.equal(start.weight, trail.weights[-1])
    assert not torch.allclose(start.weight, mean.layer.weight, atol=1e-3)
    assert updating.model is mean  # which is used meanwhile


def test_a_saved_updater_goes_on_from_where_the_steps_ended():
    updating, again, trail, start = parts(), parts(), Trail(), Start()
    mean, _ = train(updating, callbacks=[trail], steps=12)
    updating.keep(mean, FULL)
    again.current.load_state_dict(updating.current.state_dict())
    assert torch.equal(again.model.layer.weight, mean.layer.weight)
    train(again, mode=UpdateMode.WARM_START, callbacks=[start], steps=4)
    assert torch.equal(start.weight, trail.weights[-1])


def test_a_successor_that_is_dropped_changes_nothing_of_where_it_goes_on():
    updating, trail, start = parts(), Trail(), Start()
    mean, _ = train(updating, callbacks=[trail], steps=12)
    updating.keep(mean, FULL)
    train(updating, mode=UpdateMode.WARM_START, steps=12)  # and not kept
    train(updating, mode=UpdateMode.WARM_START, callbacks=[start], steps=4)
    assert torch.equal(start.weight, trail.weights[-1])


def test_a_model_from_elsewhere_is_where_it_goes_on_itself():
    updating, start, other = parts(), Start(), Classifier()
    train(updating, steps=12)
    updating.keep(other, FULL)
    train(updating, mode=UpdateMode.WARM_START, callbacks=[start], steps=4)
    assert torch.equal(start.weight, other.layer.weight)


class Queued(Classifier):
    """Has buffers that change their shape, their type or their existence during a fit."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(1, 2))
        self.register_buffer("halved", torch.ones(2))
        self.register_buffer("gone", torch.ones(2))
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        self.queue = torch.cat([self.queue, batch[0][:1]])[-4:]
        if self.steps == 3:
            self.halved = self.halved.half()
            del self.gone
            self.register_buffer("late", torch.zeros(2))
        if self.steps >= 3:
            self.late = self.late + 1.0
        return super().training_step(batch, batch_idx)


def test_a_buffer_that_changes_its_shape_or_type_keeps_its_last_value():
    trail = Trail()
    model, _ = train(plain(Queued), callbacks=[trail, WeightAveraging(1.0)], steps=12)
    assert torch.allclose(model.layer.weight, torch.stack(trail.weights).mean(0), atol=1e-6)
    assert model.queue.shape == (4, 2)
    assert model.halved.dtype == torch.float16
    assert not hasattr(model, "gone")
    assert model.late.tolist() == [10.0, 10.0]
