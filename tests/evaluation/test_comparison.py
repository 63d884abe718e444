"""A successor is compared in the blocks of the look, however either of the two was measured."""

from __future__ import annotations

import pytest
import torch

from greentrain.control import Action, UpdateMode
from greentrain.evaluation.comparison import on_look
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.evaluation.probe import Probe
from greentrain.evaluation.signals.features import PENULTIMATE
from greentrain.streams import Experience
from tests.models import Classifier, blobs, experience
from tests.training.fitting import VAL, train, updater


@pytest.fixture
def updating():
    found = updater()
    trained, _ = train(found, steps=20)
    found.keep(trained, Action(mode=UpdateMode.FULL_RETRAIN))
    return found


def test_a_look_without_a_trainer_is_made_again_where_the_successor_needed_one(updating):
    held_out = HeldOut("seen", seed=0)
    held_out.take(Experience("past", blobs((0, 1), 8), blobs((0, 1), 300, seed=1)))
    arrived = experience("now", (0, 1), count=100, seed=4)
    look = Probe(updating, held_out, seed=0).look(arrived, arrived.train, 400)
    sour = Classifier()
    torch.nn.init.zeros_(sour.layer.weight)
    progress = MetricHistory(more_is_better=True)
    at_first = on_look(look, sour, updater=updating, progress=progress)
    updating._glances = False  # as after a validation_step that a glance could not call
    assert [size for size, _ in updating.measured(look.held)[0].blocks] != [
        size for size, _ in look.past.blocks
    ]
    later = on_look(look, sour, updater=updating, progress=progress)
    assert later.gain == pytest.approx(at_first.gain)
    assert at_first.worse
    assert later.worse


def test_features_are_noted_with_a_trainer_as_without(updating):
    (glanced,) = updating.measured([VAL], features=True)
    updating._glances = False
    (validated,) = updating.measured([VAL], features=True)
    assert torch.equal(glanced.features[PENULTIMATE], validated.features[PENULTIMATE])
    assert updating.measured([VAL])[0].features == {}
