from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.errors import ConfigurationError
from greentrain.metrics import energy_to_target, median_energy_to_target

Run = tuple[Sequence[float], Sequence[float]]

# Weeks of remission of the leukaemia patients of Freireich et al. 1963, the example of most books
# on survival analysis; the second list of the treated is of those still in remission.
TREATED = [6.0, 6.0, 6.0, 7.0, 10.0, 13.0, 16.0, 22.0, 23.0]
STILL_WELL = [6.0, 9.0, 10.0, 11.0, 17.0, 19.0, 20.0, 25.0, 32.0, 32.0, 34.0, 35.0]
UNTREATED = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def reached(energy_j: float) -> Run:
    return [0.0, energy_j], [0.0, 1.0]


def stopped(energy_j: float) -> Run:
    return [0.0, energy_j], [0.0, 0.0]


def test_it_is_what_was_used_when_the_target_was_first_met() -> None:
    energies_j, values = [10.0, 25.0, 40.0, 60.0], [0.5, 0.8, 0.7, 0.9]
    assert energy_to_target(energies_j, values, target=0.8) == 25.0
    assert energy_to_target(energies_j, values, target=0.75) == 25.0
    assert energy_to_target(energies_j, values, target=0.85) == 60.0
    assert energy_to_target(energies_j, values, target=0.95) is None


def test_what_was_not_measured_has_reached_nothing() -> None:
    assert energy_to_target([10.0, 20.0], [math.nan, 0.9], target=0.8) == 20.0
    assert energy_to_target([], [], target=0.8) is None


@pytest.mark.parametrize(
    ("energies_j", "values", "message"),
    [
        ([1.0], [0.5, 0.6], "there are 1 energies and 2 values"),
        ([2.0, 1.0], [0.5, 0.6], r"energies_j is \[2\.0, 1\.0\]; it counts from the start"),
        ([-1.0], [0.5], "numbers of 0 or more that never fall"),
        ([math.nan], [0.5], "numbers of 0 or more that never fall"),
        ([1.0, math.inf], [0.5, 0.6], "numbers of 0 or more that never fall"),
    ],
)
def test_energies_that_are_none_are_refused(
    energies_j: list[float], values: list[float], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        energy_to_target(energies_j, values, target=0.5)
    with pytest.raises(ConfigurationError, match=message):
        median_energy_to_target([(energies_j, values)], target=0.5)


def test_runs_that_never_get_there_are_not_dropped() -> None:
    # Still below the target: 4/5 after 1 J; at 3 J there are 3 runs left, so 4/5 * 2/3 = 0.533;
    # at 5 J one is left, so 0. Without the runs that were stopped the median would be 3 J.
    runs = [reached(1.0), stopped(2.0), reached(3.0), stopped(4.0), reached(5.0)]
    found = median_energy_to_target(runs, target=1.0)
    assert (found.median_j, found.runs, found.reached) == (5.0, 5, 3)
    # Greenwood at 1 J: variance term 1 / (5 * 4); the lower end on the log(-log) scale is
    # 0.8 ** exp(1.96 * sqrt(0.05) / -log(0.8)) = 0.20, below a half, so the interval begins at 1 J.
    assert 0.8 ** math.exp(1.96 * math.sqrt(0.05) / -math.log(0.8)) < 0.5
    # At 3 J the upper end is still above a half, at 5 J there is none: the runs do not show it.
    term, share = 0.05 + 1 / (3 * 2), 0.8 * 2 / 3
    assert share ** math.exp(-1.96 * math.sqrt(term) / -math.log(share)) > 0.5
    assert found.interval_j == (1.0, None)


def test_it_gives_the_medians_and_intervals_that_the_books_give() -> None:
    treated = [*map(reached, TREATED), *map(stopped, STILL_WELL)]
    found = median_energy_to_target(treated, target=1.0)
    assert (found.median_j, found.interval_j) == (23.0, (13.0, None))
    found = median_energy_to_target([reached(float(weeks)) for weeks in UNTREATED], target=1.0)
    assert (found.median_j, found.interval_j) == (8.0, (4.0, 11.0))


def test_there_is_no_median_where_fewer_than_half_get_there() -> None:
    runs = [reached(1.0), reached(2.0), stopped(9.0), stopped(9.0), stopped(9.0)]
    found = median_energy_to_target(runs, target=1.0)
    assert (found.median_j, found.interval_j[1], found.reached) == (None, None, 2)


@pytest.mark.parametrize(("end", "median_j"), [(reached, 4.0), (stopped, None)])
def test_one_run_shows_no_interval(end: object, median_j: float | None) -> None:
    assert callable(end)
    found = median_energy_to_target([end(4.0)], target=1.0)
    assert (found.median_j, found.interval_j) == (median_j, (None, None))


@pytest.mark.parametrize("runs", [[], [([], [])], [reached(1.0), ([], [])]])
def test_without_a_measurement_it_is_refused(runs: list[Run]) -> None:
    with pytest.raises(ConfigurationError, match="no run, or one without a measurement"):
        median_energy_to_target(runs, target=1.0)


energies = st.integers(1, 50).map(float)


@given(st.lists(energies, min_size=1, max_size=12))
def test_where_all_get_there_it_is_the_lower_median(energies_j: list[float]) -> None:
    found = median_energy_to_target([reached(energy) for energy in energies_j], target=1.0)
    assert found.median_j == sorted(energies_j)[(len(energies_j) - 1) // 2]


@given(st.lists(st.tuples(energies, st.booleans()), min_size=1, max_size=12), energies)
def test_a_run_that_never_gets_there_never_lowers_the_median(
    ends: list[tuple[float, bool]], energy_j: float
) -> None:
    runs = [reached(energy) if there else stopped(energy) for energy, there in ends]
    before = median_energy_to_target(runs, target=1.0)
    after = median_energy_to_target([*runs, stopped(energy_j)], target=1.0)
    if before.median_j is None:
        assert after.median_j is None
    else:
        assert after.median_j is None or after.median_j >= before.median_j
    low_j, high_j = before.interval_j
    if low_j is not None and before.median_j is not None:
        assert low_j <= before.median_j
    if high_j is not None:
        assert before.median_j is not None
        assert before.median_j <= high_j
