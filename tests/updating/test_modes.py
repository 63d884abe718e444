"""What the update modes mean in steps, data and weights."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.control import Action, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.memory import SampleList
from greentrain.updating.modes import (
    HalfAndHalf,
    ModeOptions,
    full_retraining_steps,
    shrink_and_perturb,
    train_loader,
)
from tests.models import blobs

OPTIONS = ModeOptions(epochs=10, batch_size=10)


@pytest.mark.parametrize(
    ("mode", "effort", "steps"),
    [
        (UpdateMode.FULL_RETRAIN, 1.0, 400),  # 10 epochs of (100 + 300) / 10 batches
        (UpdateMode.FULL_RETRAIN, 0.5, 200),
        (UpdateMode.WARM_START, 1.0, 80),  # a fifth of that
        (UpdateMode.REPLAY, 1.0, 40),  # 2 passes over 100 new samples, 5 of them in a batch
        (UpdateMode.REPLAY, 0.25, 10),
    ],
)
def test_steps_follow_from_samples_and_effort(mode, effort, steps):
    assert OPTIONS.steps(Action(mode=mode, effort=effort), n_new=100, n_stored=300) == steps


def test_replay_costs_the_same_however_long_the_stream_is():
    replay = Action(mode=UpdateMode.REPLAY)
    assert OPTIONS.steps(replay, 100, 300) == OPTIONS.steps(replay, 100, 300_000)


def test_full_retraining_at_each_arrival_grows_with_the_data():
    assert full_retraining_steps(OPTIONS, [100, 100, 200]) == [100, 200, 400]


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
    assert {each.action.effort for each in candidates} == {0.25, 0.5, 1.0}


def test_replay_batches_are_half_new_and_every_new_sample_comes_equally_often():
    sampler = HalfAndHalf(30, 100, 10, 12, torch.Generator().manual_seed(0))
    batches = list(sampler)
    assert len(batches) == len(sampler) == 12
    assert all(sum(index < 30 for index in batch) == 5 for batch in batches)
    new = [index for batch in batches for index in batch if index < 30]
    assert sorted(new) == sorted(list(range(30)) * 2)  # 12 batches of 5 are two passes over 30
    stored = {index for batch in batches for index in batch if index >= 30}
    assert max(stored) < 130
    assert len(stored) > 20


def test_other_modes_pass_over_all_data_once_an_epoch():
    new, stored = TensorDataset(torch.arange(7.0)), TensorDataset(torch.arange(100.0, 120.0))
    loader = train_loader(
        Action(mode=UpdateMode.WARM_START), new, stored, options=OPTIONS, loader={}, seed=0
    )
    values = sorted(float(value) for batch in loader for value in batch[0])
    assert values == [*range(7), *range(100, 120)]


def test_the_same_seed_gives_the_same_order():
    def order(seed):
        loader = train_loader(
            Action(mode=UpdateMode.FULL_RETRAIN),
            blobs(range(4), 10),
            SampleList([]),
            options=OPTIONS,
            loader={},
            seed=seed,
        )
        return [float(value) for batch in loader for value in batch[0][:, 0]]

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_shrink_and_perturb_is_the_formula_of_the_paper():
    theta, fresh = torch.tensor([2.0, -4.0]), torch.tensor([1.0, 1.0])
    shrink_and_perturb([theta], [fresh], shrink=0.4, perturb=0.1)
    assert theta.tolist() == pytest.approx([0.9, -1.5])  # 0.4 * 2 + 0.1, 0.4 * -4 + 0.1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"reuse_fraction": 0.0}, "reuse_fraction"),
        ({"shrink": 1.5}, "shrink"),
    ],
)
def test_wrong_options_are_named(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        ModeOptions(**{"epochs": 1, "batch_size": 1, **arguments})
