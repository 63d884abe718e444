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
from greentrain.updating import trainers
from greentrain.updating.modes import ModeOptions
from greentrain.updating.reading import Measured, standard_error, worse
from greentrain.updating.updater import Updater
from tests.models import Classifier

values = st.floats(-100, 100).map(lambda value: round(value, 3))


def updater(make_model, *, monitor="val_acc", batch_size=4, **options):
    return Updater(
        make_model,
        monitor=monitor,
        options={"accelerator": "cpu", "max_epochs": 1, **options},
        loader={"batch_size": batch_size},
        modes=ModeOptions(epochs=1, batch_size=batch_size),
        seed=0,
    )


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
    with pytest.raises(ValueError, match="same blocks"):
        worse(measured((10, 0.5)), measured((5, 0.5), (5, 0.5)), sign=1)


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


@pytest.mark.parametrize("model", [Parity, ByDictionary, ByMetric])
def test_one_validation_gives_the_metric_of_each_batch(model):
    monitor = "val_acc_epoch" if model is ByDictionary else "val_acc"
    measuring = updater(model, monitor=monitor)
    found = measuring.measured(NUMBERS)
    assert found.value == pytest.approx(9 / 18)
    # 00001 -> 4 of 4; 0111 -> 1 of 4; 11 2 3 -> 1 of 4; 2323 -> 2 of 4; 23 -> 1 of 2
    assert found.blocks == ((4, 1.0), (4, 0.25), (4, 0.25), (4, 0.5), (2, 0.5))
    assert "log" not in vars(measuring.model)
    assert measuring.measured(NUMBERS) == found


def test_a_metric_that_is_logged_for_steps_too_is_found_by_its_own_name():
    assert updater(ByDictionary).measured(NUMBERS).value == pytest.approx(9 / 18)
    assert len(updater(ByDictionary).measured(NUMBERS).blocks) == 5


@pytest.mark.parametrize("model", [ByUpdate, AtTheEnd])
def test_a_metric_without_values_of_batches_is_read_in_ten_parts(model):
    found = updater(model).measured(NUMBERS)
    assert found.value == pytest.approx(9 / 18)
    # Nine parts of two samples: 00 00 01 11 11 23 23 23 23.
    assert found.blocks == tuple((2, value) for value in [1.0, 1.0, 0.5, 0.0, 0.0, *[0.5] * 4])


def test_blocks_are_small_enough_that_there_are_ten():
    numbers = TensorDataset(torch.arange(400.0))
    found = updater(Parity, batch_size=128).measured(numbers)
    assert [size for size, _ in found.blocks] == [40] * 10
    few = updater(Parity, batch_size=128).measured(TensorDataset(torch.arange(20.0)))
    assert [size for size, _ in few.blocks] == [8, 8, 4]


def test_measure_is_the_value_alone():
    assert updater(Parity).measure(NUMBERS) == pytest.approx(9 / 18)


class Lossy(Parity):
    """The value of an epoch is no mean of batches."""

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", self.right(batch).sum(), reduce_fx="max")


def test_the_metric_is_what_lightning_makes_of_the_batches():
    found = updater(Lossy).measured(NUMBERS)
    assert found.value == 4.0
    assert [value for _, value in found.blocks] == [4.0, 1.0, 1.0, 2.0, 1.0]


def test_a_metric_that_is_not_logged_is_named_with_those_that_are():
    with pytest.raises(ConfigurationError, match="logs val_acc in validation, and monitor='f1'"):
        updater(Parity, monitor="f1").measure(NUMBERS)


class Broken(Parity):
    def validation_step(self, batch, batch_idx):
        self.log("val_acc", 0.5)
        raise RuntimeError("broken")


def test_a_validation_that_fails_leaves_the_module_as_it_was():
    measuring = updater(Broken)
    with pytest.raises(RuntimeError, match="broken"):
        measuring.measure(NUMBERS)
    assert "log" not in vars(measuring.model)


def test_a_metric_is_read_on_one_device():
    found = updater(Parity, devices=2, strategy="ddp_fork").measured(NUMBERS)
    assert found == updater(Parity).measured(NUMBERS)


@pytest.mark.parametrize(
    ("devices", "one"),
    [(None, 1), ("auto", 1), (4, 1), ("4", 1), ([2, 3], [2]), ("2,3", [2]), ("2,", [2])],
)
def test_the_one_device_is_the_first_that_was_asked_for(devices, one):
    assert trainers._one_device(devices) == one
