"""Metrics that are no mean over samples, such as AUROC and F1, logged as torchmetrics objects."""

from __future__ import annotations

import copy
import math
import statistics

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
)

from greentrain import Experience, StreamTrainer, UpdateMode
from greentrain.control import Always
from greentrain.errors import ConfigurationError
from greentrain.evaluation.comparison import MetricHistory, combine, difference, standard_error
from greentrain.evaluation.evaluator import Evaluator, validation_trainer
from greentrain.evaluation.metric_states import BlockStates, bootstrap_error, value_of
from tests.models import Clock, Tick, constant_meter

# A block of the data has no positive sample, and `forward` computes the metric of each.
pytestmark = pytest.mark.filterwarnings("ignore:No (positive|negative) samples")

X = torch.tensor([-1.0] * 28 + [1.0] * 4)
Y = (X > 0).long()
DATA = TensorDataset(X, Y)
"""The issue's data: 28 negative samples, then four positive ones."""


class Scores(LightningModule):
    """Gives each sample itself as its score, and logs a metric of it."""

    def __init__(self, metric=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.metric = metric or BinaryAUROC()

    def training_step(self, batch, batch_idx):
        return (self.weight * batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        self.metric(self.weight * batch[0], batch[1])
        self.log("val", self.metric)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ByUpdate(Scores):
    def validation_step(self, batch, batch_idx):
        self.metric.update(self.weight * batch[0], batch[1])
        self.log("val", self.metric)


class InCollection(Scores):
    """A collection whose metrics share their states."""

    def __init__(self):
        super().__init__()
        self.metric = MetricCollection(
            {"val": BinaryF1Score(), "precision": BinaryPrecision(), "recall": BinaryRecall()}
        )

    def validation_step(self, batch, batch_idx):
        self.metric.update(torch.sigmoid(self.weight * batch[0]), batch[1])
        self.log_dict(self.metric)


class AtTheEnd(Scores):
    """Logs the value alone, once the epoch has ended."""

    def validation_step(self, batch, batch_idx):
        self.metric.update(self.weight * batch[0], batch[1])

    def on_validation_epoch_end(self):
        self.log("val", self.metric.compute())
        self.metric.reset()


def evaluator(*, fast: bool = True, batch_size: int = 8) -> Evaluator:
    loader = {"batch_size": batch_size}
    found = Evaluator(monitor="val", options={"accelerator": "cpu"}, loader=loader)
    found._fast = found._fast and fast
    return found


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("make_model", [Scores, ByUpdate, InCollection, AtTheEnd])
def test_a_metric_object_is_computed_over_all_samples(make_model, fast):
    evaluating, model = evaluator(fast=fast), make_model()
    (found,) = evaluating.measure(model, [DATA])
    assert found.value == 1.0  # the mean of four blocks would be 0.25
    assert evaluating.metric(model, DATA) == 1.0
    assert evaluating._fast is (fast and make_model is not AtTheEnd)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("make_model", [Scores, ByUpdate, InCollection, AtTheEnd])
def test_several_datasets_are_one(make_model, fast):
    halves = [Subset(DATA, range(16)), Subset(DATA, range(16, 32))]  # the first has no positive
    assert evaluator(fast=fast).measure_as_one(make_model(), halves).value == 1.0


def scores(seed: int, samples: int = 400) -> TensorDataset:
    random = torch.Generator().manual_seed(seed)
    labels = (torch.rand(samples, generator=random) < 0.2).long()
    return TensorDataset(labels + 1.5 * torch.randn(samples, generator=random), labels)


@pytest.mark.parametrize("make_model", [Scores, ByUpdate, InCollection])
def test_a_validation_gives_lightnings_own_value(make_model):
    dataset = scores(1)
    plain, traced = evaluator(), evaluator(fast=False)
    expected = plain.metric(make_model(), dataset)
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    for evaluating in (plain, traced):
        (found,) = evaluating.measure(model, [dataset])
        assert found.value == pytest.approx(expected, abs=1e-6)
        assert len(found.states) == len(found.blocks) >= 10
        assert evaluating.measure(model, [dataset]) == [found]  # nothing is left in the object
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_the_scatter_of_auroc_is_that_of_repeated_samples():
    values, errors = [], []
    for seed in range(20):
        (found,) = evaluator().measure(Scores(), [scores(seed)])
        assert not found.is_mean
        values.append(found.value)
        errors.append(found.standard_error)
    # The errors are about the standard deviation of the values: 0.03.
    assert statistics.mean(errors) == pytest.approx(statistics.stdev(values), rel=0.3)


def test_the_difference_of_two_models_is_paired():
    class Noisy(Scores):
        def validation_step(self, batch, batch_idx):
            random = torch.Generator().manual_seed(batch_idx)
            noise = 0.02 * torch.randn(len(batch[0]), generator=random)
            self.metric(self.weight * batch[0] + noise, batch[1])
            self.log("val", self.metric)

    dataset = scores(3)
    before, after = (combine(evaluator().measure(make(), [dataset])) for make in (Scores, Noisy))
    gain, error = difference(before, after, sign=1)
    assert gain == after.value - before.value
    assert 0 < error < 0.3 * before.standard_error  # the samples are the same
    assert difference(before, before, sign=1) == (0.0, 0.0)
    assert not MetricHistory(more_is_better=True).compare(before, before).worse


@pytest.mark.parametrize("fast", [True, False])
def test_an_accuracy_object_is_treated_as_the_mean_that_it_is(fast):
    dataset = scores(5)
    (found,) = evaluator(fast=fast).measure(Scores(BinaryAccuracy()), [dataset])
    assert found.is_mean
    values = [value for _, value in found.blocks]
    assert found.standard_error == standard_error(found.sizes, values)
    total = sum(size * value for size, value in found.blocks) / 400
    assert combine([found]).value == round(total, 12)


class OwnMetric(Metric):
    """A user's own metric: largest score of a positive sample less the mean of all scores."""

    def __init__(self):
        super().__init__()
        self.add_state("largest", torch.tensor(-torch.inf), dist_reduce_fx="max")
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("samples", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, scores, labels):
        self.largest = torch.maximum(self.largest, torch.where(labels > 0, scores, -9.0).max())
        self.total = self.total + scores.sum()
        self.samples = self.samples + len(scores)

    def compute(self):
        return self.largest - self.total / self.samples


class Unmergeable(OwnMetric):
    """One whose states have a reduction of its own."""

    def __init__(self):
        super().__init__()
        self.add_state("extra", torch.tensor(0.0), dist_reduce_fx=lambda states: states[0])


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("metric", [OwnMetric, Unmergeable])
def test_a_metric_of_ones_own_is_computed_over_all_samples(metric, fast):
    dataset = scores(6)
    samples, labels = dataset.tensors
    expected = samples[labels > 0].max() - samples.mean()
    halves = [Subset(dataset, range(200)), Subset(dataset, range(200, 400))]
    evaluating, model = evaluator(fast=fast), Scores(metric())
    assert evaluating.measure_as_one(model, halves).value == pytest.approx(float(expected))
    assert evaluating._fast is (fast and metric is OwnMetric)


class Counts(OwnMetric):
    """Counts the samples in a plain number, which its own ``reset`` sets to zero."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def update(self, scores, labels):
        super().update(scores, labels)
        self.count += len(scores)

    def compute(self):
        return self.total / self.count

    def reset(self):
        super().reset()
        self.count = 0


class LogitsDrift(Scores):
    """``BinaryAUROC`` turns scores into probabilities where a batch has one outside [0, 1]."""

    def validation_step(self, batch, batch_idx):
        self.metric.update(3 * self.weight * batch[0] - 1, batch[1])
        self.log("val", self.metric)


class Tokens(Scores):
    """Weights a batch by its positive samples, as a language model does by its tokens."""

    def validation_step(self, batch, batch_idx):
        count = int(batch[1].sum())
        self.log("val", batch[0][batch[1] == 1].sum() / max(1, count), batch_size=count)


class Errors(Scores):
    def validation_step(self, batch, batch_idx):
        self.log("val", ((batch[0] > 0.3) != batch[1]).float().sum(), reduce_fx="sum")


class Positional(Scores):
    def validation_step(self, batch, batch_idx):
        self.log("val", batch[0].max(), False, False, False, True, "max")


class Own(Scores):
    def __init__(self):
        super().__init__(Counts())


class Recall(Scores):
    """Is logged only for batches with a positive sample."""

    def validation_step(self, batch, batch_idx):
        if batch[1].any():
            self.log("val", (batch[0][batch[1] == 1] > 0.6).float().mean())


def rising(count: int = 100) -> TensorDataset:
    """Samples sorted by their score, as those of a drifting stream may be."""
    samples = torch.linspace(0.0, 1.0, count)
    chance = torch.rand(count, generator=torch.Generator().manual_seed(0))
    return TensorDataset(samples, ((chance < samples) & (samples > 0.2)).long())


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("make_model", [LogitsDrift, Tokens, Errors, Positional, Own, Recall])
def test_a_probe_has_the_value_of_a_validation_in_the_users_batches(make_model, fast):
    data = rising()
    trainer = validation_trainer({"accelerator": "cpu"})
    trainer.validate(make_model(), DataLoader(data, batch_size=32), verbose=False)
    expected = pytest.approx(float(trainer.callback_metrics["val"]), abs=1e-6)
    evaluating = evaluator(fast=fast, batch_size=32)
    (one,) = evaluating.measure(make_model(), [data])
    halves = [Subset(data, range(40)), Subset(data, range(40, 100))]
    assert one.value == expected
    assert evaluating.measure_as_one(make_model(), halves).value == expected


def test_a_weight_that_is_the_number_of_samples_needs_no_trainer():
    class Plain(Scores):
        def validation_step(self, batch, batch_idx):
            self.log("val", batch[0].mean(), batch_size=len(batch[0]))

    evaluating = evaluator(batch_size=32)
    assert evaluating.measure(Plain(), [rising()])[0].value == pytest.approx(0.5)
    assert evaluating._fast


def test_data_without_a_value_are_unknown_once_the_metric_was_logged():
    negative, evaluating = Subset(rising(), range(20)), evaluator()
    with pytest.raises(ConfigurationError, match="logs no 'val'"):
        evaluating.measure(Recall(), [negative])
    evaluating.check(Recall(), rising())  # its first sample is negative, too
    (found,) = evaluating.measure(Recall(), [negative])
    assert math.isnan(found.value)
    assert sum(found.sizes) == 20


def test_resamples_without_a_positive_sample_are_left_out():
    blocks = []
    for first in range(0, 32, 8):
        block = BinaryAUROC()
        block.update(X[first : first + 8], Y[first : first + 8])
        blocks.append(block)
    assert value_of(blocks) == 1.0
    assert bootstrap_error(blocks) == 0.0  # 1.0 wherever it is defined
    assert bootstrap_error(blocks[:1]) == 0.0


def test_states_are_given_back():
    model = Scores()
    states = BlockStates(model, model.metric)
    assert states.mergeable
    for first in range(0, 32, 8):
        model.metric.update(X[first : first + 8], Y[first : first + 8])
        states.take()
    assert model.metric.update_count == 0
    states.restore()
    assert model.metric.update_count == 4
    assert float(model.metric.compute()) == 1.0


@pytest.mark.parametrize("metric", [BinaryAUROC, BinaryAccuracy])
def test_a_floor_that_is_met_needs_no_training(tmp_path, metric):
    clock = Clock()
    with StreamTrainer(
        lambda: Scores(metric()),
        budget="5000 J",
        num_experiences=5,
        monitor="val",
        ledger=f"sqlite:///{tmp_path / 'greentrain.db'}",
        trainer={"max_epochs": 2, "accelerator": "cpu", "callbacks": [Tick(clock)]},
        loader={"batch_size": 8},
        meter=constant_meter(clock),
        target_metric=0.85,
    ) as stream:
        results = [stream.update(Experience(f"{number}", DATA, DATA)) for number in range(5)]
    assert [result.update_mode for result in results[1:]] == [UpdateMode.SKIP] * 4
    assert all(result.metric_after == 1.0 for result in results[1:])


@pytest.mark.parametrize("make_model", [Scores, AtTheEnd])
def test_an_update_is_judged_by_the_metric_over_all_samples(tmp_path, make_model):
    clock = Clock()
    with StreamTrainer(
        make_model,
        budget="5000 J",
        num_experiences=3,
        monitor="val",
        ledger=f"sqlite:///{tmp_path / 'greentrain.db'}",
        trainer={"max_epochs": 2, "accelerator": "cpu", "callbacks": [Tick(clock)]},
        loader={"batch_size": 8},
        meter=constant_meter(clock),
        policy=Always(mode=UpdateMode.REPLAY),
    ) as stream:
        results = [stream.update(Experience(f"{number}", DATA, DATA)) for number in range(3)]
    assert all(result.kept for result in results)
    assert results[-1].metric_before == results[-1].metric_after == 1.0
