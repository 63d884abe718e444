from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.energy import Forecast, predict_total
from greentrain.errors import ConfigurationError

EPOCHS = 50


def predicted(epochs_j: list[float], spent_j: float, epochs_left: float) -> Forecast:
    forecast = predict_total(epochs_j, spent_j, epochs_left)
    assert forecast is not None
    return forecast


def test_what_is_left_is_the_mean_times_the_epochs_left() -> None:
    assert predicted([3600.0], 3600.0, 9.0).mean_j == 36000.0  # 1 Wh an epoch, ten of them
    assert predicted([3600.0, 7200.0], 11000.0, 2.5).mean_j == 11000.0 + 2.5 * 5400.0


def test_a_slow_first_epoch_is_left_out_once_three_are_known() -> None:
    assert predicted([9000.0, 3600.0], 12600.0, 1.0).mean_j == 12600.0 + 6300.0
    assert predicted([9000.0, 3600.0, 3600.0], 16200.0, 1.0).mean_j == 16200.0 + 3600.0


def test_after_one_epoch_the_band_is_a_fifth_of_what_is_left() -> None:
    # Carbontracker's greatest error after one epoch, 19.1 %, is t(3) = 3.182 times 6 %.
    forecast = predicted([1000.0], 1000.0, 1e6)
    assert forecast.high_j - forecast.mean_j == pytest.approx(0.191 * 1e9, rel=1e-3)


def test_the_band_by_hand() -> None:
    # Two epochs of 900 and 1100 J, one left: t with 3 + 2 - 1 = 4 degrees of freedom is 2.776;
    # s^2 is (3 (0.06^2 / 2) 1000^2 + 2 * 100^2) / 4 = 6350 J^2; (1 + 1/3) / (1 - 1/3) = 2 times
    # (1 + 1/2) times that is 19050 J^2, its root 138 J.
    forecast = predicted([900.0, 1100.0], 2000.0, 1.0)
    assert forecast.high_j - forecast.mean_j == pytest.approx(2.7764 * math.sqrt(19050.0), rel=1e-4)
    assert forecast.mean_j - forecast.low_j == pytest.approx(2.7764 * math.sqrt(19050.0), rel=1e-4)


def test_at_the_end_nothing_is_open() -> None:
    done = Forecast(mean_j=500.0, low_j=500.0, high_j=500.0)
    assert predict_total([100.0] * 5, 500.0, 0.0) == done
    assert predict_total([], 500.0, 0) == done


def test_before_the_first_epoch_nothing_is_known() -> None:
    assert predict_total([], 10.0, 5.0) is None


@pytest.mark.parametrize(
    ("given_as", "match"),
    [
        (([1.0, -2.0], 1.0, 1.0), r"epochs_j\[1\] is -2.0; it must be finite, 0 or more"),
        (([math.nan], 1.0, 1.0), r"epochs_j\[0\] is nan"),
        (([1.0], -1.0, 1.0), "spent_j is -1.0"),
        (([1.0], 1.0, -1.0), "epochs_left is -1.0"),
        (([1.0], 1.0, math.inf), "epochs_left is inf"),
    ],
)
def test_figures_are_finite_and_not_negative(given_as: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        predict_total(*given_as)


@pytest.mark.parametrize("ends", [(2.0, 1.0, 3.0), (0.0, 1.0, 0.5), (-1.0, 1.0, 2.0)])
def test_a_forecast_is_in_order(ends: tuple[float, float, float]) -> None:
    low_j, mean_j, high_j = ends
    with pytest.raises(ConfigurationError, match="in this order"):
        Forecast(low_j=low_j, mean_j=mean_j, high_j=high_j)


@given(
    epochs_j=st.lists(st.floats(0.0, 1e9), min_size=1, max_size=30),
    more_j=st.floats(0.0, 1e9),
    epochs_left=st.floats(0.0, 1e4),
)
def test_the_band_is_never_below_what_is_spent(
    epochs_j: list[float], more_j: float, epochs_left: float
) -> None:
    spent_j = math.fsum(epochs_j) + more_j
    forecast = predicted(epochs_j, spent_j, epochs_left)
    assert spent_j <= forecast.low_j <= forecast.mean_j <= forecast.high_j


@given(epochs_j=st.lists(st.floats(1.0, 1e6), min_size=1, max_size=20), scale=st.floats(1e-3, 1e3))
def test_units_do_not_matter(epochs_j: list[float], scale: float) -> None:
    plain = predicted(epochs_j, sum(epochs_j), 7.5)
    scaled = predicted([scale * energy for energy in epochs_j], scale * sum(epochs_j), 7.5)
    assert scaled.mean_j == pytest.approx(scale * plain.mean_j)
    assert scaled.low_j == pytest.approx(scale * plain.low_j)
    assert scaled.high_j == pytest.approx(scale * plain.high_j)


def run_of(
    chance: random.Random, *, spread: float, correlation: float, first: float
) -> list[float]:
    """Simulate a run: epochs that resemble their neighbours, the first higher by a factor."""
    epochs_j, apart = [], chance.gauss(0.0, 1.0)
    for _ in range(EPOCHS):
        epochs_j.append(max(0.0, 1000.0 * (1.0 + spread * apart)))
        rest = math.sqrt(1.0 - correlation**2)
        apart = correlation * apart + rest * chance.gauss(0.0, 1.0)
    epochs_j[0] *= first
    return epochs_j


@pytest.mark.parametrize(
    ("spread", "correlation", "first", "after", "at_least"),
    [
        (0.01, 0.0, 1.0, (1, 3, 10), 0.97),
        (0.05, 0.0, 1.0, (1, 3, 10), 0.95),
        (0.10, 0.0, 1.0, (1, 3, 10), 0.92),
        (0.20, 0.0, 1.0, (10,), 0.92),
        (0.05, 0.5, 1.0, (1, 3), 0.95),
        (0.05, 0.5, 1.0, (10,), 0.87),
        (0.05, 0.8, 1.0, (1, 3), 0.93),
        (0.05, 0.8, 1.0, (10,), 0.76),
        (0.02, 0.0, 1.15, (1, 3, 10), 0.97),
        (0.05, 0.5, 1.3, (3,), 0.95),
    ],
)
def test_the_band_holds_about_as_often_as_it_says(
    spread: float, correlation: float, first: float, after: tuple[int, ...], at_least: float
) -> None:
    chance, runs = random.Random(2), 2000
    held = dict.fromkeys(after, 0)
    for _ in range(runs):
        epochs_j = run_of(chance, spread=spread, correlation=correlation, first=first)
        for known in after:
            forecast = predicted(epochs_j[:known], sum(epochs_j[:known]), EPOCHS - known)
            held[known] += forecast.low_j <= sum(epochs_j) <= forecast.high_j
    assert {known: count / runs for known, count in held.items() if count < at_least * runs} == {}


def test_the_band_narrows_while_a_run_goes_on() -> None:
    chance = random.Random(3)
    epochs_j = run_of(chance, spread=0.03, correlation=0.3, first=1.2)
    widths = []
    for known in (1, 3, 10, 45):
        forecast = predicted(epochs_j[:known], sum(epochs_j[:known]), EPOCHS - known)
        widths.append((forecast.high_j - forecast.low_j) / sum(epochs_j))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.02
