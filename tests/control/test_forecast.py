"""The forecast of options at experiences to come, by hand and by properties."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.control import SKIP, Action, Candidate, Option, UpdateMode, UtilityModel
from greentrain.control.forecast import (
    NO_FORECAST,
    POINTS,
    forecast_options,
    kept_gain,
    risk_discount,
)
from tests.control import offers
from tests.control.offers import REPLAY, WARM, option

HALF_WARM = Action(mode=UpdateMode.WARM_START, step_fraction=0.5)
RATE = 1 - math.exp(-2.4)
"""The share of what is left that a warm start at step fraction 1 closes."""


class Mends(UtilityModel):
    """Each update gains twice the drop, give or take 0.01; the model learns nothing."""

    def gains(self, actions, state, drops):
        updates = np.array([[action.mode is not UpdateMode.SKIP for action in actions]])
        means = 2.0 * np.array(drops)[:, None] * updates
        return means, 0.01 * updates * np.ones_like(means)


def line(action: Action, steps: int) -> Option:
    """An option that costs 10 J and 1 J per step."""
    return replace(option(action, 10.0 + steps), candidate=Candidate(action=action, steps=steps))


NOTHING = replace(option(SKIP, 0.0), candidate=Candidate(action=SKIP, steps=0))
OPTIONS = [NOTHING, line(HALF_WARM, 50), line(WARM, 100)]


def looked(**changes):
    fields = {
        "position": 0,
        "num_experiences": 2,
        "metric_new": 0.9,
        "metric_last": 0.9,
        "n_new": 100,
    }
    return offers.state(**{**fields, **changes})


def test_the_next_experience_by_hand():
    # One is to come, with 100 samples like the 100 there are: a warm start has twice the data, so
    # it costs 10 J + 2 * 100 J, of an even share of 110 J. The new data are half of all, and lose
    # 0, 0.1 or 0.5: twice the drop is as much. Seen so far: once, nothing.
    found = forecast_options(OPTIONS, looked(), Mends(), [], left_j=220.0)
    weights = found.weights
    tables = found.tables
    assert weights == pytest.approx((0.7 / 2, 0.15 / 2, 0.15 / 2, 1 / 2))
    # 210 J are 210 / 110 even shares, and what takes more than one has to be sure.
    careful = (210 / 110 - 1) / 2
    # What comes last lasts for one experience, and what comes now for one and what is left of it.
    lasting = 1 / (1 + (1 - RATE))
    for table, lost in zip(tables, (0.0, 0.1, 0.5, 0.0), strict=True):
        (skip, half, warm) = table
        assert skip == (0.0, 0.0)
        # An update that turns out worse is not kept.
        assert half == pytest.approx((110.0, lasting * kept_gain(lost, 0.01)))
        assert warm == pytest.approx((210.0, lasting * kept_gain(lost, 0.01, careful)))


def test_replay_grows_with_the_new_data_alone():
    # At position 3 an experience brings 400 / 4 = 100 samples, and half of the 200 new ones.
    options = [
        *OPTIONS,
        line(REPLAY, 40),
        line(Action(mode=UpdateMode.REPLAY, step_fraction=0.5), 20),
    ]
    state = looked(position=3, num_experiences=5, n_new=200, n_stored=200)
    found = forecast_options(options, state, Mends(), [], left_j=220.0)
    tables = found.tables
    costs = [cost_j for cost_j, _ in tables[0]]
    assert costs == pytest.approx([0.0, 10 + 50 * 500 / 400, 10 + 100 * 500 / 400, 30.0, 20.0])


def test_what_was_seen_outweighs_what_was_expected():
    # Six looks in thirds, weights 2 of 7 each; this seventh one was without a look.
    stale = [0.0, 0.5, 0.1, 0.4, 0.2, 0.3]
    found = forecast_options(OPTIONS, looked(metric_new=None), Mends(), stale, left_j=1e6)
    weights = found.weights
    tables = found.tables
    assert weights == pytest.approx((0.1, 0.15 / 7, 0.15 / 7, 2 / 7, 2 / 7, 2 / 7))
    # Half of all samples, twice the drop: what was lost. All of it can be had each time, so it
    # lasts no longer than until the next one.
    lost = [warm[1] for _, _, warm in tables]
    assert lost == pytest.approx([kept_gain(0.0, 0.01), 0.1, 0.5, 0.05, 0.25, 0.45], rel=1e-4)


def test_a_probe_that_found_the_new_data_better_counts_as_nothing_lost():
    found = forecast_options(OPTIONS, looked(metric_new=1.0), Mends(), [-0.5], left_j=1e6)
    tables = found.tables
    nothing = kept_gain(0.0, 0.01)
    assert all(warm[1] == pytest.approx(nothing) for _, _, warm in tables[3:])


@given(mean=st.floats(-1.0, 1.0), sd=st.floats(0.0, 1.0), discount=st.floats(0.0, 1.0))
def test_a_kept_gain_is_at_least_the_mean_and_never_negative(mean, sd, discount):
    found = kept_gain(mean, sd, discount)
    assert found >= max(0.0, mean - discount * sd) - 1e-12
    assert kept_gain(mean, 0.0) == max(0.0, mean)


def test_a_kept_gain_is_the_mean_of_the_positive_part():
    draws = np.random.default_rng(0).normal(-0.01, 0.02, 200_000)
    assert kept_gain(-0.01, 0.02) == pytest.approx(np.maximum(0.0, draws).mean(), rel=0.02)


@pytest.mark.parametrize("changes", [{"has_model": False}, {"position": 1}, {"position": 7}])
def test_nothing_is_imagined_without_a_model_and_at_the_end(changes):
    found = forecast_options(OPTIONS, looked(**changes), UtilityModel(), [], left_j=100.0)
    assert found == NO_FORECAST


def test_what_is_gained_early_counts_for_longer():
    found = forecast_options(OPTIONS, looked(num_experiences=9), Mends(), [1.0], left_j=1.0)
    tables = found.tables
    # Among the 8 to come at four points, the share of the new data shrinks as well: so per sample.
    shares = [100 / (100 + round(100 + (middle - 1) * 100)) for middle in (1.5, 3.5, 5.5, 7.5)]
    values = [tables[5 * point + 4][1][1] + 0.01 for point in range(4)]
    per_share = [value / share for value, share in zip(values, shares, strict=True)]
    assert per_share == sorted(per_share, reverse=True)
    assert per_share[0] > 1.5 * per_share[-1]


@given(
    position=st.integers(0, 50),
    num_experiences=st.integers(1, 5000),
    n_new=st.integers(1, 10_000),
    n_stored=st.integers(0, 10_000),
    stale=st.lists(st.floats(-1.0, 1.0), max_size=64),
    metric_new=st.none() | st.floats(0.0, 1.0),
    left_j=st.floats(0.0, 1e6),
)
def test_each_experience_to_come_is_counted_once(
    position, num_experiences, n_new, n_stored, stale, metric_new, left_j
):
    state = looked(
        position=position,
        num_experiences=num_experiences,
        n_new=n_new,
        n_stored=n_stored,
        metric_new=metric_new,
    )
    found = forecast_options(OPTIONS, state, UtilityModel(), stale, left_j=left_j)
    weights = found.weights
    tables = found.tables
    assert math.fsum(weights) == pytest.approx(max(0, state.remaining - 1))
    assert len(tables) == len(weights) <= POINTS * 6  # however long the stream and its past are
    for table in tables:
        assert table[0] == (0.0, 0.0)
        assert all(cost_j >= 0 and math.isfinite(gain) for cost_j, gain in table)


@given(cost_j=st.floats(0.01, 1e6), even_j=st.floats(0.01, 1e6), more=st.floats(1.0, 10.0))
def test_caution_grows_with_what_is_taken(cost_j, even_j, more):
    assert 0.0 <= risk_discount(cost_j, even_j) <= risk_discount(more * cost_j, even_j) <= 1.0
    assert (risk_discount(cost_j, even_j) == 0.0) == (cost_j <= even_j)


def test_with_nothing_left_everything_is_dear():
    assert risk_discount(1.0, 0.0) == 1.0
