"""Micro-profiling: when it is worth its joules, and what a short training says of a long one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.control.action import Action, Candidate, Estimate, Option, UpdateMode
from greentrain.control.profiling import PROFILE_SHARE, fit_curve, worth_profiling

SHORT = (5, 10, 20, 40, 60, 80, 100)
positive = st.floats(0.01, 10)


def option(gain, sd, cost_j):
    return Option(
        candidate=Candidate(action=Action(mode=UpdateMode.WARM_START), steps=10),
        cost_j=Estimate(mean=cost_j, sd=0.0, upper=cost_j),
        gain=Estimate(mean=gain, sd=sd, upper=gain + 2 * sd),
    )


def optimus(k, b0, b1, b2):
    return 1 - (1 / (b0 * k + b1) + b2)


@pytest.mark.parametrize(
    ("gains", "costs_j", "profile_j", "worth"),
    [
        ((0.10, 0.07), (500.0, 100.0), 19.0, True),  # 0.03 apart, and 0.04 in doubt; 5 % are 20 J
        ((0.10, 0.07), (500.0, 100.0), 20.0, False),
        ((0.10, 0.05), (500.0, 100.0), 1.0, False),  # no doubt which is better
        ((0.10, 0.10), (100.0, 100.0), 0.0, False),  # nothing at stake
        ((0.10, 0.10), (500.0, 100.0), math.nan, False),
        ((math.nan, 0.10), (500.0, 100.0), 1.0, False),
    ],
)
def test_worth_by_hand(gains, costs_j, profile_j, worth):
    first, second = (
        option(gain, 0.01, cost_j) for gain, cost_j in zip(gains, costs_j, strict=True)
    )
    assert worth_profiling(first, second, profile_j) is worth
    assert worth_profiling(second, first, profile_j) is worth


@given(*[st.tuples(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1e6))] * 2, st.floats(0, 1e6))
def test_a_profile_never_draws_more_than_its_share_and_no_unit_matters(first, second, profile_j):
    worth = worth_profiling(option(*first), option(*second), profile_j)
    if worth:
        assert profile_j <= PROFILE_SHARE * abs(first[2] - second[2])
    first, second = ((gain, sd, 1024 * cost_j) for gain, sd, cost_j in (first, second))
    assert worth_profiling(option(*first), option(*second), 1024 * profile_j) is worth


@pytest.mark.parametrize("b", [(0.1, 2.0, 0.05), (0.02, 1.2, 0.2), (1.0, 1.1, 0.0)])
def test_a_curve_of_this_form_is_found_again(b):
    curve = fit_curve(SHORT, [optimus(k, *b) for k in SHORT])
    for k in (10, 100, 1000):
        estimate = curve.at(k)
        assert abs(estimate.mean - optimus(k, *b)) < 0.01
        assert abs(estimate.mean - optimus(k, *b)) <= 2 * estimate.sd
        assert estimate.upper == pytest.approx(estimate.mean + 2 * estimate.sd)


def test_a_noisy_curve_is_foretold_within_what_it_says_of_itself():
    random, b = np.random.default_rng(0), (0.05, 1.5, 0.1)
    apart = []
    for _ in range(100):
        seen = [optimus(k, *b) + random.normal(0, 0.01) for k in SHORT]
        estimate = fit_curve(SHORT, seen).at(1000)
        apart.append((estimate.mean - optimus(1000, *b)) / estimate.sd)
    assert sum(abs(each) <= 2 for each in apart) >= 90


def test_further_away_is_less_sure():
    random = np.random.default_rng(1)
    seen = [optimus(k, 0.05, 1.5, 0.1) + random.normal(0, 0.01) for k in SHORT]
    sds = [fit_curve(SHORT, seen).at(k).sd for k in (100, 300, 1000, 10_000)]
    assert sds == sorted(sds)
    assert sds[-1] > 2 * sds[0]


def test_what_does_not_learn_is_foretold_to_stay():
    curve = fit_curve(SHORT, [0.1] * len(SHORT))
    assert curve.at(10_000).mean == pytest.approx(0.1, abs=1e-3)
    falling = fit_curve(SHORT, [0.5 - 0.001 * k for k in SHORT])
    assert falling.at(10_000).mean == pytest.approx(falling.at(1).mean, abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 1)), min_size=4, max_size=12),
    st.lists(st.floats(0, 1e5), min_size=2, max_size=5),
)
def test_no_curve_falls_or_passes_its_ceiling(pairs, at):
    curve = fit_curve(*zip(*pairs, strict=True))
    if curve is None:
        assert len({k for k, _ in pairs}) < 4 or all(metric == 1 for _, metric in pairs)
        return
    assert sum(level[0] for level in curve.levels) == pytest.approx(1)
    means = [curve.at(k).mean for k in sorted(at)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(means))
    assert all(mean <= 1 + 1e-9 for mean in means)
    assert all(curve.at(k).sd > 0 for k in at)


@given(positive, st.floats(-10, 10))
def test_no_unit_of_the_metric_matters(unit, ceiling):
    seen = [optimus(k, 0.1, 2.0, 0.05) for k in SHORT]
    expected = fit_curve(SHORT, seen).at(500)
    scaled = fit_curve(SHORT, [ceiling - unit * (1 - each) for each in seen], ceiling=ceiling)
    found = scaled.at(500)
    assert found.mean == pytest.approx(ceiling - unit * (1 - expected.mean), abs=1e-4 * unit)
    assert found.sd == pytest.approx(unit * expected.sd, rel=1e-2)


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=12))
def test_whatever_was_seen_there_is_a_finite_curve_or_none(pairs):
    curve = fit_curve([k for k, _ in pairs], [metric for _, metric in pairs])
    if curve is not None:
        assert math.isfinite(curve.at(100).mean)


@pytest.mark.parametrize(
    ("steps", "metrics"),
    [
        ((), ()),
        ((1, 2, 3), (0.1, 0.2, 0.3)),
        ((5, 5, 5, 5), (0.1, 0.2, 0.3, 0.4)),
        ((1, 2, 3, 4), (0.1, math.nan, 0.3, math.inf)),
        ((0, -1, 2, 3), (0.1, 0.2, 0.3, 0.4)),
        ((1, 2, 3, 4), (1.0, 1.0, 1.0, 1.0)),  # nothing is left to learn
        ((1, 2, 3, 4), (0.1, 0.2, 0.3, 1.5)),  # no metric with this ceiling
    ],
)
def test_degenerate_data_say_nothing(steps, metrics):
    assert fit_curve(steps, metrics) is None
