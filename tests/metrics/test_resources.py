from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from greentrain.errors import ConfigurationError
from greentrain.metrics import ResourceUse, Slope, frugality_score, resource_slopes, slope


def test_a_slope_by_hand() -> None:
    # Around the means 1 and 7/3: Sxy = 3, Sxx = 2, so 1.5. Residuals 1/6, -1/3, 1/6, squared 1/6;
    # one degree of freedom, so the standard error is sqrt(1/6 / 2), times t = 12.706.
    found = slope([1.0, 2.0, 4.0])
    assert found.per_experience == pytest.approx(1.5)
    half = 12.7062 * math.sqrt(1 / 12)
    assert found.interval == pytest.approx((1.5 - half, 1.5 + half), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Slope(per_experience=None, interval=None)),
        ([7.0], Slope(per_experience=None, interval=None)),
        ([None, 7.0, None], Slope(per_experience=None, interval=None)),
        ([7.0, 9.0], Slope(per_experience=2.0, interval=None)),
        # An unknown value keeps its place: two experiences lie between 7 and 11.
        ([7.0, None, 11.0], Slope(per_experience=2.0, interval=None)),
        ([0.1] * 50, Slope(per_experience=0.0, interval=(0.0, 0.0))),
        ([2**40] * 3, Slope(per_experience=0.0, interval=(0.0, 0.0))),
    ],
)
def test_slopes_of_few_and_of_constant_values(values: list[float | None], expected: Slope) -> None:
    assert slope(values) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_slope_of_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ConfigurationError, match="each is a finite number or None"):
        slope([1.0, value])


@given(st.lists(st.none() | st.integers(-(10**6), 10**6), min_size=3, max_size=30))
def test_the_slope_is_that_of_scipy(values: list[int | None]) -> None:
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    # For a constant scipy gives no standard error.
    assume(len(known) >= 3 and len({value for _, value in known}) > 1)
    reference = stats.linregress(*zip(*known, strict=True))
    half = stats.t.ppf(0.975, len(known) - 2) * reference.stderr
    found = slope(values)
    assert found.per_experience == pytest.approx(reference.slope, rel=1e-9, abs=1e-6)
    # scipy takes the error from the correlation, which is all rounding near a perfect line.
    assert found.interval == pytest.approx(
        (reference.slope - half, reference.slope + half), rel=1e-5, abs=1.0
    )


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(3, 30))
def test_a_line_has_its_slope_and_no_doubt(start: int, step: int, count: int) -> None:
    found = slope([start + step * at for at in range(count)])
    assert found.per_experience == pytest.approx(step)
    assert found.interval == pytest.approx((step, step))


def test_each_resource_has_its_slope() -> None:
    uses = [
        ResourceUse(samples=100, labels=10 * at, memory_bytes=64, energy_j=None if at else 5.0)
        for at in range(4)
    ]
    found = resource_slopes(uses)
    assert list(found) == ["samples", "labels", "memory_bytes", "energy_j"]
    assert found["samples"].interval == (0.0, 0.0)
    assert found["labels"].per_experience == pytest.approx(10.0)
    assert found["memory_bytes"].interval == (0.0, 0.0)
    assert found["energy_j"] == Slope(per_experience=None, interval=None)


@pytest.mark.parametrize(
    ("name", "value"), [("samples", -1), ("labels", math.inf), ("energy_j", math.nan)]
)
def test_a_use_that_is_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} is {value}; it must be a finite number"):
        ResourceUse(**{name: value})


def test_frugality_by_hand() -> None:
    # R = 30 J / 10 J = 3; 0.9 - 0.2 * 3 / 4.
    assert frugality_score(0.9, 30.0, scale=10.0, weight=0.2) == pytest.approx(0.75)
    assert frugality_score(0.9, 0.0, scale=10.0, weight=0.2) == 0.9
    assert frugality_score(0.9, 30.0, scale=10.0, weight=0.0) == 0.9


amounts = st.floats(1e-3, 1e9)


@given(st.floats(0, 1), amounts, amounts, st.floats(0, 10))
def test_frugality_is_the_papers_formula_in_any_unit(
    performance: float, resource: float, scale: float, weight: float
) -> None:
    score = frugality_score(performance, resource, scale=scale, weight=weight)
    assert score == pytest.approx(performance - weight / (1 + 1 / (resource / scale)))
    in_wh = frugality_score(performance, resource / 3600, scale=scale / 3600, weight=weight)
    assert in_wh == pytest.approx(score)
    assert performance - weight <= score <= performance


def test_frugality_holds_at_the_ends_of_the_numbers() -> None:
    assert frugality_score(0.9, 1e300, scale=1e-300, weight=0.5) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": 0.0}, r"scale is 0\.0; it must be an amount of the resource, above 0"),
        ({"scale": -1.0}, r"scale is -1\.0; it must be an amount of the resource, above 0"),
        ({"weight": -0.1}, r"weight is -0\.1; it must be 0 or more"),
        ({"resource": -2.0}, r"resource is -2\.0; it must be 0 or more"),
        ({"performance": math.nan}, r"performance is nan; it must be a finite number"),
        ({"resource": math.inf}, r"resource is inf; it must be a finite number"),
        ({"scale": math.inf}, r"scale is inf; it must be a finite number"),
        ({"weight": math.nan}, r"weight is nan; it must be a finite number"),
    ],
)
def test_wrong_terms_are_refused(wrong: dict[str, float], message: str) -> None:
    terms = {"performance": 0.9, "resource": 1.0, "scale": 1.0, "weight": 0.5, **wrong}
    performance, resource = terms.pop("performance"), terms.pop("resource")
    with pytest.raises(ConfigurationError, match=message):
        frugality_score(performance, resource, **terms)
