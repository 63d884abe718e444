"""What a model makes of its inputs: noted in real validations, of usual and unusual modules."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.compile import from_compiled
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain.evaluation.signals.features import (
    INPUTS,
    OUTPUTS,
    PENULTIMATE,
    WIDEST,
    FeatureTap,
    drift_between,
)
from tests.models import Classifier, blobs


class Net(Classifier):
    """Two layers, with a ``forward`` of the inputs."""

    def __init__(self, body=None, head=None):
        super().__init__()
        self.body = body or nn.Sequential(nn.Linear(2, 5), nn.ReLU())
        self.layer = nn.Sequential(self.body, head or nn.Linear(5, 4))

    def forward(self, samples):
        return self.layer(samples)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self(batch[0]).sum())


class NoForward(Net):
    forward = LightningModule.forward

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch[0]).sum())


class NoLayers(Net):
    def __init__(self):
        super().__init__()
        self.layer = nn.Softmax(1)


def validated(model, dataset, *, batch_size=8, limit=256):
    tap = FeatureTap(len(dataset), limit=limit)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[tap],
    )
    trainer.validate(model, DataLoader(dataset, batch_size=batch_size), verbose=False)
    return tap.features


def penultimate(model, batches):
    """Run a model on batches with a tap on it, as a validation step does."""
    tap = FeatureTap(sum(map(len, batches)))
    tap.attach(model)
    with torch.no_grad():
        for batch in batches:
            tap.begin()
            model(batch)
            tap.add(batch)
    tap.close()
    return tap.features.get(PENULTIMATE)


def hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


@pytest.mark.parametrize("make", [Net, NoForward])
def test_what_goes_into_the_last_layer_is_noted_in_a_validation(make):
    model, data = make(), blobs(range(4), 5)
    samples = data.tensors[0]
    features = validated(model, data)
    assert torch.allclose(features[PENULTIMATE], model.body(samples))
    assert torch.equal(features[INPUTS], samples)
    assert (OUTPUTS in features) is (make is Net)  # nobody called forward of the other one
    if make is Net:
        assert torch.allclose(features[OUTPUTS], model(samples))
    assert not hooks(model)


def test_a_model_without_layers_shows_its_outputs_and_inputs():
    model, data = NoLayers(), blobs(range(4), 5)
    features = validated(model, data)
    assert list(features) == [OUTPUTS, INPUTS]
    assert torch.allclose(features[OUTPUTS], data.tensors[0].softmax(1))


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_more_samples_than_wanted_are_taken_from_all_over(batch_size):
    numbers = torch.arange(100.0).reshape(100, 1).expand(100, 2)
    data = TensorDataset(numbers, torch.zeros(100, dtype=torch.int64))
    features = validated(Net(), data, batch_size=batch_size, limit=10)
    assert features[INPUTS][:, 0].tolist() == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert len(features[PENULTIMATE]) == 10


def test_places_in_a_text_or_an_image_are_averaged():
    conv = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1))
    image = penultimate(Net(conv[0], conv[1:]), [torch.ones(2, 1, 6, 6)])
    assert torch.allclose(image, conv[0](torch.ones(2, 1, 6, 6)).mean((2, 3)))
    words = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(0))
    model = Net()
    assert torch.allclose(penultimate(model, [words]), model.body(words).mean(1))


def test_a_validation_that_raises_is_left_without_hooks():
    model = Raising()
    with pytest.raises(RuntimeError, match="not today"):
        validated(model, blobs(range(4), 5))
    assert not hooks(model)


class Raising(Net):
    def forward(self, samples):
        raise RuntimeError("not today")


class Mixing(Net):
    """Runs its last layer on other rows than those of the batch."""

    def forward(self, samples):
        return self.layer(samples.repeat(2, 1))


@pytest.mark.parametrize("make", [NoLayers, Mixing])
def test_what_a_module_cannot_show_is_missing_and_nothing_is_raised(make):
    features = validated(make(), blobs(range(4), 2)) if make is NoLayers else None
    tap = FeatureTap(8)
    model, samples = make(), blobs(range(4), 2).tensors[0]
    tap.attach(model)
    tap.begin()
    model(samples)
    tap.add(samples)
    tap.close()
    assert PENULTIMATE not in tap.features
    assert features is None or PENULTIMATE not in features


@pytest.mark.parametrize("batch", [None, "text", [], {"label": 3}, torch.tensor(1)])
def test_batches_of_any_kind_raise_nothing_and_what_was_wrong_is_said_once(batch, caplog):
    tap = FeatureTap(3)
    with caplog.at_level(logging.DEBUG, logger="greentrain.evaluation.signals.features"):
        for _ in range(3):
            tap.add(batch)
    assert tap.features == {}
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "not all features of the model can be captured"
    ]


def test_a_compiled_model_shows_its_inputs_only():
    whole = from_compiled(torch.compile(Net(), backend="eager"))
    part = Net()
    part.body = part.layer[0] = torch.compile(part.body, backend="eager")
    in_place = Net()
    in_place.layer.compile(backend="eager")
    data = blobs(range(4), 5)
    for model in (whole, part, in_place):
        assert list(validated(model, data)) == [INPUTS]


def test_numbers_of_words_are_no_features_and_bytes_of_images_are():
    for dtype, kinds in ((torch.int64, []), (torch.uint8, [INPUTS])):
        tap = FeatureTap(3)
        tap.add(torch.ones(3, 4, dtype=dtype))
        assert list(tap.features) == kinds


def test_a_kind_that_is_missing_in_one_batch_is_left_out():
    tap = FeatureTap(4)
    tap.add((torch.ones(2, 3),))
    tap.add((torch.ones(2, 3, dtype=torch.int64),))
    assert tap.features == {}


def test_distances_outlive_hashing():
    tap = FeatureTap(40)
    wide = torch.randn(40, 20 * WIDEST, generator=torch.Generator().manual_seed(0))
    tap.add(wide)
    hashed = tap.features[INPUTS]
    assert hashed.shape == (40, WIDEST)
    ratio = torch.nn.functional.pdist(hashed) / torch.nn.functional.pdist(wide)
    assert abs(float(ratio.mean()) - 1) < 0.01
    assert float(ratio.std()) < 0.04


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(1, 20),
    st.sampled_from([0.0, 1.0, float("nan"), 1e38]),
)
def test_however_samples_fall_into_batches_each_wanted_one_is_noted_once(sizes, limit, value):
    tap = FeatureTap(sum(sizes), limit=limit)
    for size in sizes:
        tap.add(torch.full((size, 3), value))
    assert len(tap.features[INPUTS]) == min(limit, sum(sizes))


def test_new_classes_shift_the_features_of_a_trained_model_and_more_of_the_same_do_not():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    samples, labels = blobs((0, 1), 50).tensors
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(samples), labels).backward()
        optimizer.step()
    old = validated(model, blobs((0, 1), 50, seed=1))
    same = drift_between(old, validated(model, blobs((0, 1), 50, seed=2)))
    others = drift_between(old, validated(model, blobs((2, 3), 50, seed=2)))
    assert same.measure == others.measure == "MMD2 of penultimate features"
    assert abs(same.value) < 0.03
    assert others.value > 0.2


def test_the_best_kind_that_says_anything_counts():
    some = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    broken = torch.full((20, 3), float("nan"))
    old = {PENULTIMATE: broken, OUTPUTS: some, INPUTS: some}
    assert drift_between(old, old).measure == "MMD2 of outputs"
    assert drift_between(old, {PENULTIMATE: some, INPUTS: some}).measure == "MMD2 of inputs"
    assert drift_between(old, {PENULTIMATE: some}) is None
    assert drift_between({}, old) is None
