"""What the update modes mean in steps and weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from greentrain.control import Action, StepPlan, UpdateMode
from greentrain.control.step_plan import FEWEST_STEPS
from greentrain.errors import ConfigurationError
from greentrain.training import ModeConfig, shrink_and_perturb

OPTIONS = StepPlan(epochs=10, batch_size=10, reuse_fraction=0.2)


@pytest.mark.parametrize(
    ("mode", "step_fraction", "steps"),
    [
        (UpdateMode.FULL_RETRAIN, 1.0, 400),  # 10 epochs of (100 + 300) / 10 batches
        (UpdateMode.FULL_RETRAIN, 0.5, 200),
        (UpdateMode.WARM_START, 1.0, 80),  # a fifth of that
        (UpdateMode.REPLAY, 1.0, 40),  # 2 passes over 100 new samples, 5 of them in a batch
        (UpdateMode.REPLAY, 0.25, 10),
        (UpdateMode.FINE_TUNE, 1.0, 20),  # 2 passes over 100 new samples
    ],
)
def test_steps_follow_from_samples_and_step_fraction(mode, step_fraction, steps):
    assert (
        OPTIONS.steps(Action(mode=mode, step_fraction=step_fraction), n_new=100, n_stored=300)
        == steps
    )


def test_replay_costs_the_same_however_long_the_stream_is():
    replay = Action(mode=UpdateMode.REPLAY)
    assert OPTIONS.steps(replay, n_new=100, n_stored=300) == OPTIONS.steps(
        replay, n_new=100, n_stored=300_000
    )


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        (UpdateMode.FULL_RETRAIN, 150),  # 10 epochs of 150 / 10 batches
        (UpdateMode.WARM_START, 80),
        (UpdateMode.REPLAY, 40),
    ],
)
def test_a_full_retraining_is_over_what_is_held(mode, steps):
    action = Action(mode=mode)
    assert OPTIONS.steps(action, n_new=100, n_stored=300, n_held=150) == steps
    candidates = OPTIONS.candidates(
        n_new=100, n_stored=300, n_held=150, has_model=True, keeps_data=True
    )
    assert {each.action: each.steps for each in candidates}[action] == steps


def test_fine_tuning_is_offered_where_old_data_no_longer_matter():
    counts = {"n_new": 100, "n_stored": 300}
    forgetting = OPTIONS.candidates(**counts, has_model=True, keeps_data=True, forgets=True)
    assert UpdateMode.FINE_TUNE in {each.action.mode for each in forgetting}
    first = OPTIONS.candidates(
        n_new=100, n_stored=0, has_model=False, keeps_data=True, forgets=True
    )
    assert UpdateMode.FINE_TUNE not in {each.action.mode for each in first}


def test_full_retraining_at_each_arrival_grows_with_the_data():
    assert OPTIONS.full_retraining_steps([100, 100, 200]) == [100, 200, 400]
    assert OPTIONS.full_retraining_steps([100, 100, 200], max_size=150) == [100, 150, 150]


@pytest.mark.parametrize(
    ("has_model", "keeps_data", "n_stored", "modes"),
    [
        (False, True, 0, {"FULL_RETRAIN"}),
        (True, True, 10, {"FULL_RETRAIN", "WARM_START", "REPLAY"}),
        (True, True, 0, {"FULL_RETRAIN", "WARM_START"}),
        (True, False, 0, {"WARM_START"}),  # nothing may be kept: fine-tuning only
        (False, False, 0, {"FULL_RETRAIN"}),
    ],
)
def test_what_is_feasible_depends_on_what_there_is(has_model, keeps_data, n_stored, modes):
    candidates = OPTIONS.candidates(
        n_new=10, n_stored=n_stored, has_model=has_model, keeps_data=keeps_data
    )
    assert {str(each.action.mode) for each in candidates} == modes


def test_every_step_fraction_is_offered_that_has_steps_enough():
    found = OPTIONS.candidates(n_new=500, n_stored=500, has_model=True, keeps_data=True)
    step_fractions = {
        mode: {each.action.step_fraction: each.steps for each in found if each.action.mode is mode}
        for mode in UpdateMode
    }
    # 10 epochs of 100 batches; each step fraction is the last one times the root of 2.
    full = {
        0.022: 22, 0.031: 31, 0.044: 44, 0.0625: 62, 0.088: 88, 0.125: 125, 0.177: 177, 0.25: 250,
        0.354: 354, 0.5: 500, 0.707: 707, 1.0: 1000,
    }  # fmt: skip
    assert step_fractions[UpdateMode.FULL_RETRAIN] == full
    # 2 epochs of 100 batches, new samples or old: 18 steps are too few to find a pace in.
    reused = {
        0.125: 25, 0.177: 35, 0.25: 50, 0.354: 71, 0.5: 100, 0.707: 141, 1.0: 200,
        # The longest has the epochs of a full retraining.
        1.41: 282, 2.0: 400, 2.83: 566, 4.0: 800, 5.0: 1000,
    }  # fmt: skip
    assert step_fractions[UpdateMode.WARM_START] == step_fractions[UpdateMode.REPLAY] == reused


@given(
    n_new=st.integers(1, 5000),
    n_stored=st.integers(0, 5000),
    epochs=st.integers(1, 20),
    batch_size=st.integers(1, 512),
)
def test_short_updates_are_left_out_but_for_the_full_step_fraction(
    n_new, n_stored, epochs, batch_size
):
    options = StepPlan(epochs=epochs, batch_size=batch_size, reuse_fraction=0.2)
    found = options.candidates(n_new=n_new, n_stored=n_stored, has_model=True, keeps_data=True)
    for each in found:
        assert each.steps >= (FEWEST_STEPS if each.action.step_fraction < 1 else 1)
        assert each.steps == options.steps(each.action, n_new=n_new, n_stored=n_stored)
    whole = {each.action.mode for each in found if each.action.step_fraction == 1}
    assert whole == {each.action.mode for each in found}  # each mode is offered whole
    assert len(whole) == (3 if n_stored else 2)


def test_shrink_and_perturb_is_the_formula_of_the_paper():
    theta, fresh = torch.tensor([2.0, -4.0]), torch.tensor([1.0, 1.0])
    shrink_and_perturb([theta], [fresh], shrink=0.4, perturb=0.1)
    assert theta.tolist() == pytest.approx([0.9, -1.5])  # 0.4 * 2 + 0.1, 0.4 * -4 + 0.1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"reuse_fraction": 0.0}, "reuse_fraction"),
        ({"shrink": 1.5}, "shrink"),
        ({"weight_averaging": 1.0}, "weight_averaging is 1.0"),
    ],
)
def test_wrong_options_are_named(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        ModeConfig(**arguments)
