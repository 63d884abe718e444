"""A time in any zone means the same moment: changes of daylight saving change no gram."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.carbon import CarbonAccount, CsvIntensity, Interval
from greentrain.carbon.intensity import mean_intensity

BEGAN = datetime(2026, 3, 28, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")


@pytest.fixture
def series(tmp_path):
    rows = [f"{(BEGAN + timedelta(hours=n)).isoformat()},{100 + n}" for n in range(72)]
    path = tmp_path / "de.csv"
    path.write_text("\n".join(["datetime_utc,carbon_intensity", *rows]), encoding="utf-8")
    return CsvIntensity(path, zone="DE")


@pytest.mark.parametrize(
    ("zone", "start", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 0, 30, tzinfo=UTC), 1),  # 1:30 to 3:30 local time
        ("Europe/Berlin", datetime(2026, 3, 28, 22, 0, tzinfo=UTC), 12),
        ("Europe/London", datetime(2026, 3, 29, 0, 15, tzinfo=UTC), 3),
        ("Europe/Berlin", datetime(2026, 3, 29, 0, 59, tzinfo=UTC), 0.05),
        ("Pacific/Chatham", datetime(2026, 3, 28, 9, 0, tzinfo=UTC), 24),
        ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC), 0),
    ],
)
def test_a_window_across_the_change_has_the_grams_of_utc(series, zone, start, hours):
    account, end = CarbonAccount(intensity=series), start + timedelta(hours=hours)
    local = ZoneInfo(zone)
    in_utc = account.emissions(3.6e6, start, end)
    assert in_utc.grams is not None
    assert account.emissions(3.6e6, start.astimezone(local), end.astimezone(local)) == in_utc
    assert account.upper_g_per_j(start.astimezone(local)) == account.upper_g_per_j(start)


def test_the_hour_that_comes_twice_is_two_hours():
    berlin = ZoneInfo("Europe/Berlin")
    twice = datetime(2026, 10, 25, 2, 0, tzinfo=berlin)
    later = twice.replace(fold=1)
    one = Interval(start=twice, end=later, g_per_kwh=100.0)
    assert one.end - one.start == timedelta(hours=1)

    class Provider:
        def history(self, start, end):
            return [one, Interval(start=later, end=later + timedelta(hours=1), g_per_kwh=300.0)]

    assert mean_intensity(Provider(), twice, later.replace(hour=3, fold=0)) == 200.0


@given(
    st.integers(0, 60 * 60), st.integers(0, 10 * 60), st.sampled_from(ZONES), st.sampled_from(ZONES)
)
def test_any_two_zones_agree(start_min, minutes, one, other):
    class Hourly:
        def history(self, start, end):
            return [
                Interval(
                    start=(BEGAN + timedelta(hours=n)).astimezone(ZoneInfo(other)),
                    end=(BEGAN + timedelta(hours=n + 1)).astimezone(ZoneInfo(other)),
                    g_per_kwh=100.0 + n,
                )
                for n in range(72)
            ]

    start = BEGAN + timedelta(minutes=start_min)
    end = start + timedelta(minutes=minutes)
    local = ZoneInfo(one)
    mean = mean_intensity(Hourly(), start, end)
    assert mean is not None
    assert mean_intensity(Hourly(), start.astimezone(local), end.astimezone(local)) == mean
