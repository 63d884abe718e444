from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.budget import Budget
from greentrain.carbon import Interval
from greentrain.errors import ConfigurationError
from greentrain.report.scope import moment
from greentrain.units import (
    BYTES_PER_UNIT,
    JOULES_PER_UNIT,
    energy_unit,
    format_carbon,
    format_energy,
    format_number,
    parse_bytes,
    parse_energy,
    uncertainty_j,
    utc_now,
    utc_text,
    wh,
)


@pytest.mark.parametrize(
    ("text", "energy_j"),
    [
        ("3600 J", 3600.0),
        ("1 Wh", 3600.0),
        ("0.5kWh", 1.8e6),
        ("  20   Wh ", 72e3),
        ("2 kwh", 7.2e6),
        ("1 WH", 3600.0),
        ("3 kj", 3000.0),
        ("1 MJ", 1e6),
        ("1 MWh", 3.6e9),
        ("1 MWH", 3.6e9),
        ("1e3 J", 1000.0),
        ("1_000 J", 1000.0),
        (".5 J", 0.5),
        ("+2 J", 2.0),
        ("0 J", 0.0),
        ("-1 Wh", -3600.0),
    ],
)
def test_reads_an_energy(text: str, energy_j: float) -> None:
    assert parse_energy(text) == energy_j


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("20", "a number with a unit is needed"),
        ("", "a number with a unit is needed"),
        ("Wh", "a number with a unit is needed"),
        ("nan J", "a number with a unit is needed"),
        ("20 parsecs", "the unit 'parsecs' is not known"),
        ("1 mJ", "the unit 'mJ' is not known"),
        ("1 mwh", "the unit 'mwh' is not known"),
        ("1 Wh Wh", "the unit 'Wh Wh' is not known"),
        ("1,5 kWh", "'1,5' is not a number"),
        ("1.2.3 J", "'1.2.3' is not a number"),
        (". J", "'.' is not a number"),
        ("1e400 J", "it is not finite"),
    ],
)
def test_says_why_an_energy_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match="energy") as caught:
        parse_energy(text)
    assert complaint in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.floats(min_value=0, max_value=1e12), st.sampled_from(sorted(JOULES_PER_UNIT)))
def test_reads_back_what_python_writes(value: float, unit: str) -> None:
    assert parse_energy(f"{value!r} {unit}") == value * JOULES_PER_UNIT[unit]


@given(st.text(max_size=20))
def test_any_text_is_an_energy_or_a_configuration_error(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert math.isfinite(parse_energy(text))


@pytest.mark.parametrize(
    ("energy_j", "text"),
    [
        (None, "unknown"),
        (0.0, "0 Wh"),
        (3600.0, "1 Wh"),
        (125.0, "125 J"),
        (3600.0 * 12.345, "12.3 Wh"),
        (3600.0 * 1000, "1 kWh"),
        (3600.0 * 123456, "123 kWh"),
        (-3600.0 * 2.5, "-2.5 Wh"),
        (3600.0 * 999.4, "999 Wh"),
        (3600.0 * 999.7, "1 kWh"),
        (3600.0 * 494016000.0, "494 MWh"),
        (3600.0 * 12345e6, "12,345 MWh"),
        (0.000026, "0.000026 J"),
        (1e-13, "0 J"),
    ],
)
def test_writes_energies_for_people(energy_j: float | None, text: str) -> None:
    assert format_energy(energy_j) == text


@pytest.mark.parametrize(
    ("carbon_g", "text"),
    [
        (None, "unknown"),
        (0.0, "0 g CO2e"),
        (0.0123, "12.3 mg CO2e"),
        (0.6, "0.6 g CO2e"),
        (12.345, "12.3 g CO2e"),
        (4e5, "400 kg CO2e"),
        (2.35e8, "235 t CO2e"),
        (-2.5, "-2.5 g CO2e"),
    ],
)
def test_writes_emissions_for_people(carbon_g: float | None, text: str) -> None:
    assert format_carbon(carbon_g) == text


@given(st.floats(-1e18, 1e18))
def test_no_quantity_has_an_exponent_or_more_than_a_few_digits(value: float) -> None:
    for text in (format_energy(value), format_energy(value, "kWh"), format_carbon(value)):
        assert "e" not in text.replace("CO2e", ""), text
    assert len(format_number(value / 1e15)) < 16


def test_a_column_of_energies_has_one_unit() -> None:
    assert [format_energy(one, energy_unit([125.0, 7200.0])) for one in (125.0, 7200.0)] == [
        "0.0347 Wh",
        "2 Wh",
    ]


def test_a_hundred_watts_for_36_seconds_are_one_watt_hour() -> None:
    assert wh(100.0 * 36.0) == 1.0


@pytest.mark.parametrize(
    ("energy_j", "shares", "expected"),
    [
        # One sensor: 10 % of 200 J.
        ({"cpu": 200.0}, {"cpu": 0.1}, 20.0),
        # Two independent ones: 30 J and 40 J add in quadrature to 50 J.
        ({"cpu": 100.0, "gpu:0": 1000.0}, {"cpu": 0.3, "gpu:0": 0.04}, 50.0),
        # A source that used nothing, or is unknown, adds no uncertainty.
        ({"cpu": 200.0, "gpu:0": 0.0, "ram": None}, {"cpu": 0.1}, 20.0),
        # A source with energy but no known uncertainty makes that of the sum unknown.
        ({"cpu": 200.0, "ram": 1.0}, {"cpu": 0.1}, None),
        ({"cpu": 200.0}, {"cpu": None}, None),
        ({}, {}, 0.0),
    ],
)
def test_uncertainties_of_sources_add_in_quadrature(
    energy_j: dict[str, float | None], shares: dict[str, float | None], expected: float | None
) -> None:
    assert uncertainty_j(energy_j, shares) == (
        expected if expected is None else pytest.approx(expected)
    )


def test_times_are_written_in_utc_to_the_microsecond() -> None:
    berlin = timezone(timedelta(hours=2))
    noon = datetime(2026, 6, 1, 12, 0, 0, 5, tzinfo=berlin)
    assert utc_text(noon) == "2026-06-01T10:00:00.000005+00:00"


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="naive"):
        utc_text(datetime(2026, 6, 1, 12))


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"], ids=["too early", "too late"]
)
def test_a_time_whose_utc_has_no_date_is_refused_everywhere(text: str) -> None:
    time = datetime.fromisoformat(text)
    later = time + timedelta(hours=1) if time.year == 1 else time.replace(tzinfo=UTC)
    with pytest.raises(ConfigurationError, match="outside of the years 1 to 9999"):
        utc_text(time)
    with pytest.raises(ConfigurationError, match="outside of the years 1 to 9999"):
        moment(text)
    with pytest.raises(ConfigurationError, match="outside of the years 1 to 9999"):
        Interval(start=time, end=later, g_per_kwh=1.0)
    with pytest.raises(ConfigurationError, match="outside of the years 1 to 9999"):
        Budget.parse("1 Wh", num_experiences=1, until=time)


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2))
def test_times_sort_as_their_texts_do(moments: list[datetime]) -> None:
    assert sorted(map(utc_text, moments)) == [utc_text(moment) for moment in sorted(moments)]


def test_now_is_aware() -> None:
    assert utc_now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("64 MiB", 67_108_864),
        ("1 KiB", 1024),
        ("1 kB", 1000),
        ("1.5 GB", 1_500_000_000),
        ("2TiB", 2_199_023_255_552),
        ("512 B", 512),
        ("0.3 KiB", 307),  # 307.2, rounded down
        ("0 B", 0),
        ("-1 MB", -1_000_000),
    ],
)
def test_reads_a_size_in_memory(text: str, nbytes: int) -> None:
    size = parse_bytes(text)
    assert (size, type(size)) == (nbytes, int)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("64", "a number with a unit is needed"),
        ("MiB", "a number with a unit is needed"),
        ("64 Mb", "the unit 'Mb' is not known"),
        ("64 mib", "the unit 'mib' is not known"),
        ("1,5 GB", "'1,5' is not a number"),
        ("1e400 B", "it is not finite"),
    ],
)
def test_says_why_a_size_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match="size") as caught:
        parse_bytes(text)
    assert complaint in str(caught.value)
    assert repr(text) in str(caught.value)


@given(st.integers(0, 10**6), st.sampled_from(sorted(BYTES_PER_UNIT)))
def test_reads_back_whole_sizes(value: int, unit: str) -> None:
    assert parse_bytes(f"{value} {unit}") == value * BYTES_PER_UNIT[unit]
