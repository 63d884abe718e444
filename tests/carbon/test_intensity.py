"""Intensities and grams: half-open intervals, and 1 kWh at 400 g/kWh is 400 g."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greentrain.carbon import (
    CarbonAccount,
    CsvIntensity,
    IntensityProvider,
    Interval,
    StaticIntensity,
    mean_intensity,
)
from greentrain.energy import Reading, Window
from greentrain.errors import ConfigurationError

NOON = datetime(2021, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def csv_file(folder: Path, *rows: str, header: str = "datetime_utc,carbon_intensity") -> Path:
    path = folder / "intensity.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def series(tmp_path):
    rows = ["2021-07-01 12:00:00+00:00,100", "2021-07-01 13:00:00+00:00,300"]
    return CsvIntensity(csv_file(tmp_path, *rows), zone="DE")


def test_each_value_holds_until_the_next(series):
    first, second = series.history(NOON, NOON + 2 * HOUR)
    assert (first.start, first.end, first.g_per_kwh) == (NOON, NOON + HOUR, 100.0)
    assert (second.start, second.end, second.g_per_kwh) == (NOON + HOUR, NOON + 2 * HOUR, 300.0)
    assert [one.g_per_kwh for one in series.history(NOON + HOUR, NOON + 2 * HOUR)] == [300.0]
    assert isinstance(series, IntensityProvider)


@pytest.mark.parametrize(
    ("start", "end", "mean"),
    [
        (NOON, NOON + HOUR, 100.0),
        (NOON, NOON + 2 * HOUR, 200.0),
        (NOON + 0.5 * HOUR, NOON + 1.25 * HOUR, (0.5 * 100 + 0.25 * 300) / 0.75),
        (NOON + HOUR, NOON + HOUR, 300.0),  # a single moment belongs to what begins there
        (NOON + HOUR, NOON + HOUR - timedelta(seconds=20), 300.0),  # the clock was set back
        (NOON - HOUR, NOON + HOUR, None),  # not all of it is known
        (NOON + HOUR, NOON + 3 * HOUR, None),
        (NOON - 2 * HOUR, NOON - HOUR, None),
    ],
)
def test_means_are_weighted_by_time_and_known_only_if_all_of_it_is(series, start, end, mean):
    assert mean_intensity(series, start, end) == mean


def test_a_country_and_a_state_have_the_value_and_the_year_of_their_table():
    france = StaticIntensity("FR")
    assert StaticIntensity("fra").g_per_kwh == france.g_per_kwh
    assert 10 < france.g_per_kwh < 100  # mostly nuclear
    assert 300 < StaticIntensity("DE").g_per_kwh < 500
    assert 400 < StaticIntensity("PL").g_per_kwh < 900
    assert france.provenance.data_year >= 2022
    california = StaticIntensity("US-CA")
    assert california.provenance.basis == "direct"
    assert "eGRID" in california.provenance.source
    assert mean_intensity(france, NOON, NOON + HOUR) == france.g_per_kwh


def test_a_kilowatt_hour_at_400_grams_is_400_grams_and_pue_comes_on_top(tmp_path):
    rows = ["2021-07-01 12:00:00Z,400", "2021-07-01 13:00:00Z,400"]
    provider = CsvIntensity(csv_file(tmp_path, *rows), zone="DE")
    kwh_j = 3.6e6
    plain = CarbonAccount(intensity=provider).emissions(kwh_j, NOON, NOON + HOUR)
    assert (plain.grams, plain.intensity_g_per_kwh) == (400.0, 400.0)
    cooled = CarbonAccount(intensity=provider, pue=1.5).emissions(kwh_j, NOON, NOON + HOUR)
    assert cooled.grams == 600.0
    later = CarbonAccount(intensity=provider).emissions(kwh_j, NOON + 5 * HOUR, NOON + 6 * HOUR)
    assert (later.grams, later.intensity_g_per_kwh) == (None, None)
    unknown = CarbonAccount(intensity=provider).emissions(None, NOON, NOON + HOUR)
    assert (unknown.grams, unknown.intensity_g_per_kwh) == (None, 400.0)


def test_without_a_zone_there_are_no_grams():
    account = CarbonAccount(pue=1.2)
    assert account.emissions(3.6e6, NOON, NOON + HOUR).grams is None
    assert account.as_dict() == {
        "intensity": None,
        "pue": 1.2,
        "pue_source": "given by the user",
    }
    assert CarbonAccount().as_dict() is None


def test_a_pue_says_where_it_comes_from():
    account = CarbonAccount(pue=1.2, pue_source="the operator's report for 2025")
    assert account.as_dict()["pue_source"] == "the operator's report for 2025"
    with pytest.raises(ConfigurationError, match="there is no PUE; give pue too"):
        CarbonAccount(pue_source="the operator")


@pytest.mark.parametrize(
    ("energy_j", "grams"),
    [
        ({"gpu:0": 3.0e6, "cpu": 0.6e6}, 400.0),
        ({"gpu:0": 3.6e6, "cpu": None}, 400.0),  # those that are known
        ({"cpu": None}, None),
        ({}, None),
    ],
)
def test_a_window_has_the_grams_of_its_own_time(tmp_path, energy_j, grams):
    rows = ["2021-07-01 12:00:00Z,400", "2021-07-01 13:00:00Z,300"]
    provider = CsvIntensity(csv_file(tmp_path, *rows), zone="DE")
    window = Window(
        phase="fit",
        started=NOON,
        ended=NOON + HOUR,
        reading=Reading(duration_s=3600.0, energy_j=energy_j),
    )
    emissions = CarbonAccount(intensity=provider).of(window)
    assert (emissions.grams, emissions.intensity_g_per_kwh) == (grams, 400.0)


@pytest.mark.parametrize(
    "header",
    [
        "UTC time,carbon_intensity",
        "Time,Carbon Intensity",
        "datetime_utc,carbon_intensity_g_per_kwh",
    ],
)
def test_headers_seen_in_the_wild_are_read(tmp_path, header):
    rows = ["2021-07-01 12:00:00,100", "2021-07-01 13:00:00,300"]
    provider = CsvIntensity(csv_file(tmp_path, *rows, header=header), zone="X")
    assert mean_intensity(provider, NOON, NOON + HOUR) == 100.0


DIRECT = "Carbon intensity gCO₂eq/kWh (direct)"
LIFE_CYCLE = "Carbon intensity gCO₂eq/kWh (LCA)"


@pytest.mark.parametrize(
    ("columns", "given", "basis", "value"),
    [
        (DIRECT, None, "direct", 100.0),
        (DIRECT, "direct", "direct", 100.0),
        (LIFE_CYCLE, None, "life-cycle", 100.0),
        ("carbon_intensity", None, "life-cycle", 100.0),  # says nothing
        ("carbon_intensity", "direct", "direct", 100.0),
        (f"{DIRECT},{LIFE_CYCLE}", None, "life-cycle", 120.0),
        (f"{DIRECT},{LIFE_CYCLE}", "direct", "direct", 100.0),
    ],
)
def test_the_basis_follows_the_column(tmp_path, columns, given, basis, value):
    rows = ["2021-07-01 12:00,100,120", "2021-07-01 13:00,300,320"]
    if "," not in columns:
        rows = [row.rpartition(",")[0] for row in rows]
    file = csv_file(tmp_path, *rows, header=f"Datetime (UTC),{columns}")
    provider = CsvIntensity(file, zone="DE", basis=given)
    assert provider.provenance.basis == basis
    assert mean_intensity(provider, NOON, NOON + HOUR) == value


def test_a_column_of_another_basis_is_refused(tmp_path):
    rows = ["2021-07-01 12:00,100", "2021-07-01 13:00,300"]
    file = csv_file(tmp_path, *rows, header=f"Datetime (UTC),{DIRECT}")
    with pytest.raises(ConfigurationError, match=r"basis is 'life-cycle', .* \(direct\)'; omit"):
        CsvIntensity(file, zone="DE", basis="life-cycle")


@pytest.mark.skipif("GREENTRAIN_DATA" not in os.environ, reason="GREENTRAIN_DATA is not set")
def test_half_a_year_of_germany_is_read():
    path = Path(os.environ["GREENTRAIN_DATA"]) / "carbon" / "dacf_DE.csv"
    provider = CsvIntensity(path, zone="DE", basis="direct")
    start, end = datetime(2021, 7, 1, tzinfo=UTC), datetime(2021, 7, 1, 2, tzinfo=UTC)
    assert mean_intensity(provider, start, end) == pytest.approx((334.8 + 286.93) / 2)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["2021-07-01 12:00,1"], "two or more rows"),
        (["2021-07-01 12:00,1", "2021-07-01 12:00,2"], "do not increase, at line 3; write each"),
        (["2021-07-01 12:00,1", "yesterday,2"], "has 'yesterday' in the column 'dat"),
        (["2021-07-01 12:00,1", "2021-07-01 13:00,much"], "'much' in .*; write a number"),
        (["9999-12-31 22:00,1", "9999-12-31 23:00,2"], "beyond the year 9999; write the times"),
        (["2021-07-01 12:00,1", "2021-07-01 13:00,-5"], "0 or more"),
        (
            ["2021-07-01 12:00,1,", "2021-07-01 13:00,2,"],
            "line 2 of .* has 3 cell.* and its header 2",
        ),
        (["2021-07-01 12:00,1", "2021-07-01 13:00,2;"], "line 3 of .* has '2;' in the column"),
        (["2021-07-01 12:00;1", "2021-07-01 13:00;2"], "line 2 of .* has 1 cell"),
        (["2021-07-01 12:00,1", "", "2021-07-01 13:00"], "line 4 of .* has 1 cell"),
        (["2021-07-01 12:00,1", "2021-07-01 13:00,"], "line 3 of .* has '' in the column"),
    ],
)
def test_what_is_no_series_is_refused(tmp_path, rows, said):
    with pytest.raises(ConfigurationError, match=said):
        CsvIntensity(csv_file(tmp_path, *rows), zone="X")


def test_wrong_arguments_are_refused(tmp_path, series):
    with pytest.raises(ConfigurationError, match="does not exist"):
        CsvIntensity(tmp_path / "missing.csv", zone="X")
    with pytest.raises(ConfigurationError, match="no carbon intensity is known for the zone 'XX'"):
        StaticIntensity("XX")
    with pytest.raises(ConfigurationError, match="give one of them"):
        CarbonAccount(zone="DE", intensity=series)
    with pytest.raises(ConfigurationError, match=r"pue is 0\.9"):
        CarbonAccount(zone="DE", pue=0.9)
    with pytest.raises(ConfigurationError, match="naive"):
        series.history(datetime(2021, 7, 1), NOON)
    with pytest.raises(ConfigurationError, match="naive"):
        Interval(start=datetime(2021, 7, 1), end=NOON, g_per_kwh=1.0)
    with pytest.raises(ConfigurationError, match="not after its start"):
        Interval(start=NOON, end=NOON, g_per_kwh=1.0)


def test_marginal_intensity_is_not_for_reports(tmp_path):
    rows = ["2021-07-01 12:00,1", "2021-07-01 13:00,2"]
    provider = CsvIntensity(csv_file(tmp_path, *rows), zone="X", signal="marginal")
    with pytest.raises(ConfigurationError, match="may steer decisions only"):
        CarbonAccount(intensity=provider)


@pytest.mark.parametrize("two", ["2", "₂"])
def test_of_a_column_of_the_basis_and_one_without_the_first_is_read(
    tmp_path: Path, two: str
) -> None:
    path = tmp_path / "de.csv"
    path.write_text(
        f"datetime_utc,carbon_intensity,Carbon intensity gCO{two}eq/kWh (direct)\n"
        "2026-01-01T00:00Z,400,9\n2026-01-01T01:00Z,400,9\n",
        encoding="utf-8",
    )
    start = datetime(2026, 1, 1, tzinfo=UTC)
    direct = CsvIntensity(path, zone="DE", basis="direct")
    assert mean_intensity(direct, start, start) == 9.0
    assert direct.provenance.basis == "direct"
    assert mean_intensity(CsvIntensity(path, zone="DE"), start, start) == 400.0


def test_blank_rows_are_skipped(tmp_path):
    path = tmp_path / "de.csv"
    path.write_text(
        "datetime_utc,carbon_intensity\n2026-01-01T00:00Z,400\n   \n,\n\n"
        "2026-01-01T01:00Z,300\n , \n"
    )
    start = datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert mean_intensity(CsvIntensity(path, zone="DE"), start, start) == 300.0


@pytest.mark.parametrize("bounds", [{"low_g_per_kwh": 101.0}, {"high_g_per_kwh": 99.0}])
def test_a_value_outside_of_its_bounds_is_refused(bounds: dict[str, float]) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    with pytest.raises(ConfigurationError, match="100 g/kWh is not between its bounds"):
        Interval(start=noon, end=noon + timedelta(hours=1), g_per_kwh=100.0, **bounds)
