"""Energy and grams by the hour: shares of each window's own seconds, which sum to the totals."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.carbon import CarbonAccount, Emissions, Interval, Provenance
from greentrain.ledger.events import window_content
from greentrain.report import build
from greentrain.report.hourly import Hours
from greentrain.report.times import with_times
from greentrain.units import utc_text
from tests.ledger.events import window as drawn
from tests.report.ledgers import SOURCES, STARTED, window

ZERO = datetime(2026, 1, 1, tzinfo=UTC)


def hours(report):
    return {one["hour_utc"]: (one["energy_j"], one["carbon_g"]) for one in report["hourly"]}


def test_a_window_over_two_hours_is_shared_by_its_time(ledger):
    with ledger.open_run("fit", "model", sources=SOURCES) as run:
        # From 12:59:40 to 13:01:40, a sixth of it before one o'clock.
        window(
            run,
            1200.0,
            600.0,
            duration_s=120.0,
            started=STARTED + timedelta(minutes=59, seconds=40),
            emissions=Emissions(grams=0.6, intensity_g_per_kwh=1200.0),
        )
        window(run, 100.0, None, duration_s=1.0, started=STARTED + timedelta(hours=3))
    assert hours(build(ledger)) == {
        "2026-11-21T12:00:00Z": (300.0, pytest.approx(0.1)),
        "2026-11-21T13:00:00Z": (1500.0, pytest.approx(0.5)),
        "2026-11-21T15:00:00Z": (100.0, None),
    }


def test_what_ends_on_the_hour_is_all_before_it_and_what_takes_no_time_is_in_its_own(ledger):
    with ledger.open_run("fit", "model") as run:
        window(run, 60.0, 0.0, duration_s=60.0, started=STARTED - timedelta(seconds=60))
        window(run, 5.0, None, duration_s=0.0, started=STARTED + timedelta(hours=1))
        window(run, None, None, duration_s=9.0, started=STARTED + timedelta(hours=2))
    assert hours(build(ledger)) == {
        "2026-11-21T11:00:00Z": (60.0, None),
        "2026-11-21T13:00:00Z": (5.0, None),
        "2026-11-21T14:00:00Z": (None, None),
    }


def test_a_phase_around_others_is_drawn_when_they_were_not(ledger):
    with ledger.open_run("fit", "model") as run:
        # Of the fit's ten seconds half are before an epoch of five hours, and half after it.
        window(run, 1.0, 0.0, duration_s=5 * 3600.0, started=STARTED + timedelta(seconds=5))
        window(run, 1000.0, 0.0, duration_s=10.0, phase="fit")
    joules = {hour: energy_j for hour, (energy_j, _) in hours(build(ledger)).items()}
    assert joules["2026-11-21T12:00:00Z"] == pytest.approx(500.0 + 3595 / 18000)
    assert joules["2026-11-21T17:00:00Z"] == pytest.approx(500.0 + 5 / 18000)


def test_overlapping_runs_are_in_each_hour_once(ledger):
    for _ in range(2):
        with ledger.open_run("fit", "model", sources=SOURCES) as run:
            window(run, 3600.0, 1800.0)
    report = build(ledger)
    assert hours(report) == {"2026-11-21T12:00:00Z": (5400.0, None)}
    assert report["totals"]["energy_j"] == 5400.0


class Series:
    """Grams per kWh of consecutive steps from noon on, and before it."""

    provenance = Provenance(source="a test", zone="DE", data_year=None)

    def __init__(self, *values: float, first: datetime = STARTED, step=timedelta(hours=1)) -> None:
        self.intervals = [
            Interval(start=first + n * step, end=first + (n + 1) * step, g_per_kwh=value)
            for n, value in enumerate(values)
        ]

    def history(self, start: datetime, end: datetime) -> list[Interval]:
        return [one for one in self.intervals if one.end > start and one.start < end]


def used(ledger, series, *spans, pue=1.5, beat=False):
    """Return the grams of each hour, of windows of 1 kW that begin some hours after the first."""
    account = CarbonAccount(intensity=series, pue=pue)
    run = ledger.open_run("fit", "model", sources=SOURCES)
    for after, hours_long, phase in spans:
        one = drawn(
            phase,
            started=STARTED + timedelta(hours=after),
            duration_s=3600.0 * hours_long,
            by_source={"gpu:0": 3.6e6 * hours_long},
        )
        if beat:
            run.append("heartbeat", **window_content(run.run_id, one, account.of(one)))
        else:
            run.record(one, account.of(one))
    if not beat:
        run.close()
    run.flush()
    report = build(ledger)
    found = {one["hour_utc"]: one["carbon_g"] for one in report["hourly"]}
    assert math.fsum(found.values()) == pytest.approx(report["carbon"]["emissions_g"])
    return {hour[5:13]: grams for hour, grams in found.items()}


TWO_HOURS = (0.5, 2.0, "train_epoch")
"""From half past twelve to half past two."""


def test_grams_are_shared_by_the_intensity_of_each_hour(ledger):
    # Half a kWh at 100 g, one at 200 and half a one at 400, each times 1.5.
    assert used(ledger, Series(100, 200, 400), TWO_HOURS) == pytest.approx(
        {"11-21T12": 75.0, "11-21T13": 300.0, "11-21T14": 300.0}
    )


def test_grams_of_several_windows_add_up(ledger):
    found = used(ledger, Series(100, 200, 400, 800), TWO_HOURS, (2.5, 1.0, "validation"))
    assert found == pytest.approx(
        {"11-21T12": 75.0, "11-21T13": 300.0, "11-21T14": 600.0, "11-21T15": 600.0}
    )


def test_a_window_across_midnight(ledger):
    series = Series(100, 200, 400, first=STARTED + timedelta(hours=11))
    assert used(ledger, series, (11.5, 2.0, "train_epoch")) == pytest.approx(
        {"11-21T23": 75.0, "11-22T00": 300.0, "11-22T01": 300.0}
    )


def test_without_a_pue(ledger):
    assert used(ledger, Series(100, 200, 400), TWO_HOURS, pue=1.0) == pytest.approx(
        {"11-21T12": 50.0, "11-21T13": 200.0, "11-21T14": 200.0}
    )


def test_a_window_across_the_end_of_a_month(ledger):
    after = (datetime(2026, 11, 30, 23, tzinfo=UTC) - STARTED) / timedelta(hours=1)
    series = Series(100, 200, 400, first=datetime(2026, 11, 30, 23, tzinfo=UTC))
    assert used(ledger, series, (after + 0.5, 2.0, "train_epoch")) == pytest.approx(
        {"11-30T23": 75.0, "12-01T00": 300.0, "12-01T01": 300.0}
    )


def test_the_last_heartbeat_of_a_killed_run(ledger):
    found = used(
        ledger, Series(100, 200, 400), (0.5, 1.0, "fit"), (*TWO_HOURS[:2], "fit"), beat=True
    )
    assert found == pytest.approx({"11-21T12": 75.0, "11-21T13": 300.0, "11-21T14": 300.0})


def test_quarters_of_an_hour_and_a_start_within_one(ledger):
    quarters = Series(*range(100, 900, 100), step=timedelta(minutes=15))
    # 12:30 to 13:30: means of 300 and 400, then of 500 and 600.
    assert used(ledger, quarters, (0.5, 1.0, "train_epoch"), pue=1.0) == pytest.approx(
        {"11-21T12": 175.0, "11-21T13": 275.0}
    )


def test_hours_without_emissions_of_the_grid(ledger):
    assert used(ledger, Series(0, 0, 0), TWO_HOURS) == {
        "11-21T12": 0.0,
        "11-21T13": 0.0,
        "11-21T14": 0.0,
    }


@pytest.mark.parametrize(
    ("series", "hours_long", "by_hour"),
    [
        (Series(100, 200, 400), 2.5, "[100.0,200.0,400.0]"),
        (Series(100, 100, 100), 2.5, None),
        (Series(100, 200), 0.5, None),
        (Series(100, 200), 2.5, None),  # the last half hour is unknown
        (Series(*range(1, 800)), 750, None),  # more than a month
        (Series(), 2.5, None),
    ],
)
def test_a_split_is_recorded_only_where_the_intensity_changes(series, hours_long, by_hour):
    one = drawn(started=STARTED, duration_s=3600.0 * hours_long, by_source={"gpu:0": 1.0})
    one = dataclasses.replace(one, ended=STARTED + timedelta(hours=hours_long))
    emissions = CarbonAccount(intensity=series).of(one)
    assert window_content("run", one, emissions)["intensity_by_hour"] == by_hour


joules = st.none() | st.floats(0, 1e9)


@given(
    st.lists(
        st.tuples(
            *(st.floats(0, 1e6), st.floats(0, 2e5), joules, joules, st.booleans()),
            st.sampled_from(
                [None, "", "[]", "no list", '[1, "a"]', "[0, 0]", "[-1, 2]", "[3, 0, 5.5]"]
            ),
        ),
        max_size=20,
    )
)
def test_the_hours_sum_to_the_windows(drawn):
    windows = with_times(
        [
            {
                "run_id": "a" if first else "b",
                "started_utc": utc_text(ZERO + timedelta(seconds=started_s)),
                "duration_s": duration_s,
                "energy_j": energy_j,
                "emissions_g": grams,
                "intensity_by_hour": by_hour,
            }
            for started_s, duration_s, energy_j, grams, first, by_hour in drawn
        ]
    )
    hours = Hours()
    hours.add_all(windows)
    listed = hours.figures()
    for key, name in (("energy_j", "energy_j"), ("carbon_g", "emissions_g")):
        known = [one[name] for one in windows if one[name] is not None]
        summed = [one[key] for one in listed if one[key] is not None]
        assert bool(known) == bool(summed)
        assert math.fsum(summed) == pytest.approx(math.fsum(known), rel=1e-9, abs=1e-300)
    assert [one["hour_utc"] for one in listed] == sorted({one["hour_utc"] for one in listed})
