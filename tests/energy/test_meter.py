from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.energy import NOTHING, ConstantMeter, Meter, Reading, Source
from greentrain.errors import ConfigurationError

# Whole joules and seconds, so that sums and differences are exact.
WHOLE = st.integers(0, 10**9).map(float)
NAMES = ("cpu", "gpu:0", "ram")


def at(duration_s: float, **energy_j: float | None) -> Reading:
    return Reading(duration_s=duration_s, energy_j=energy_j)


def windows(readings: list[Reading]) -> list[Reading]:
    return [later - earlier for earlier, later in itertools.pairwise(readings)]


readings = st.builds(
    Reading,
    duration_s=WHOLE,
    energy_j=st.fixed_dictionaries({name: WHOLE for name in NAMES}),
)
broken_readings = st.builds(
    Reading,
    duration_s=WHOLE,
    energy_j=st.fixed_dictionaries({name: st.none() | WHOLE for name in NAMES}),
)


def test_two_readings_subtract_to_a_window() -> None:
    window = at(41.0, cpu=4600.0) - at(5.0, cpu=1000.0)
    assert window == at(36.0, cpu=3600.0)
    assert (window.total_j, window.power_w, window.complete) == (3600.0, 100.0, True)


def test_disjoint_windows_add() -> None:
    assert at(2.0, cpu=30.0, ram=4.0) + at(3.0, cpu=50.0, ram=6.0) == at(5.0, cpu=80.0, ram=10.0)


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ({"cpu": 1.0}, {"cpu": None}, {"cpu": None}),
        ({"cpu": None}, {"cpu": 5.0}, {"cpu": None}),
        # Known at one end only: its share in this window is unknown.
        ({}, {"cpu": 5.0}, {"cpu": None}),
        ({"cpu": 5.0}, {}, {"cpu": None}),
        ({"cpu": 1.0, "ram": None}, {"cpu": 5.0, "ram": None}, {"cpu": 4.0, "ram": None}),
    ],
)
def test_what_is_unknown_at_an_end_is_unknown_in_the_window(
    earlier: dict[str, Any], later: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert at(3.0, **later) - at(1.0, **earlier) == at(2.0, **expected)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"cpu": 1.0}, {"cpu": None}, {"cpu": None}),
        ({"cpu": 1.0}, {"ram": 2.0}, {"cpu": 1.0, "ram": 2.0}),
        ({"cpu": 1.0}, {"ram": None}, {"cpu": 1.0, "ram": None}),
    ],
)
def test_what_is_unknown_in_a_window_is_unknown_in_the_sum(
    one: dict[str, Any], other: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert at(1.0, **one) + at(1.0, **other) == at(2.0, **expected)
    assert at(1.0, **other) + at(1.0, **one) == at(2.0, **expected)


@pytest.mark.parametrize(
    ("energy_j", "total_j", "complete"),
    [
        ({}, None, False),
        ({"cpu": None}, None, False),
        ({"cpu": 5.0, "ram": None}, 5.0, False),
        ({"cpu": 5.0, "ram": 0.0}, 5.0, True),
    ],
)
def test_the_total_is_of_what_is_known(
    energy_j: dict[str, Any], total_j: float | None, complete: bool
) -> None:
    reading = at(1.0, **energy_j)
    assert (reading.total_j, reading.complete) == (total_j, complete)


@pytest.mark.parametrize("reading", [at(0.0, cpu=5.0), at(2.0, cpu=None), NOTHING])
def test_power_is_unknown_without_joules_or_seconds(reading: Reading) -> None:
    assert reading.power_w is None


@given(st.lists(readings, min_size=2))
def test_windows_sum_to_last_minus_first(sequence: list[Reading]) -> None:
    assert functools.reduce(operator.add, windows(sequence)) == sequence[-1] - sequence[0]


@given(st.lists(broken_readings, min_size=2))
def test_a_source_unknown_at_any_edge_is_unknown_in_the_sum(sequence: list[Reading]) -> None:
    total = functools.reduce(operator.add, windows(sequence))
    for name in NAMES:
        cells = [reading.energy_j[name] for reading in sequence]
        known = None not in cells
        assert total.energy_j[name] == (cells[-1] - cells[0] if known else None)  # type: ignore[operator]


@given(broken_readings)
def test_nothing_is_the_zero_of_addition(reading: Reading) -> None:
    assert NOTHING + reading == reading == reading + NOTHING


@given(broken_readings, broken_readings, broken_readings)
def test_addition_is_associative_and_commutative(a: Reading, b: Reading, c: Reading) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"name": ""}, "name is empty"),
        ({"method": "guessed"}, "method='guessed'; allowed are counter, sampled, estimated, given"),
        ({"relative_uncertainty": -0.1}, "relative_uncertainty=-0.1"),
        ({"relative_uncertainty": float("nan")}, "relative_uncertainty=nan"),
        ({"lag_s": -0.1}, "lag_s=-0.1; it must be in seconds, 0 or more"),
        ({"lag_s": float("inf")}, "lag_s=inf"),
        ({"relative_uncertainty": float("inf")}, "relative_uncertainty=inf"),
    ],
)
def test_a_source_says_what_is_wrong_with_it(wrong: dict[str, Any], complaint: str) -> None:
    right: dict[str, Any] = {"name": "cpu", "method": "counter", "relative_uncertainty": 0.05}
    with pytest.raises(ConfigurationError) as caught:
        Source(**{**right, **wrong})
    assert complaint in str(caught.value)


@pytest.mark.parametrize("method", ["counter", "sampled", "estimated", "given"])
def test_a_source_says_how_it_is_obtained(method: Any) -> None:
    source = Source(name="gpu:0", method=method, relative_uncertainty=None)
    assert (source.method, source.relative_uncertainty) == (method, None)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        at(1.0, cpu=2.0).duration_s = 3.0  # type: ignore[misc]


def test_a_meter_is_known_by_what_it_does() -> None:
    assert isinstance(ConstantMeter(), Meter)
    assert not isinstance(object(), Meter)
