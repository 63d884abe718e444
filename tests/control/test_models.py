"""The two models of the controller against what they are told."""

from __future__ import annotations

import numpy as np
import pytest

from greentrain.control import Action, CostModel, State, UpdateMode, UtilityModel
from greentrain.control.regression import posterior
from greentrain.errors import ConfigurationError

FULL = Action(mode=UpdateMode.FULL_RETRAIN)


def state(**changes) -> State:
    fields = {
        "position": 1,
        "horizon": 8,
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
    assert estimate.upper >= 1.05 * estimate.mean
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


def test_growth_is_worth_what_the_new_data_can_still_teach():
    assert state(metric_new=1.0).growth == 0.0
    assert state(metric_new=0.5).growth == pytest.approx(np.log(4 / 3) * 0.5)
    assert state(metric_ceiling=None).growth == 0.0


def test_gain_starts_from_its_prior_and_full_retraining_is_expected_to_mend_the_drop():
    model = UtilityModel()
    gain = model.predict(FULL, state(n_stored=300)).mean
    # 1.0 x drop 0.2 + 0.4 x growth ln(1 + 100 / 300) x room 1 - 0.1
    assert gain == pytest.approx(0.2 + 0.4 * np.log(4 / 3) * 0.9)
    quarter = Action(mode=UpdateMode.FULL_RETRAIN, effort=0.25)
    assert model.predict(quarter, state()).mean == pytest.approx(gain * 0.25**0.3)
    assert model.predict(FULL, state(), drop=0.0).mean < gain


def test_gain_learns_that_a_mode_brings_nothing():
    model = UtilityModel()
    for _ in range(6):
        model.observe(FULL, state(), 0.0)
    assert model.predict(FULL, state()).mean < 0.05
    warm = Action(mode=UpdateMode.WARM_START)
    assert model.predict(warm, state()).mean > 0.15  # what one mode taught says nothing of another


def test_gain_ignores_what_could_not_be_measured():
    model = UtilityModel()
    before = model.predict(FULL, state()).mean
    model.observe(FULL, state(), float("nan"))
    assert model.predict(FULL, state()).mean == before


def test_a_state_survives_json():
    import json

    told = state(tables=(((0.0, 0.0), (1.5, 0.2)),))
    assert State.from_dict(json.loads(json.dumps(told.as_dict()))) == told


@pytest.mark.parametrize("effort", [0.0, 1.5, -0.5])
def test_effort_is_a_share(effort):
    with pytest.raises(ConfigurationError, match="effort"):
        Action(mode=UpdateMode.REPLAY, effort=effort)
