"""A sum is exact in any order, and forged values end it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.report.sums import Sum


def sum_of(values: list[float]) -> Sum:
    found = Sum()
    for value in values:
        found.add(value)
    found.compress()
    return found


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=200))
def test_a_compressed_sum_is_rounded_once(values: list[float]) -> None:
    assert sum_of(values).total == math.fsum(values)


@pytest.mark.parametrize(
    ("forged", "total"),
    [
        ([1.0, math.inf], math.inf),
        ([math.nan, 1.0], math.nan),
        ([math.inf, -math.inf], math.nan),
        ([1e308] * 3, math.nan),
    ],
)
def test_forged_values_end_with_a_sum_too(forged: list[float], total: float) -> None:
    found = sum_of(forged * 40)
    assert found.total == pytest.approx(total, nan_ok=True)
    assert found.number == pytest.approx(total, nan_ok=True)
