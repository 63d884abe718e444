"""The two models of the controller against known observations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.control import (
    SKIP,
    Action,
    CostModel,
    OptionForecast,
    State,
    UpdateMode,
    UtilityModel,
)
from greentrain.control.regression import posterior
from greentrain.control.utility import freshness
from greentrain.errors import ConfigurationError
from tests.control.offers import FULL, REPLAY, WARM, past

MODES = [mode for mode in UpdateMode if mode is not UpdateMode.SKIP]
QUARTER = Action(mode=UpdateMode.FULL_RETRAIN, step_fraction=0.25)
LINE = math.log2(1 + 15 * 0.5) / 4
"""The line of half the steps of a warm start at step fraction 1."""
FULL_LINE, QUARTER_LINE = math.log2(1 + 75) / 4, math.log2(1 + 75 / 4) / 4


def state(**changes) -> State:
    fields = {
        "position": 1,
        "num_experiences": 8,
        "has_model": True,
        "metric_before": 0.7,
        "metric_last": 0.9,
        "metric_best": 0.9,
        "metric_new": 0.1,
        "metric_ceiling": 1.0,
        "n_new": 100,
        "n_stored": 300,
    }
    return State(**{**fields, **changes})


def test_the_posterior_is_that_of_ridge_regression():
    # With prior mean 0 and sd 1 and noise sd s, the mean is ridge regression with alpha = s**2.
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(0)
    rows, targets = random.normal(size=(30, 3)), random.normal(size=30)
    mean, _ = posterior(np.zeros(3), np.ones(3), rows, targets, np.full(30, 0.5))
    ridge = Ridge(alpha=0.25, fit_intercept=False).fit(rows, targets)
    np.testing.assert_allclose(mean, ridge.coef_)


def test_cost_starts_from_its_calibration():
    model = CostModel()
    model.calibrate(fixed_j=10.0, step_j=0.5)
    estimate = model.predict(UpdateMode.FULL_RETRAIN, 100)
    assert estimate.mean == pytest.approx(60.0)  # 10 J + 100 steps of 0.5 J
    # Known to half of 10 J and three tenths of 50 J, and updates scatter by a tenth of 60 J.
    assert estimate.sd == pytest.approx(math.sqrt(5.0**2 + 15.0**2 + 6.0**2))
    assert estimate.upper == pytest.approx(60.0 + 2 * estimate.sd)
    assert model.predict(UpdateMode.SKIP, 0).upper == 0.0


def test_cost_learns_what_steps_really_draw():
    model = CostModel()
    model.calibrate(fixed_j=10.0, step_j=0.5)
    for steps in (100, 200, 400, 300, 150):
        model.observe(UpdateMode.WARM_START, steps, 20.0 + 0.7 * steps)
    estimate = model.predict(UpdateMode.WARM_START, 250)
    assert estimate.mean == pytest.approx(195.0, rel=0.05)  # 20 J + 250 steps of 0.7 J
    assert estimate.upper > 195.0
    assert estimate.sd < 60.0


def test_cost_follows_a_machine_that_gets_slower():
    model = CostModel()
    model.calibrate(fixed_j=10.0, step_j=1.0)
    for _ in range(8):
        model.observe(UpdateMode.REPLAY, 100, 110.0)
    for _ in range(4):
        model.observe(UpdateMode.REPLAY, 100, 165.0)  # half as much again
    assert model.predict(UpdateMode.REPLAY, 100).mean > 130.0


def test_cost_keeps_a_margin_however_sure_it_is():
    model = CostModel()
    model.calibrate(fixed_j=10.0, step_j=0.5)
    for _ in range(64):
        model.observe(UpdateMode.WARM_START, 100, 60.0)
        model.observe(UpdateMode.WARM_START, 200, 110.0)
    estimate = model.predict(UpdateMode.WARM_START, 200)
    assert estimate.mean == pytest.approx(110.0)
    assert estimate.upper == pytest.approx(1.05 * 110.0)


def test_cost_of_another_mode_counts_for_less():
    same, other = CostModel(), CostModel()
    for model, mode in ((same, UpdateMode.REPLAY), (other, UpdateMode.FULL_RETRAIN)):
        model.calibrate(fixed_j=0.0, step_j=1.0)
        model.observe(mode, 100, 150.0)
    assert same.predict(UpdateMode.REPLAY, 100).mean > other.predict(UpdateMode.REPLAY, 100).mean
    assert other.predict(UpdateMode.REPLAY, 100).mean > 100.0


def test_cost_without_any_measurement_is_an_error():
    with pytest.raises(ConfigurationError, match="calibrate it first"):
        CostModel().predict(UpdateMode.REPLAY, 10)


def test_cost_of_nothing_is_nothing():
    model = CostModel()
    model.calibrate(fixed_j=0.0, step_j=0.0)  # a meter that could not see such short steps
    estimate = model.predict(UpdateMode.REPLAY, 10)
    assert 0.0 <= estimate.mean <= estimate.upper < 1e-9


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_cost_refuses_what_is_no_energy(value):
    with pytest.raises(ConfigurationError, match="step_j"):
        CostModel().calibrate(fixed_j=1.0, step_j=value)


def test_drop_is_the_new_datas_share_of_what_is_lost():
    # The last update reached 0.9, the new quarter of the data goes at 0.1: (0.9 - 0.1) / 4.
    assert state().drop == pytest.approx(0.2)
    assert state(metric_new=1.0).drop < 0  # data that were trained on before
    assert state(metric_new=None).drop == 0.0


def test_a_drop_is_shrunk_by_what_its_sample_scatters():
    # Lower by 0.8, give or take 0.4: of that 0.8**2 / (0.8**2 + 0.4**2) = 0.8 is believed.
    assert state(metric_new_sd=0.4).staleness == pytest.approx(0.64)
    assert state(metric_new_sd=0.4).drop == pytest.approx(0.16)  # a quarter of all data
    assert state(metric_new=0.89, metric_new_sd=0.1).staleness < 0.0002  # within its scatter
    assert state(metric_new=1.0, metric_new_sd=0.1).staleness == pytest.approx(-0.05)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
@pytest.mark.parametrize("name", ["metric_new", "metric_last"])
def test_what_is_not_known_of_the_new_data_counts_as_no_drop(name, unknown):
    assert state(**{name: unknown}).staleness == 0.0
    assert state(**{name: unknown}).drop == 0.0


def test_room_is_what_the_last_model_lacks():
    assert state().room == pytest.approx(0.1)
    assert state(metric_last=1.2).room == 0.0
    for unknown in (None, math.nan):
        assert state(metric_ceiling=unknown).room is None
        assert state(metric_last=unknown).room is None


GROWTH = math.log(4 / 3)
"""Of the data, from 300 to 400 samples."""


@pytest.mark.parametrize(
    ("action", "gain"),
    [
        # 0.95 x drop 0.2 + 0.15 x room 0.1 x more steps + 0.26 x room x growth
        (FULL, 0.19 + 0.015 * (FULL_LINE - 1) + 0.026 * FULL_LINE * GROWTH),
        # A quarter of the steps lacks 1 / 0.25 - 1 = 3 times the room, at -0.1.
        (QUARTER, 0.19 + 0.015 * (QUARTER_LINE - 1) + 0.026 * QUARTER_LINE * GROWTH - 0.03),
        # The last update is taken as a warm start at step fraction 1, too: log2(1 + 15) / 4 = 1.
        (WARM, 0.93 * 0.2 + 0.04 * GROWTH),
        # A replay of a quarter of the data at step fraction 1 has half of a warm start's steps, and
        # the new samples in them as often.
        (REPLAY, 0.186 + 0.015 * (LINE - 1) + 0.035 * GROWTH * LINE),
    ],
)
def test_gain_starts_from_its_prior(action, gain):
    assert UtilityModel().predict(action, state()).mean == pytest.approx(gain)


def test_a_short_update_adds_nothing_to_a_model_that_was_trained_for_long():
    same = {"metric_new": 0.9, "n_new": 1, "n_stored": 10_000}
    gains = [
        UtilityModel().predict(WARM, state(last_share=share, **same)).mean
        for share in (0.01, 0.2, 1.0)
    ]
    assert gains[0] > 0.0
    assert gains[1] == pytest.approx(0.0, abs=1e-4)
    assert gains[2] < 0.0


def test_no_length_recovers_more_than_the_drop():
    long = Action(mode=UpdateMode.WARM_START, step_fraction=5.0)
    no_room = state(metric_last=1.0, metric_new=0.2)
    assert UtilityModel().predict(long, no_room).mean == pytest.approx(0.93 * 0.2)


def test_warm_starts_in_a_row_are_worth_less():
    warm, full = (
        [UtilityModel().predict(each, state(warm_starts=count)).mean for count in (0, 5, 10, 50)]
        for each in (WARM, FULL)
    )
    assert warm[0] - warm[1] == pytest.approx(0.05 * 0.1 * 0.5)  # half of the debt, of the room
    assert warm[0] - warm[2] == pytest.approx(0.05 * 0.1) == warm[0] - warm[3]
    assert len(set(full)) == 1


@pytest.mark.parametrize("changes", [{"metric_ceiling": None}, {"metric_ceiling": math.nan}])
def test_without_a_known_room_a_tenth_is_assumed(changes):
    expected = UtilityModel().predict(WARM, state()).mean  # whose room is 0.1
    assert UtilityModel().predict(WARM, state(**changes)).mean == pytest.approx(expected)


def test_new_data_that_go_better_take_nothing_away():
    better, same = state(metric_new=1.0), state(metric_new=0.9)
    assert UtilityModel().predict(WARM, better) == UtilityModel().predict(WARM, same)


@pytest.mark.parametrize("sd", [0.0, 0.03])
def test_gain_learns_by_the_rule_of_bayes(sd):
    model = UtilityModel()
    before = model.predict(FULL, state())
    model.observe(FULL, state(), 0.05, sd)
    # For the features that were observed: the mean of two normal values by their precisions.
    noise = sd**2 + 0.01**2
    share = before.sd**2 / (before.sd**2 + noise)
    after = model.predict(FULL, state())
    assert after.mean == pytest.approx(before.mean + share * (0.05 - before.mean))
    assert after.sd == pytest.approx(math.sqrt((1 - share) * before.sd**2))


def test_warm_starts_and_replays_teach_each_other_half():
    # Half of the data are new, so both take as many steps and have the same features.
    even, taught = state(n_new=500, n_stored=500), UtilityModel()
    before = taught.predict(REPLAY, even)
    taught.observe(WARM, even, 0.05)
    share = before.sd**2 / (before.sd**2 + 2 * 0.01**2)  # half the weight, twice the variance
    expected = before.mean + share * (0.05 - before.mean)
    assert taught.predict(REPLAY, even).mean == pytest.approx(expected)
    assert taught.predict(FULL, even) == UtilityModel().predict(FULL, even)


def test_a_replay_recovers_a_drop_as_a_warm_start_of_more_steps():
    few_new = {"n_new": 100, "n_stored": 900, "metric_last": 0.9, "metric_new": 0.1}
    lost, kept = state(**few_new), state(**{**few_new, "metric_new": 0.9})
    by_drop = [
        UtilityModel().predict(each, lost).mean - UtilityModel().predict(each, kept).mean
        for each in (REPLAY, WARM, Action(mode=UpdateMode.WARM_START, step_fraction=0.2))
    ]
    assert by_drop[0] == pytest.approx(by_drop[1])  # a fifth of its steps, the new data as often
    assert by_drop[0] > 1.2 * by_drop[2]  # and no more steps than this one


def test_copies_count_against_the_samples_that_differ():
    # Three quarters of a full retraining on 400 samples is a whole one on the 300 that differ.
    of = {"n_new": 100, "n_stored": 300, "copies": 1.0}
    assert freshness(state(**of, effort=0.75)) == 0.0
    assert freshness(state(**of, effort=0.3)) == pytest.approx(0.6)


def test_gain_learns_that_a_mode_brings_nothing():
    model = UtilityModel()
    for _ in range(6):
        model.observe(FULL, state(), 0.0)
    assert abs(model.predict(FULL, state()).mean) < 0.005
    assert model.predict(WARM, state()).mean > 0.15  # what one mode taught says nothing of another


@given(
    drops=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5),
    step_fraction=st.floats(0.01, 1.0),
    n_new=st.integers(1, 1000),
    n_stored=st.integers(0, 1000),
)
def test_gains_of_many_are_those_of_each(drops, step_fraction, n_new, n_stored):
    model = UtilityModel()
    model.observe(WARM, state(), 0.03, 0.01)
    actions = [SKIP, *(Action(mode=mode, step_fraction=step_fraction) for mode in MODES)]
    means, sds = model.gains(actions, state(n_new=n_new, n_stored=n_stored), drops)
    assert means.shape == sds.shape == (len(drops), len(actions))
    assert not means[:, 0].any() and not sds[:, 0].any()  # nothing done, nothing gained
    for row, drop in enumerate(drops):
        share = n_new / (n_new + n_stored)
        alone = state(n_new=n_new, n_stored=n_stored, metric_new=0.9 - drop / share)
        for column, action in enumerate(actions):
            found = model.predict(action, alone)
            assert means[row, column] == pytest.approx(found.mean, rel=1e-6, abs=1e-9)
            assert sds[row, column] == pytest.approx(found.sd, rel=1e-6, abs=1e-9)


def test_what_was_learned_survives_json():
    model, again = UtilityModel(), UtilityModel()
    for number, action in enumerate((FULL, WARM, REPLAY, WARM)):
        model.observe(action, state(), 0.02 * number, 0.01)
    again.load_state_dict(json.loads(json.dumps(model.state_dict())))
    for action in (FULL, WARM, REPLAY):
        assert again.predict(action, state()) == model.predict(action, state())


def test_gain_ignores_what_could_not_be_measured():
    model = UtilityModel()
    before = model.predict(FULL, state()).mean
    model.observe(FULL, state(), math.nan)
    model.observe(FULL, state(), 0.0, math.nan)
    model.observe(SKIP, state(), 0.0)
    assert model.predict(FULL, state()).mean == before
    assert not any(model.state_dict().values())


def test_a_state_survives_json():
    known = state(history=(past(),))
    assert State.from_dict(json.loads(json.dumps(known.as_dict()))) == known


def test_a_forecast_survives_json():
    forecast = OptionForecast(tables=(((0.0, 0.0), (1.5, 0.2)),), weights=(2.5,))
    assert OptionForecast.from_dict(json.loads(json.dumps(forecast.as_dict()))) == forecast


@pytest.mark.parametrize("step_fraction", [0.0, 1.5, -0.5])
def test_step_fraction_is_a_share(step_fraction):
    with pytest.raises(ConfigurationError, match="step_fraction"):
        Action(mode=UpdateMode.FULL_RETRAIN, step_fraction=step_fraction)
