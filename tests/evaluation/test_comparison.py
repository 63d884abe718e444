"""A successor is compared in the blocks of the look, however either of the two was measured."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.control import Action, UpdateMode
from greentrain.evaluation.comparison import MetricHistory
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.probe import Probe, compare_on_all, compare_on_probe, interleaved
from greentrain.evaluation.signals.features import PENULTIMATE
from greentrain.streams import Experience
from tests.models import Classifier, blobs, experience
from tests.training.fitting import VAL, parts, train


@pytest.fixture
def updating():
    found = parts()
    trained, _ = train(found, steps=20)
    found.keep(trained, Action(mode=UpdateMode.FULL_RETRAIN))
    return found


def test_a_probe_without_a_trainer_is_made_again_where_the_successor_needed_one(updating):
    held_out = HeldOut("seen", seed=0)
    held_out.add(Experience("past", blobs((0, 1), 8), blobs((0, 1), 300, seed=1)))
    arrived = experience("now", (0, 1), count=100, seed=4)
    look = Probe(updating.evaluator, held_out, seed=0).run(
        updating.model, arrived, arrived.train, 400
    )
    sour = Classifier()
    torch.nn.init.zeros_(sour.layer.weight)
    progress = MetricHistory(more_is_better=True)
    at_first = compare_on_probe(
        look, updating.model, sour, evaluator=updating.evaluator, history=progress
    )
    updating.evaluator._fast = False  # as if a validation_step needed a Trainer
    assert [size for size, _ in updating.measure(look.held_out)[0].blocks] != [
        size for size, _ in look.past.blocks
    ]
    later = compare_on_probe(
        look, updating.model, sour, evaluator=updating.evaluator, history=progress
    )
    assert later.gain == pytest.approx(at_first.gain)
    assert at_first.worse
    assert later.worse


def test_features_are_noted_with_a_trainer_as_without(updating):
    (fast,) = updating.measure([VAL], features=True)
    updating.evaluator._fast = False
    (validated,) = updating.measure([VAL], features=True)
    assert torch.equal(fast.features[PENULTIMATE], validated.features[PENULTIMATE])
    assert updating.measure([VAL])[0].features == {}


class Knows(Classifier):
    """A model that is right about some samples, which are their own numbers."""

    def __init__(self, right: set[int]) -> None:
        super().__init__()
        self.right = right

    def validation_step(self, batch, batch_idx):
        (numbers,) = batch
        right = [float(int(number) in self.right) for number in numbers]
        self.log("val_acc", sum(right) / len(right))


def test_a_gain_on_one_experience_and_a_loss_on_another_do_not_count_as_scatter():
    # Four samples of the past, 0 to 3, and four of the current experience, 4 to 7.
    held_out = TensorDataset(torch.arange(8))
    current, successor = Knows({0, 1, 2, 3, 5}), Knows({4, 5, 6, 7})
    evaluator = Evaluator(
        monitor="val_acc", options={"accelerator": "cpu"}, loader={"batch_size": 2}
    )
    history = MetricHistory(more_is_better=True)
    # The blocks are (0, 5), (2, 7), (4, 1), (6, 3). The past loses 1 each; of the current
    # experience all gain 1 but 5, which was right before: -0.5, 0, 0, 0.
    mixed = compare_on_all(held_out, current, successor, evaluator=evaluator, history=history)
    assert mixed.gain == pytest.approx(-1 / 8)
    error = 0.125  # s = 0.25 over four blocks
    resolution = 0.625 / 8  # 5 of 8 are right before
    assert mixed.sd == pytest.approx(math.hypot(error, resolution))
    # In their order they are (0, 1), (2, 3), (4, 5), (6, 7): -1, -1, 0.5, 1, and s / 2 is 0.515.
    before, after = (evaluator.measure_as_one(each, [held_out]) for each in (current, successor))
    ordered = history.compare(before, after)
    assert ordered.gain == mixed.gain
    assert ordered.sd == pytest.approx(math.hypot(math.sqrt(3.1875 / 3) / 2, resolution))


@pytest.mark.parametrize("count", [1, 2, 100, 2000])
def test_every_run_of_an_interleaved_dataset_is_spread_over_it(count):
    order = interleaved(range(count)).indices
    assert sorted(order) == list(range(count))
    for first in range(0, count - 15, 16):
        first_half = sum(number < count / 2 for number in order[first : first + 16])
        assert first_half in (7, 8, 9)
