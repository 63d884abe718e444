"""A metric in blocks, and whether one model is worse than another by more than chance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from greentrain.errors import ConfigurationError
from greentrain.evaluation import evaluator
from greentrain.evaluation.comparison import (
    Measured,
    combine,
    difference,
    standard_error,
    worse,
)
from greentrain.evaluation.fast_eval import MetricListener
from tests.models import Classifier
from tests.training.fitting import Parts

values = st.floats(-100, 100).map(lambda value: round(value, 3))


def parts(make_model, *, monitor="val_acc", batch_size=4, **options):
    """Parts of a stream that evaluate with a Trainer."""
    updating = Parts(
        make_model, monitor=monitor, loader={"batch_size": batch_size}, modes=None, **options
    )
    updating.evaluator._fast = False
    return updating


def found_by(updating, dataset=None):
    """What it finds of a dataset."""
    (found,) = updating.measure([NUMBERS if dataset is None else dataset])
    return found


def measured(*blocks):
    total = sum(size for size, _ in blocks)
    return Measured(value=sum(size * value for size, value in blocks) / total, blocks=blocks)


@given(st.lists(st.tuples(values, values), min_size=2, max_size=20))
def test_one_standard_error_is_a_paired_t_statistic_of_one(pairs):
    before, after = ([pair[place] for pair in pairs] for place in range(2))
    differences = [new - old for old, new in pairs]
    ours = standard_error([7] * len(pairs), differences)
    mean = sum(differences) / len(pairs)
    if ours < 1e-9:  # all differences alike: the reference divides by 0
        assert max(differences) - min(differences) < 1e-6
        return
    assert mean / ours == pytest.approx(ttest_rel(after, before).statistic, rel=1e-6, abs=1e-9)
    if abs(abs(mean / ours) - 1) > 1e-6:
        assert worse(
            measured(*[(7, value) for value in before]),
            measured(*[(7, value) for value in after]),
            sign=1,
        ) == (ttest_rel(after, before).statistic < -1)


@given(st.lists(st.tuples(st.integers(1, 30), values, values), min_size=1, max_size=12))
def test_less_is_better_is_the_mirror_of_more_is_better(rows):
    before = measured(*[(size, old) for size, old, _ in rows])
    after = measured(*[(size, new) for size, _, new in rows])
    mirrored = [
        Measured(value=-each.value, blocks=tuple((size, -value) for size, value in each.blocks))
        for each in (before, after)
    ]
    assert worse(before, after, sign=1) == worse(*mirrored, sign=-1)
    assert not worse(before, before, sign=1)
    assert not (worse(before, after, sign=1) and worse(after, before, sign=1))


def test_blocks_weigh_as_much_as_they_have_samples():
    # Weights 3/4 and 1/4, differences 0 and -0.4, mean -0.1:
    # 2 / 1 * ((3/4 * 0.1)**2 + (1/4 * 0.3)**2) = 2 * 2 * 0.005625 = 0.0225, whose root is 0.15.
    assert standard_error([30, 10], [0.0, -0.4]) == pytest.approx(0.15)
    before = measured((30, 0.8), (10, 0.8))
    assert not worse(before, measured((30, 0.8), (10, 0.4)), sign=1)
    # Both down by 0.1 and one by 0.02 more: a small loss, and a sure one.
    assert worse(before, measured((30, 0.7), (10, 0.68)), sign=1)


def test_what_one_block_cannot_tell_counts_as_certain():
    assert worse(measured((10, 0.8)), measured((10, 0.79)), sign=1)
    assert not worse(Measured(value=0.8), Measured(value=0.8), sign=1)
    assert worse(Measured(value=0.8), Measured(value=0.81), sign=-1)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(0.5, math.nan, True), (0.5, math.inf, True), (math.nan, 0.5, False)],
)
def test_what_is_not_finite_is_worse(before, after, expected):
    assert worse(Measured(value=before), Measured(value=after), sign=1) is expected


def test_a_block_without_a_value_is_left_out():
    assert standard_error([5, 5, 5], [1.0, math.nan, 3.0]) == standard_error([5, 5], [1.0, 3.0])


def test_different_blocks_cannot_be_compared():
    for compare in (worse, difference):
        with pytest.raises(ValueError, match="same blocks"):
            compare(measured((10, 0.5)), measured((5, 0.5), (5, 0.5)), sign=1)


@given(st.lists(st.tuples(st.integers(1, 30), values, values), min_size=2, max_size=12))
def test_a_difference_has_the_standard_error_of_its_pairs(rows):
    before = measured(*[(size, old) for size, old, _ in rows])
    after = measured(*[(size, new) for size, _, new in rows])
    gain, error = difference(before, after, sign=1)
    sizes = [size for size, _, _ in rows]
    assert gain == pytest.approx(
        sum(size * (new - old) for size, old, new in rows) / sum(sizes), abs=1e-9
    )
    assert error == standard_error(sizes, [new - old for _, old, new in rows])
    assert difference(before, after, sign=-1) == (-gain, error)


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 30), values), min_size=1, max_size=6), min_size=1)
)
def test_parts_together_are_their_samples_as_one(parts):
    found = combine([measured(*part) for part in parts])
    blocks = [block for part in parts for block in part]
    assert found.blocks == tuple(blocks)
    assert found.value == pytest.approx(measured(*blocks).value, abs=1e-9)
    assert found.samples == sum(size for size, _ in blocks)


def test_of_nothing_the_metric_is_not_known():
    assert math.isnan(combine([]).value)


class Parity(Classifier):
    """Is right about the even numbers and wrong about the odd ones; a sample is its own label."""

    def right(self, batch):
        return (batch[0] % 2 == 0).float()

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", self.right(batch).mean())


class ByDictionary(Parity):
    def validation_step(self, batch, batch_idx):
        right = self.right(batch)
        self.log_dict({"other": 7.0, "val_acc": float(right.mean())}, on_step=True)


class ByMetric(Parity):
    """Logs a torchmetrics object, whose ``forward`` has been called."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(num_classes=2, average="micro")

    def validation_step(self, batch, batch_idx):
        self.accuracy(torch.zeros(len(batch[0]), dtype=torch.long), batch[0].long() % 2)
        self.log("val_acc", self.accuracy)


class ByUpdate(ByMetric):
    """Only updates the object, so that there is no value of a batch."""

    def validation_step(self, batch, batch_idx):
        self.accuracy.update(torch.zeros(len(batch[0]), dtype=torch.long), batch[0].long() % 2)
        self.log("val_acc", self.accuracy)


class AtTheEnd(ByMetric):
    def validation_step(self, batch, batch_idx):
        self.accuracy.update(torch.zeros(len(batch[0]), dtype=torch.long), batch[0].long() % 2)

    def on_validation_epoch_end(self):
        self.log("val_acc", self.accuracy.compute())
        self.accuracy.reset()


# 4, 4, 4, 4, 2 samples would be blocks of the loader's batch size; two blocks of 8 samples or more
# are the smallest that are made of 18 samples.
NUMBERS = TensorDataset(torch.tensor([0.0] * 5 + [1.0] * 5 + [2.0, 3.0] * 4))


@pytest.mark.parametrize("model", [Parity, ByDictionary, ByMetric, ByUpdate])
def test_one_validation_gives_the_metric_of_each_batch(model):
    monitor = "val_acc_epoch" if model is ByDictionary else "val_acc"
    measuring = parts(model, monitor=monitor)
    found = found_by(measuring)
    assert found.value == pytest.approx(9 / 18)
    # 00000 111 -> 5 of 8; 11 232323 -> 3 of 8; 23 -> 1 of 2
    assert found.blocks == ((8, 0.625), (8, 0.375), (2, 0.5))
    assert "log" not in vars(measuring.model)
    assert found_by(measuring) == found


def test_a_metric_that_is_logged_for_steps_too_is_found_by_its_own_name():
    assert found_by(parts(ByDictionary)).value == pytest.approx(9 / 18)
    assert len(found_by(parts(ByDictionary)).blocks) == 3


def test_a_metric_without_values_of_batches_is_read_in_ten_parts():
    found = found_by(parts(AtTheEnd))
    assert found.value == pytest.approx(9 / 18)
    # Nine parts of two samples: 00 00 01 11 11 23 23 23 23.
    assert found.blocks == tuple((2, value) for value in [1.0, 1.0, 0.5, 0.0, 0.0, *[0.5] * 4])


def test_blocks_are_small_enough_that_there_are_ten():
    numbers = TensorDataset(torch.arange(400.0))
    found = found_by(parts(Parity, batch_size=128), numbers)
    assert [size for size, _ in found.blocks] == [40] * 10
    few = found_by(parts(Parity, batch_size=128), TensorDataset(torch.arange(20.0)))
    assert [size for size, _ in few.blocks] == [8, 8, 4]


def test_measure_is_the_value_alone():
    assert parts(Parity).metric(NUMBERS) == pytest.approx(9 / 18)


class WithLosses(Parity):
    """Logs a loss of each batch beside the metric, and one that not every batch has."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val_loss", float(batch_idx))
        if batch_idx:
            self.log("a_loss", 7.0)


def test_a_loss_is_read_beside_the_metric():
    found = found_by(parts(WithLosses))
    # Blocks of 8, 8 and 2 samples that log 0, 1 and 2.
    assert found.loss == pytest.approx((8 * 0 + 8 * 1 + 2 * 2) / 18)
    assert found_by(parts(Parity)).loss is None
    assert found_by(parts(WithLosses, monitor="val_loss")).loss is None  # it is the metric


@pytest.mark.parametrize("passes_on", [True, False])
def test_what_is_heard_goes_on_to_lightning_or_not(passes_on):
    class Hears(Parity):
        logged = ()

        def log(self, name, value, **options):
            self.logged = (*self.logged, name)

    module, listener = Hears(), MetricListener("val_acc", [2], forward=passes_on)
    listener.listen(module)
    listener.on_validation_batch_start()
    module.validation_step((torch.tensor([0.0, 1.0]),), 0)
    listener.on_validation_batch_end()
    module.log("val_acc", 1.0)  # of no batch
    assert listener.blocks == ((2, 0.5),)
    assert module.logged == (("val_acc", "val_acc") if passes_on else ())
    listener.teardown()
    assert "log" not in vars(module)


class Lossy(Parity):
    """The value of an epoch is no mean of batches."""

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", self.right(batch).sum(), reduce_fx="max")


def test_the_metric_is_what_lightning_makes_of_the_batches():
    found = found_by(parts(Lossy))
    assert found.value == 4.0  # the first batch of 4 samples is 0000
    assert [value for _, value in found.blocks] == [5.0, 3.0, 1.0]


def test_a_metric_that_is_not_logged_is_named_with_those_that_are():
    with pytest.raises(ConfigurationError, match=r"logs no 'f1' in validation\. It logs `val_acc`"):
        parts(Parity, monitor="f1").measure(NUMBERS)


class Broken(Parity):
    def validation_step(self, batch, batch_idx):
        self.log("val_acc", 0.5)
        raise RuntimeError("broken")


def test_a_validation_that_fails_leaves_the_module_as_it_was():
    measuring = parts(Broken)
    with pytest.raises(RuntimeError, match="broken"):
        measuring.measure(NUMBERS)
    assert "log" not in vars(measuring.model)


def test_a_metric_is_read_on_one_device():
    found = found_by(parts(Parity, devices=2, strategy="ddp_fork"))
    assert found == found_by(parts(Parity))


@pytest.mark.parametrize(
    ("devices", "one"),
    [(None, 1), ("auto", 1), (4, 1), ("4", 1), ([2, 3], [2]), ("2,3", [2]), ("2,", [2])],
)
def test_the_one_device_is_the_first_that_was_asked_for(devices, one):
    assert evaluator._first_device(devices) == one
