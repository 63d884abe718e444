"""How far two samples lie from each other: by hand, against references, and by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import pdist
from scipy.stats import ks_2samp
from sklearn.metrics.pairwise import rbf_kernel

from greentrain.evaluation.signals.drift import (
    FEWEST_ROWS,
    MOST_ROWS,
    drift_score,
    largest_ks,
    mmd2,
    spread,
)


def normal(n, features, *, seed, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(n, features, generator=generator, dtype=torch.float64)


def test_mmd2_of_two_and_two_points_by_hand():
    # Distances 1, 1 within, of which the median is 1, and 2, 3, 1, 2 across:
    # exp(-1/2) + exp(-1/2) - 2 * (exp(-2) + exp(-9/2) + exp(-1/2) + exp(-2)) / 4
    old, new = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    one, two, three = math.exp(-0.5), math.exp(-2), math.exp(-4.5)
    assert mmd2(old, new) == pytest.approx(2 * one - (2 * two + three + one) / 2)


def test_the_median_is_that_of_equally_many_rows_of_each():
    # Of 0, 1, 5 the first two count, 1 apart, and 10, 13 are 3 apart: the lower middle one is 1.
    old, new = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[10.0], [13.0]])
    within = sum(math.exp(-0.5 * d**2) for d in (1, 5, 4)) / 3 + math.exp(-0.5 * 3**2)
    across = sum(math.exp(-0.5 * d**2) for d in (10, 9, 5, 13, 12, 8)) / 6
    assert mmd2(old, new) == pytest.approx(within - 2 * across)


@pytest.mark.parametrize(("n", "features", "mean"), [(20, 1, 0.0), (33, 5, 0.7), (64, 40, 3.0)])
def test_mmd2_is_that_of_its_formula_with_kernels_of_another_library(n, features, mean):
    old, new = normal(n, features, seed=1), normal(n, features, seed=2, mean=mean)
    distances = np.sort(np.concatenate([pdist(old.numpy()), pdist(new.numpy())]))
    middle = distances[(len(distances) - 1) // 2]
    within_old, within_new, across = (
        rbf_kernel(a.numpy(), b.numpy(), gamma=1 / (2 * middle**2))
        for a, b in ((old, old), (new, new), (old, new))
    )
    expected = -2 * across.mean()
    for within in (within_old, within_new):
        expected += (within.sum() - np.trace(within)) / (n * (n - 1))
    assert mmd2(old, new) == pytest.approx(expected)


@pytest.mark.parametrize("features", [1, 10, 64])
def test_the_largest_ks_is_that_of_scipy_over_the_features(features):
    old, new = normal(40, features, seed=3), normal(30, features, seed=4)
    new[:, 0] += 5  # all above all of the old ones, or nearly
    statistics = [
        ks_2samp(old[:, each].numpy(), new[:, each].numpy()).statistic for each in range(features)
    ]
    assert largest_ks(old, new) == pytest.approx(max(statistics))


def test_ks_by_hand():
    # At 2 all of the old ones have come, and one of the four new ones.
    old, new = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [4.0], [5.0]])
    assert largest_ks(old, new) == pytest.approx(0.75)


@pytest.mark.parametrize("features", [2, 400])
def test_one_distribution_is_about_0_and_scatters_around_it(features):
    values = [
        drift_score(normal(100, features, seed=seed), normal(100, features, seed=1000 + seed)).value
        for seed in range(30)
    ]
    assert max(map(abs, values)) < 0.03
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))


def test_a_shift_stands_out_of_its_permutations_and_none_does_not():
    old, same, moved = (
        normal(60, 20, seed=5),
        normal(60, 20, seed=6),
        normal(60, 20, seed=7, mean=0.5),
    )

    def rank(new):
        both, found = torch.cat([old, new]), drift_score(old, new).value
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(120, generator=generator) for _ in range(99)]
        return sum(drift_score(both[o[:60]], both[o[60:]]).value >= found for o in orders)

    assert rank(moved) == 0
    assert rank(same) > 5


def test_more_shift_is_more_until_the_two_are_wholly_apart():
    old = normal(100, 5, seed=8)
    values = [drift_score(old, normal(100, 5, seed=9, mean=m)).value for m in (0, 0.3, 1, 3, 9, 99)]
    assert values == sorted(values)
    # Nothing across, and within exp(-1/2) twice, as if all distances were the median.
    assert values[-1] == pytest.approx(2 * math.exp(-0.5), abs=0.05)


def test_the_share_of_the_two_hardly_matters():
    old = normal(256, 5, seed=10)
    few, many = normal(20, 5, seed=11, mean=50), normal(256, 5, seed=12, mean=50)
    assert drift_score(old, few).value == pytest.approx(drift_score(old, many).value, abs=0.05)


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_scaling_and_moving_all_features_changes_nothing(factor, offset):
    old, new = normal(20, 3, seed=13), normal(25, 3, seed=14, mean=0.5)
    expected = drift_score(old, new).value
    found = drift_score(factor * (old + offset), factor * (new + offset))
    assert found.value == pytest.approx(expected, abs=1e-6)


@given(
    *[
        arrays(
            np.float64,
            array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=12),
            elements=st.floats(allow_nan=True, allow_infinity=True),
        )
    ]
    * 2
)
def test_whatever_the_features_there_is_a_shift_in_its_range_or_none(old, new):
    shift = drift_score(torch.from_numpy(old), torch.from_numpy(new))
    rows = [
        np.isfinite(each.reshape(len(each), -1)).all(1).sum() if each.size else 0
        for each in (old, new)
    ]
    if min(rows) < FEWEST_ROWS:
        assert shift is None
    elif shift is not None:
        assert shift.measure in ("MMD2", "KS")
        assert (0 if shift.measure == "KS" else -1) <= shift.value <= 2


@pytest.mark.parametrize("huge", [1e30, 1e300])
def test_huge_values_are_measured_like_any_others(huge):
    old, new = normal(20, 3, seed=15), normal(20, 3, seed=16, mean=1)
    expected = drift_score(old, new).value
    assert drift_score(huge * old, huge * new).value == pytest.approx(expected)


def test_constant_features_are_the_same_or_wholly_apart():
    zeros, ones = torch.zeros(20, 4), torch.ones(20, 4)
    for new, value in ((zeros, 0.0), (ones, 1.0)):
        shift = drift_score(zeros, new)
        assert (shift.measure, shift.value) == ("KS", value)


def test_where_most_rows_are_alike_the_largest_ks_speaks():
    old, new = torch.zeros(50, 100), torch.zeros(50, 100)
    new[:10, 7] = 1.0  # a dead layer but for one unit, which fires for a fifth of the new samples
    shift = drift_score(old, new)
    assert (shift.measure, shift.value) == ("KS", pytest.approx(0.2))


def test_rows_that_are_not_finite_are_left_out():
    old, new = normal(20, 3, seed=17), normal(20, 3, seed=18)
    spoiled = torch.cat([new, torch.full((3, 3), math.nan), torch.full((1, 3), math.inf)])
    assert drift_score(old, spoiled) == drift_score(old, new)


def test_too_few_or_others_features_say_nothing():
    old = normal(20, 3, seed=19)
    assert drift_score(old, old[: FEWEST_ROWS - 1]) is None
    assert drift_score(old, normal(20, 4, seed=20)) is None
    assert drift_score(old, torch.zeros(0, 3)) is None
    assert drift_score(torch.tensor(1.0), old) is None


def test_more_rows_than_are_looked_at_are_taken_from_all_over():
    old = torch.arange(10.0 * MOST_ROWS).reshape(-1, 1)  # sorted: the first ones would be others
    new = old[torch.randperm(len(old), generator=torch.Generator().manual_seed(0))]
    assert abs(drift_score(old, new).value) < 0.02
    assert drift_score(old, new[:MOST_ROWS]).value < 0.02


@given(st.integers(0, 500), st.integers(1, 100))
def test_even_distances_reach_over_all(total, n):
    places = spread(total, n).tolist()
    assert len(places) == min(total, n)
    assert len(set(places)) == len(places)
    assert all(0 <= place < total for place in places)
    if total > n:
        steps = np.diff([-places[0] - 1, *places])
        assert steps.max() - steps.min() <= 2
