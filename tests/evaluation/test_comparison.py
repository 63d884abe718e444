"""A successor is compared in the blocks of the look, however either of the two was measured."""

from __future__ import annotations

import pytest
import torch

from greentrain.control import Action, UpdateMode
from greentrain.evaluation.comparison import MetricHistory
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.probe import Probe, compare_on_probe
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
