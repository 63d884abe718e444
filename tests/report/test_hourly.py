"""Energy and grams by the hour: shares of each window's own seconds, which sum to the totals."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.carbon import Emissions
from greentrain.report import build
from greentrain.report.hourly import Hours
from greentrain.report.times import with_times
from greentrain.units import utc_text
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


joules = st.none() | st.floats(0, 1e9)


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 2e5), joules, joules, st.booleans()), max_size=20
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
            }
            for started_s, duration_s, energy_j, grams, first in drawn
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
