"""How much of a model is looked at, what of, and what that is known to draw."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset

from greentrain.control import Action, UpdateMode
from greentrain.evaluation.comparison import combine
from greentrain.evaluation.held_out import KEPT, HeldOut
from greentrain.evaluation.probe import (
    FEWEST,
    FEWEST_VALIDATED,
    MOST_NEW,
    SAMPLES_FOR_DRIFT,
    VALIDATION_SHARE,
    Look,
    Probe,
)
from greentrain.memory import size
from greentrain.payments import MIN_RESERVATION_J
from greentrain.streams import Experience
from tests.models import blobs, experience
from tests.training.fitting import parts, train

joules = st.floats(1e-9, 1e3)


def probe(held_out=None, updating=None, seed=0) -> Probe:
    held_out = HeldOut("seen", seed=0) if held_out is None else held_out
    return Probe((updating or parts()).evaluator, held_out, seed=seed)


@pytest.fixture(scope="module")
def model():
    """An updater with a trained model, and held-out data of the past."""
    updating, held_out = parts(), HeldOut("seen", seed=0)
    trained, _ = train(updating, steps=20)
    updating.keep(trained, Action(mode=UpdateMode.FULL_RETRAIN))
    held_out.add(Experience("past", blobs((0, 1), 8), blobs((0, 1), 300, seed=1)))
    return updating, held_out


# How much.


def test_before_anything_was_measured_there_is_no_probe():
    assert probe().affordable(1e9) == 0
    assert probe().expected_j(100) == 0.0


def test_a_probe_is_sized_by_a_quarter_of_what_a_validation_used_and_then_by_probes():
    looking = probe()
    looking.learn_validation(100, 40.0)  # 0.4 J a sample with a Trainer, so 0.1 J without
    assert looking.affordable(1000.0) == 100  # 1 % of it
    assert looking.expected_j(100) == pytest.approx(10.0)
    looking.learn_probe(100, 5.0)
    assert looking.affordable(1000.0) == 200
    looking.learn_probe(100, 20.0)  # one that was held up
    assert looking.affordable(1000.0) == 200  # the least of the last three
    looking.learn_probe(100, 20.0)
    looking.learn_probe(100, 20.0)
    assert looking.affordable(1000.0) == FEWEST + 2 == 50


@pytest.mark.parametrize(
    ("left_j", "samples"), [(4799.0, 0), (4800.0, 48), (1e9, MOST_NEW + KEPT), (0.0, 0)]
)
def test_too_few_samples_are_none(left_j, samples):
    looking = probe()
    looking.learn_probe(10, 10.0)  # 1 J a sample
    assert looking.affordable(left_j) == samples


@given(left_j=st.floats(0.0, 1e6), validation_j=joules, looks_j=st.lists(joules, max_size=5))
def test_a_probe_keeps_to_its_share_and_its_bound(left_j, validation_j, looks_j):
    looking = probe()
    looking.learn_validation(1, validation_j)
    for look_j in looks_j:
        looking.learn_probe(1, look_j)
    samples = looking.affordable(left_j)
    assert samples == 0 or FEWEST <= samples <= MOST_NEW + KEPT
    assert looking.expected_j(samples) <= 0.01 * left_j * (1 + 1e-9)
    # Of what was seen to be drawn, the dearest three times over.
    dearest_j = max([validation_j, *looks_j[-3:]])
    assert looking.upper_bound_j(samples) == pytest.approx(
        max(3 * max(samples, FEWEST) * dearest_j, MIN_RESERVATION_J)
    )
    assert looking.upper_bound_j(samples) >= looking.expected_j(samples)


def test_a_meter_that_sees_nothing_makes_probes_free():
    looking = probe()
    looking.learn_validation(64, 0.0)
    assert looking.affordable(1e-3) == MOST_NEW + KEPT
    assert looking.upper_bound_j(2512) == MIN_RESERVATION_J > 0  # nothing starts unreserved


# What of.


def test_half_of_a_probe_is_new_and_the_rest_in_proportion(model):
    updating, held_out = model
    arrived = Experience("now", blobs((2, 3), 200), blobs((2, 3), 100, seed=2))
    look = probe(held_out, updating).run(updating.model, arrived, arrived.train, 240)
    # 120 of 400 new ones; 600 past and 200 present held-out ones share 120 as 3 to 1.
    assert look.new.samples == 120
    assert [size(each) for each in look.held_out] == [90, 30]
    assert look.past.samples == 90
    assert look.measured.samples == 120
    assert look.samples == 240
    chosen = [each.indices for each in look.held_out]
    assert all(len(set(each)) == len(each) for each in chosen)
    assert look.drift is None  # so few samples are not worth comparing features for
    assert look.metric_current is None


def test_the_metric_is_that_of_the_samples_looked_at(model):
    updating, held_out = model
    arrived = experience("now", (0, 2), count=100, seed=4)
    look = probe(held_out, updating).run(
        updating.model, arrived, arrived.train, 200, current_alone=True
    )
    by_hand = combine(
        [
            updating.evaluator._in_blocks(updating.model, each, features=False)
            for each in look.held_out
        ]
    )
    assert look.metric == pytest.approx(by_hand.value)
    past = updating.metric(look.held_out[0])
    assert look.past.value == pytest.approx(past)
    assert look.metric_current == pytest.approx(updating.metric(arrived.val))
    # A successor is measured on the same samples in the same blocks.
    assert combine(updating.measure(look.held_out)) == look.measured


@pytest.mark.parametrize(
    ("samples", "compared"), [(SAMPLES_FOR_DRIFT - 1, False), (SAMPLES_FOR_DRIFT, True)]
)
def test_features_are_compared_from_256_samples_on(model, samples, compared):
    updating, held_out = model
    arrived = Experience("now", blobs((2, 3), 200), blobs((2, 3), 100, seed=2))
    look = probe(held_out, updating).run(updating.model, arrived, arrived.train, samples)
    assert (look.drift is not None) == compared
    if compared:
        assert look.drift.value > 0


def test_without_a_past_there_is_only_the_present(model):
    updating, _ = model
    arrived = experience("now", (0, 1), count=100)
    look = probe(updating=updating).run(updating.model, arrived, arrived.train, 100)
    assert look.past is None and look.drift is None
    assert [size(each) for each in look.held_out] == [32]  # all that there is
    assert look.new.samples == 50


def test_new_data_are_looked_at_up_to_512(model):
    updating, held_out = model
    arrived = experience("now", (0, 1), count=400)
    look = probe(held_out, updating).run(updating.model, arrived, arrived.train, 2000)
    assert look.new.samples == MOST_NEW
    assert [size(each) for each in look.held_out] == [600, 32]


def test_classes_that_came_are_seen(model):
    updating, held_out = model
    looking = probe(held_out, updating)
    arrived = experience("now", (0, 2), count=200)
    assert looking.look(arrived.train).unseen is None
    looking.add_experience(experience("past", (0, 1)), trained=None)
    share = looking.look(arrived.train).unseen
    labels = torch.tensor([int(label) for _, label in arrived.train])
    assert share == pytest.approx(float((labels == 2).float().mean()), abs=0.1)
    looking.add_experience(arrived, trained=None)
    assert looking.look(arrived.train) == Look(unseen=0.0, copies=None)
    looking.add_experience(arrived, trained=arrived.train)
    assert looking.look(arrived.train) == Look(unseen=0.0, copies=1.0)


def test_the_same_seed_looks_at_the_same_samples_after_a_restart(model):
    updating, held_out = model
    arrived = experience("now", (0, 2), count=200)
    looking, again = probe(held_out, updating, seed=3), probe(held_out, updating, seed=8)
    looking.learn_validation(64, 1.0)
    looking.learn_probe(100, 3.0)
    looking.run(updating.model, arrived, arrived.train, 200)
    looking.add_experience(arrived, trained=arrived.train)
    file = io.BytesIO()
    torch.save(looking.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    looks = [each.run(updating.model, arrived, arrived.train, 200) for each in (looking, again)]
    assert [each.indices for each in looks[0].held_out] == [
        each.indices for each in looks[1].held_out
    ]
    assert looks[0].new == looks[1].new
    assert again.look(arrived.train) == looking.look(arrived.train) == Look(unseen=0.0, copies=1.0)
    assert again.affordable(1000.0) == looking.affordable(1000.0) > 0
    assert again.upper_bound_j(100) == looking.upper_bound_j(100)
    assert again.validation_j == 1.0


# What an update is validated on.


def test_an_update_is_validated_on_all_that_is_held_out_as_long_as_that_is_cheap(model):
    _, held_out = model
    looking, arrived = probe(held_out), experience("now", (2, 3))
    assert size(looking.validation_data(arrived, 1e-9)) == 632  # nothing says yet that it is dear
    looking.learn_validation(100, 10.0)  # 0.1 J a sample: 632 of them are a twentieth of 1,264 J
    assert size(looking.validation_data(arrived, 1264.1)) == 632
    assert size(looking.validation_data(arrived, 1000.0)) == 500
    assert size(looking.validation_data(arrived, 1.0)) == FEWEST_VALIDATED == 256


def test_what_is_validated_is_a_uniform_sample(model):
    _, held_out = model
    looking, arrived = probe(held_out), experience("now", (2, 3))
    looking.learn_validation(100, 10.0)
    found = [looking.validation_data(arrived, 800.0) for _ in range(2)]
    assert all(isinstance(each, Subset) and len(set(each.indices)) == 400 for each in found)
    assert found[0].indices != found[1].indices
    assert max(found[0].indices) >= 600  # the present is among it


@given(update_j=st.floats(0.0, 1e6), sample_j=joules)
def test_a_validation_uses_a_twentieth_of_its_update_or_has_256_samples(update_j, sample_j):
    held_out = HeldOut("seen", seed=0)
    held_out.add(Experience("past", blobs((0,), 8), blobs((0,), 500)))
    looking = probe(held_out)
    looking.learn_validation(1, sample_j)
    judged = size(looking.validation_data(experience("now", (1,)), update_j))
    assert judged <= 516
    assert judged == 516 or judged >= FEWEST_VALIDATED
    if judged > FEWEST_VALIDATED:
        assert judged * sample_j <= VALIDATION_SHARE * update_j * (1 + 1e-9)
    if judged < 516:
        assert math.floor(VALIDATION_SHARE * update_j / sample_j) <= judged
