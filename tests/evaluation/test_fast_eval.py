"""A look without a Trainer finds what a validation finds, and leaves the module as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Subset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from greentrain.evaluation.comparison import combine
from greentrain.evaluation.fast_eval import BLOCKS, HOOKS, block_size, fast_evaluation
from tests.models import Classifier, blobs
from tests.training.fitting import VAL, parts, train

LOADER = {"batch_size": 8}
# Corners that run into each other: no model is right about all of them.
BLURRED = TensorDataset(
    VAL.tensors[0] + torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), VAL.tensors[1]
)


def evaluated(model, datasets=(BLURRED,), *, monitor="val_acc", loader=None, features=False):
    return fast_evaluation(
        model, datasets, monitor=monitor, loader={**LOADER, **(loader or {})}, features=features
    )


class Drops(Classifier):
    """Has layers that behave in another way while training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 4), nn.Dropout(0.5))


class ByMetric(Classifier):
    """Logs a torchmetrics object that gathers what it sees."""

    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(num_classes=4, average="micro")

    def validation_step(self, batch, batch_idx):
        samples, labels = batch
        self.accuracy(self.layer(samples).argmax(1), labels)
        self.log("val_acc", self.accuracy)


@pytest.mark.parametrize("make_model", [Classifier, Drops, ByMetric])
def test_a_fast_evaluation_finds_what_a_validation_finds(make_model):
    updating = parts(make_model)
    model, _ = train(updating, steps=6)
    (found,) = evaluated(model)
    assert found.value == pytest.approx(updating.metric(BLURRED, model))
    assert 0.3 < found.value < 1.0
    assert [size for size, _ in found.blocks] == [8] * 8
    assert found.value == pytest.approx(combine([found]).value)


def test_a_fast_evaluation_finds_the_loss_beside_the_metric():
    model, _ = train(parts(), steps=6)
    samples, labels = BLURRED.tensors
    expected = nn.functional.cross_entropy(model.layer(samples), labels).item()
    assert evaluated(model)[0].loss == pytest.approx(expected)


@pytest.mark.parametrize("make_model", [Drops, ByMetric])
def test_a_fast_evaluation_leaves_the_module_as_it_was(make_model):
    model, _ = train(parts(make_model), steps=6)
    model.train()
    attributes, weights = set(vars(model)), copy.deepcopy(model.state_dict())
    trainer = model._trainer
    found = evaluated(model)
    assert set(vars(model)) == attributes
    assert "log" not in vars(model)
    assert model.training
    assert model._trainer is trainer  # which was not copied either
    assert all(torch.equal(each, weights[name]) for name, each in model.state_dict().items())
    if make_model is ByMetric:
        assert model.accuracy._update_count == 0
    assert evaluated(model) == found


def test_several_datasets_are_looked_at_one_by_one():
    model, _ = train(parts(), steps=6)
    few, rest = Subset(BLURRED, range(10)), Subset(BLURRED, range(10, 64))
    both = evaluated(model, [few, rest])
    assert both == [*evaluated(model, [few]), *evaluated(model, [rest])]
    assert [size for size, _ in both[0].blocks] == [8, 2]
    correct = both[0].value * 10 + both[1].value * 54
    assert combine(both).value == pytest.approx(correct / 64)


def test_features_are_noted_where_they_are_asked_for():
    model, _ = train(parts(), steps=6)
    (plain,), (tapped,) = evaluated(model), evaluated(model, features=True)
    assert plain.features == {}
    assert tapped == plain
    assert tapped.features
    assert {len(each) for each in tapped.features.values()} == {64}
    assert not model.layer._forward_hooks


class NeedsTrainer(Classifier):
    def validation_step(self, batch, batch_idx):
        assert self.trainer.world_size == 1
        super().validation_step(batch, batch_idx)


class AtTheEnd(Classifier):
    def validation_step(self, batch, batch_idx):
        return 0.5

    def on_validation_epoch_end(self):
        self.log("val_acc", 0.5)


class Sometimes(Classifier):
    def validation_step(self, batch, batch_idx):
        if batch_idx:
            self.log("val_acc", 0.5)


def test_a_metric_that_a_block_lacks_is_not_made_up():
    assert evaluated(Sometimes()) is None


@pytest.mark.parametrize("make_model", [NeedsTrainer, AtTheEnd])
def test_what_cannot_do_without_a_trainer_gets_one(make_model):
    model = make_model()
    assert evaluated(model) is None
    updating = parts(lambda: model)
    (found,) = updating.measure([BLURRED])
    assert found.value == pytest.approx(updating.metric(BLURRED))
    assert not updating.evaluator._fast  # it is not tried again
    assert updating.measure([BLURRED]) == [found]


class Scaled(Classifier):
    """Scales its batches in a hook: the samples of :data:`FAR` are those of ``BLURRED``."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return (batch[0] - 100) / 50, batch[1]


FAR = TensorDataset(50 * BLURRED.tensors[0] + 100, BLURRED.tensors[1])


def test_a_hook_that_scales_is_called():
    plain, scaled = parts(), parts(Scaled)
    trained, _ = train(plain, steps=6)
    model = Scaled()
    model.load_state_dict(trained.state_dict())
    (found,) = scaled.measure([FAR], model)
    assert found.value == scaled.metric(FAR, model)
    assert found.value == pytest.approx(plain.metric(BLURRED, trained))
    assert found.value > 0.5


@pytest.mark.parametrize("hook", HOOKS)
def test_a_module_with_hooks_is_left_to_a_trainer(hook):
    called = []

    def note(self, *args, **kwargs):
        called.append(hook)
        return getattr(super(hooked, self), hook)(*args, **kwargs)

    hooked = type("Hooked", (Classifier,), {hook: note})
    model = hooked()
    assert evaluated(model) is None
    (found,) = parts(hooked).measure([BLURRED], model)
    assert called
    assert found.value == pytest.approx(parts().metric(BLURRED, model))


@pytest.mark.parametrize(
    ("options", "fast"),
    [
        ({}, True),
        ({"precision": None}, True),
        ({"precision": "32-true"}, True),
        ({"precision": "64-true"}, False),
        ({"precision": "bf16-mixed"}, False),
    ],
)
def test_another_precision_needs_a_trainer(options, fast):
    assert parts(**options).evaluator._fast is fast


def test_another_name_is_not_found():
    assert evaluated(Classifier(), monitor="val_f1") is None


def test_a_module_on_another_device_is_left_to_its_trainer():
    assert evaluated(Classifier().to("meta")) is None


@pytest.mark.parametrize(("accelerator", "fast"), [("cpu", True), ("gpu", False)])
def test_only_probes_on_the_cpu_go_without_a_trainer(accelerator, fast, monkeypatch):
    monkeypatch.setattr("greentrain.training.fit.number_of_ranks", lambda options: 1)
    assert parts(accelerator=accelerator).evaluator._fast is fast


def test_no_worker_is_started_for_a_fast_evaluation():
    loader = {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 4}
    model = Classifier()
    assert evaluated(model, loader=loader) == evaluated(model)


def test_the_random_state_is_left_alone():
    updating = parts(Drops)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    updating.measure([BLURRED])
    assert torch.equal(torch.rand(2), expected)


@given(samples=st.integers(1, 5000), batch_size=st.integers(1, 256))
def test_blocks_are_many_and_not_tiny(samples, batch_size):
    block = block_size(samples, {"batch_size": batch_size})
    blocks = -(-samples // block)
    assert 1 <= block <= batch_size
    if block < batch_size:  # as large as a batch at most, whatever that makes of their number
        assert blocks <= BLOCKS
        assert block >= 8


@pytest.mark.parametrize(("samples", "block"), [(48, 16), (512, 32), (1024, 64), (5000, 64)])
def test_blocks_by_hand(samples, block):
    assert block_size(samples, {"batch_size": 64}) == block
    sizes = [size for size, _ in evaluated(Classifier(), [blobs((0,), 48)])[0].blocks]
    assert sizes == [8] * 6
