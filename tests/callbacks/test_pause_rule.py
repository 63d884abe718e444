"""Pausing saves more than it costs, and never misses the deadline."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.callbacks.deadline import parse_deadline
from greentrain.callbacks.pause_rule import PauseCosts, Shifted, choose, persisted
from greentrain.errors import ConfigurationError

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hours(*values: float | None, start: datetime = NOON) -> list[Shifted]:
    return [
        Shifted(start + number * HOUR, start + (number + 1) * HOUR, value)
        for number, value in enumerate(values)
    ]


def chosen(forecast, **options):
    given = {
        "state": "running",
        "work_s": 7200.0,
        "deadline": NOON + 12 * HOUR,
        "costs": PauseCosts(),
        "min_saving": 0.05,
        "margin": 0.0,
    }
    return choose(NOON, forecast, **{**given, **options})


def test_a_pause_waits_for_the_cleanest_window():
    choice = chosen(hours(*[400.0] * 6, 100.0, 100.0, *[400.0] * 4))
    assert choice.wait
    assert choice.until == NOON + 6 * HOUR
    # 2 hours of 1 W: 2 Wh at 400 g/kWh now, and at 100 g/kWh later.
    assert choice.now_g == pytest.approx(0.8)
    assert choice.later_g == pytest.approx(0.2)
    assert "saves 75% of the rest" in choice.reason


@pytest.mark.parametrize(
    ("costs", "waits"),
    [
        # 2 Wh at 100 g/kWh instead of 400 g/kWh save 0.6 g.
        (PauseCosts(idle_w=0.2), True),  # 6 h at 0.2 W and 400 g/kWh: 0.48 g
        (PauseCosts(idle_w=0.3), False),  # 0.72 g
        (PauseCosts(pause_j=900.0, restart_s=60.0), True),  # 0.25 Wh more, at 400 g/kWh
        (PauseCosts(pause_j=3600.0, restart_s=60.0), False),  # it saves less than 2.5 times that
        (PauseCosts(power_w=10.0, pause_j=3600.0), True),  # the same at ten times the power
    ],
)
def test_what_a_pause_costs_is_part_of_the_decision(costs, waits):
    forecast = hours(*[400.0] * 6, 100.0, 100.0, *[400.0] * 4)
    assert chosen(forecast, costs=costs).wait is waits


def test_a_new_pause_has_to_save_more_than_a_longer_wait():
    forecast = hours(*[100.0] * 6, *[97.0] * 6)
    assert not chosen(forecast).wait
    assert chosen(forecast, min_saving=0.02).wait
    assert chosen(forecast, state="paused").wait
    assert chosen(forecast, state="new").wait


@pytest.mark.parametrize(
    "forecast",
    [
        [],
        hours(*[math.nan] * 12),
        hours(*[None] * 12),
        hours(*[-5.0] * 12),
        hours(400.0, 400.0, 100.0),  # less than half
        hours(*[100.0] * 12, start=NOON + HOUR),  # the present is unknown
        hours(*[400.0] * 12, start=NOON - 24 * HOUR),  # it ended hours ago
    ],
)
def test_without_a_usable_forecast_it_runs(forecast):
    choice = chosen(forecast, state="paused")
    assert not choice.wait
    assert choice.now_g is None
    assert "no forecast" in choice.reason


def test_a_gap_has_the_mean():
    forecast = [*hours(400.0, 400.0, 400.0), *hours(100.0, *[400.0] * 4, start=NOON + 7 * HOUR)]
    assert chosen(forecast, work_s=3600.0).until == NOON + 7 * HOUR


def test_it_runs_at_the_latest_start():
    cleaner = hours(*range(500, 260, -20))
    late = chosen(cleaner, margin=0.5, state="paused", costs=PauseCosts(restart_s=1800.0))
    assert late.latest == late.until == NOON + 8.5 * HOUR  # 12 h - 3 h - 30 min
    assert not chosen(cleaner, deadline=NOON + 2 * HOUR).wait
    assert not chosen(cleaner, deadline=NOON - HOUR).wait


@given(
    values=st.lists(st.one_of(st.none(), st.floats(allow_nan=True)), max_size=40),
    lag_h=st.integers(-30, 10),
    work_h=st.floats(0.1, 8.0),
    slack_h=st.floats(0.0, 30.0),
    restart_s=st.floats(0.0, 1800.0),
    pause_s=st.floats(0.0, 1800.0),
)
def test_no_forecast_misses_a_deadline(values, lag_h, work_h, slack_h, restart_s, pause_s):
    """Each pause takes its own restart; the work is as long as estimated."""
    forecast, now = hours(*values, start=NOON + lag_h * HOUR), NOON
    deadline = NOON + timedelta(hours=work_h + slack_h)
    costs = PauseCosts(pause_j=pause_s, restart_s=restart_s)
    left_s, state = work_h * 3600.0, "new"
    for _ in range(200):
        choice = choose(
            now,
            forecast,
            state=state,
            work_s=left_s,
            deadline=deadline,
            costs=costs if state != "new" else PauseCosts(),
            min_saving=0.0,
            margin=0.0,
        )
        if choice.wait:
            state = "new" if state == "new" else "paused"
            now = max(choice.until, now)
            continue
        now += timedelta(seconds=restart_s if state == "paused" else 0.0)
        state, part_s = "running", min(left_s, 1800.0)
        now, left_s = now + timedelta(seconds=part_s), left_s - part_s
        if left_s <= 0:
            break
    assert left_s <= 0
    assert now <= deadline + timedelta(seconds=1)


def test_the_last_day_is_expected_again():
    day = hours(*range(24), start=NOON - 24 * HOUR)
    expected = persisted(day, NOON, 30 * HOUR)
    at = {one.start: one.g_per_kwh for one in expected}
    assert at[NOON] == 0
    assert at[NOON + 23 * HOUR] == 23
    assert at[NOON + 25 * HOUR] == 1
    assert persisted(hours(5.0), NOON, 30 * HOUR) == []  # of the future


ZONE = timezone(timedelta(hours=5))


@pytest.mark.parametrize(
    ("deadline", "expected"),
    [
        ("06:00", "2026-12-02T01:00+00:00"),
        ("18:30", "2026-12-01T13:30+00:00"),
        ("17:00", "2026-12-02T12:00+00:00"),  # now
        ("2026-12-01T18:00+01:00", "2026-12-01T17:00+00:00"),
        (NOON + HOUR, "2026-12-01T13:00+00:00"),
    ],
)
def test_deadlines(deadline, expected):
    now = NOON.astimezone(ZONE)
    assert parse_deadline(deadline, now, "deadline") == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("deadline", "message"),
    [
        ("6 am", "deadline='6 am' is no time; give a time of day such as '06:00'"),
        ("25:00", "deadline='25:00' is no time"),
        (6, "deadline=6 is no time"),
        ("2026-12-02T06:00", "has no time zone; add it, such as '2026-12-02T06:00:00.00:00'"),
        (NOON.replace(tzinfo=None), "has no time zone"),
        ("2026-12-01T11:00Z", "is in the past; now it is 2026-12-01T12:00:00.00:00"),
    ],
)
def test_bad_deadlines_get_one_sentence(deadline, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_deadline(deadline, NOON, "deadline")


def test_deadlines_are_compared_in_utc():
    """In Berlin, 02:10 comes twice on 25 October 2026; the second one is an hour later."""
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)
    second = datetime(2026, 10, 25, 2, 10, tzinfo=berlin, fold=1)
    assert parse_deadline(second, first, "deadline") == datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    with pytest.raises(ConfigurationError, match="is in the past"):
        parse_deadline(first, second, "deadline")


def test_no_start_beyond_the_longest_forecast_is_compared():
    falling = hours(*[1000.0 - hour for hour in range(24 * 20)])
    choice = chosen(falling, deadline=NOON + timedelta(days=3650))
    assert choice.wait
    assert choice.until == NOON + timedelta(days=7)
