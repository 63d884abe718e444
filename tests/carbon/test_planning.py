"""Plans: exact against all possibilities, in time for every forecast, and corrected by errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentrain.carbon import CsvIntensity, Interval, StaticIntensity
from greentrain.carbon.correction import coming_errors, corrected_forecast, past_errors
from greentrain.carbon.planning import State, best_steps, plan, step_means
from greentrain.carbon.schedule import Work, propose, review
from greentrain.errors import ConfigurationError, IntensityError

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def hours(*values: float, start: datetime = NOON) -> list[Interval]:
    return [
        Interval(start=start + n * HOUR, end=start + (n + 1) * HOUR, g_per_kwh=value)
        for n, value in enumerate(values)
    ]


def cost(values: Any, segments: Sequence[tuple[int, int]], pause: float, state: State) -> float:
    """The cost of segments: all of their steps, and only a part of the last one of a resume."""
    wait, total = math.ceil(pause), 0.0
    for number, (first, last) in enumerate(segments):
        total += sum(values[first:last])
        if wait and (number or state == "paused" or (state == "running" and first > 0)):
            total -= (wait - pause) * values[first + wait - 1]
    return total


def cheapest(values: Any, work: int, pause: float, state: State) -> float:
    """The least cost of all choices of steps."""
    best, wait = math.inf, math.ceil(pause)
    for chosen in itertools.combinations(range(len(values)), work):
        segments: list[tuple[int, int]] = []
        for step in chosen:
            if segments and segments[-1][1] == step:
                segments[-1] = segments[-1][0], step + 1
            else:
                segments.append((step, step + 1))
        free = 0 if state == "paused" or (state == "running" and segments[0][0] > 0) else 1
        resumed = [(a - wait, b) if n >= free else (a, b) for n, (a, b) in enumerate(segments)]
        ends = [0, *(last for _, last in resumed)]
        if all(first >= end for (first, _), end in zip(resumed, ends, strict=False)):
            best = min(best, cost(values, resumed, pause, state))
    return best


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    share=st.floats(0, 1),
    pause=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]),
    state=st.sampled_from(["new", "running", "paused"]),
)
def test_slices_are_the_cheapest_of_all(
    values: list[int], share: float, pause: float, state: State
) -> None:
    room = len(values) - (math.ceil(pause) if state == "paused" else 0)
    if room < 1:
        return
    work = 1 + int(share * (room - 1))
    found = best_steps(np.array(values, float), work, pause, state=state)
    assert cost(values, found, pause, state) == pytest.approx(cheapest(values, work, pause, state))
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(found))


def test_one_window_is_the_cheapest_and_slices_are_cheaper() -> None:
    forecast = hours(300, 100, 300, 100)
    work = {"now": NOON, "duration": 2 * HOUR, "deadline": NOON + 4 * HOUR}
    one, slices = plan(forecast, **work), plan(forecast, **work, sliced=True)
    assert one.g_per_kwh == pytest.approx(200.0)
    assert slices.segments == (
        (NOON + HOUR, NOON + 2 * HOUR),
        (NOON + 3 * HOUR, NOON + 4 * HOUR),
    )
    assert slices.g_per_kwh == pytest.approx(100.0)
    # A pause of 15 minutes at 300 costs 75 and saves 200, which is more than 2.5 times as much.
    costly = plan(forecast, **work, sliced=True, pause_cost=15 * MINUTE)
    assert costly.g_per_kwh == pytest.approx((100 + 75 + 100) / 2)
    assert costly.pauses == 1
    assert plan(forecast, **work, sliced=True, pause_cost=40 * MINUTE).pauses == 0
    assert plan(forecast, **work, sliced=True, pause_cost=HOUR).pauses == 0


def test_bounds_are_those_of_the_planned_times() -> None:
    forecast = [
        Interval(start=one.start, end=one.end, g_per_kwh=one.g_per_kwh, low_g_per_kwh=50.0)
        for one in hours(300, 100)
    ]
    found = plan(forecast, now=NOON, duration=HOUR, deadline=NOON + 2 * HOUR)
    assert (found.g_per_kwh, found.low_g_per_kwh, found.high_g_per_kwh) == (100.0, 50.0, None)


def test_times_in_any_zone_are_the_same_plan() -> None:
    berlin = timezone(HOUR)
    forecast = hours(300, 300, 100, 300)
    found = plan(
        forecast,
        now=NOON.astimezone(berlin),
        duration=HOUR,
        deadline=(NOON + 4 * HOUR).astimezone(berlin),
    )
    assert found.segments == ((NOON + 2 * HOUR, NOON + 3 * HOUR),)


@pytest.mark.parametrize(
    ("deadline", "duration", "said"),
    [
        (NOON - HOUR, HOUR, "is in the past"),
        (NOON + HOUR, 2 * HOUR, "needs 2:00:00 and the deadline .* is in 1:00:00"),
        (datetime(2026, 12, 1), HOUR, "deadline is the naive time"),
        (NOON + HOUR, timedelta(0), "it must be above 0"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_error(
    deadline: datetime, duration: timedelta, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        plan(hours(1, 2), now=NOON, duration=duration, deadline=deadline)


@pytest.mark.parametrize("duration", [timedelta(microseconds=1), MINUTE, 7 * MINUTE])
@pytest.mark.parametrize("state", ["new", "running", "paused"])
def test_a_short_rest_of_a_work_is_planned_as_well(duration: timedelta, state: State) -> None:
    deadline, pause = NOON + 300 * HOUR, 8 * MINUTE
    found = plan(
        hours(300, 100),
        now=NOON,
        duration=duration,
        deadline=deadline,
        pause_cost=pause,
        sliced=True,
        state=state,
    )
    assert found.end - found.start <= duration + 10 * MINUTE
    assert found.end <= deadline


def test_equal_missing_or_no_values_start_at_once() -> None:
    work = {"now": NOON, "duration": HOUR, "deadline": NOON + 9 * HOUR}
    for forecast in (hours(*[300] * 9), [], hours(300)):
        for sliced in (False, True):
            found = plan(forecast, **work, sliced=sliced)
            assert found.segments == ((NOON, NOON + HOUR),)
    assert plan([], **work).g_per_kwh is None
    assert best_steps(np.array([3.0, np.nan, 1.0]), 1, 0.0) == [(0, 1)]
    assert best_steps(np.array([3.0, np.inf, 1.0]), 1, 0.0) == [(0, 1)]


def test_steps_are_means_and_unknown_unless_covered() -> None:
    values = hours(100, 300)
    found = step_means([values[1], values[0]], NOON + 30 * MINUTE, 2, HOUR)
    assert found[0] == pytest.approx(200.0)
    assert np.isnan(found[1])
    static = step_means(StaticIntensity("DE").history(NOON, NOON), NOON, 3, HOUR)
    assert static == pytest.approx([StaticIntensity("DE").g_per_kwh] * 3)


Forecast = Callable[[datetime], list[Interval]]


def run(
    forecast: Forecast, duration: timedelta, deadline: datetime, pause: timedelta, *, sliced: bool
) -> datetime:
    """Run a work that plans again every ten minutes, and return its end."""
    now, left, state = NOON, duration, "new"
    while left > timedelta(0):
        found = plan(
            forecast(now),
            now=now,
            duration=left,
            deadline=deadline,
            pause_cost=pause,
            sliced=sliced,
            state=state,  # type: ignore[arg-type]
        )
        first, last = found.segments[0]
        if first > now:
            state = "paused" if state != "new" else "new"
            now = min(first, now + 10 * MINUTE)
            continue
        if state == "paused":
            now += pause
            last = max(last, now)
        state, until = "running", min(last, now + 10 * MINUTE, now + left)
        left -= until - now
        now = until
    return now


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    minutes=st.integers(1, 300),
    slack=st.integers(0, 600),
    pause=st.sampled_from([0, 7, 30]),
    sliced=st.booleans(),
    kind=st.sampled_from(["random", "constant", "missing", "late", "none"]),
)
def test_no_forecast_misses_a_deadline(
    seed: int, minutes: int, slack: int, pause: int, sliced: bool, kind: str
) -> None:
    duration, deadline = minutes * MINUTE, NOON + (minutes + slack) * MINUTE
    values = np.random.default_rng(seed).uniform(50, 800, 48)

    def forecast(now: datetime) -> list[Interval]:
        issued = int((now - NOON) / HOUR) // 6 * 6 if kind == "late" else 0
        found = {
            "random": lambda: hours(*np.random.default_rng(now.minute).permutation(values)),
            "constant": lambda: hours(*[300.0] * 48),
            "missing": lambda: hours(*values)[::3],
            "late": lambda: hours(*np.random.default_rng(issued).permutation(values)),
            "none": list,
        }
        return found[kind]()

    ended = run(forecast, duration, deadline, pause * MINUTE, sliced=sliced)
    assert ended <= deadline + timedelta(microseconds=1000)


def test_errors_of_the_same_hours_are_learned() -> None:
    # At noon the forecast is 50 too low each day, and errors of the night last into the morning.
    day = np.zeros(24)
    day[12:15] = 50.0
    errors = np.tile(day, 20)
    found = coming_errors(errors, 24)
    assert found.days == 19
    assert found.mean[13] == pytest.approx(50.0, rel=0.25)
    assert abs(found.mean[3]) < 10.0
    assert (found.deviation >= 0).all()


def test_the_last_error_lasts_for_some_hours() -> None:
    errors = np.random.default_rng(0).normal(0, 1, 24 * 5)
    errors[-1] = 30.0
    found = coming_errors(errors, 6).mean
    assert found[0] > found[2] > found[5] > -1


def test_without_known_errors_nothing_is_corrected() -> None:
    for errors in (np.array([]), np.full(100, np.nan), np.zeros(100)):
        assert not coming_errors(errors, 5).mean.any()


def test_the_future_changes_no_correction(tmp_path: Path) -> None:
    def grid(name: str, later: float) -> CsvIntensity:
        rng, rows = np.random.default_rng(1), []
        start = NOON - timedelta(days=10, hours=12)
        for n in range(24 * 12):
            moment = start + n * HOUR
            actual = 300 + rng.normal(0, 30) + (later if moment >= NOON else 0.0)
            rows.append(f"{moment.isoformat()},{actual:.2f},{300 + rng.normal(0, 10):.2f}")
        path = tmp_path / name
        path.write_text("\n".join(["datetime_utc,carbon_intensity,forecast", *rows]))
        return CsvIntensity(path, zone="DE")

    found = [
        [(one.start, one.g_per_kwh) for one in corrected_forecast(grid(name, by), NOON, 6 * HOUR)]
        for name, by in (("a.csv", 0.0), ("b.csv", 500.0))
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 6


@pytest.mark.parametrize("as_of_h", [0, 5])
def test_days_of_a_similar_forecast_give_the_errors(tmp_path: Path, as_of_h: int) -> None:
    """Each second day rises, and is 30 too low; the others fall, and are 30 too high."""
    midnight, rows = NOON - 12 * HOUR, []
    for n in range(-24 * 80, 24):
        rises = (n // 24) % 2 == 0
        shown = 300.0 + (1 if rises else -1) * 10.0 * (n % 24)
        rows.append(f"{(midnight + n * HOUR).isoformat()},{shown + (30 if rises else -30)},{shown}")
    (tmp_path / "c.csv").write_text("\n".join(["datetime_utc,carbon_intensity,forecast", *rows]))
    provider = CsvIntensity(tmp_path / "c.csv", zone="DE")
    found = corrected_forecast(provider, midnight + as_of_h * HOUR, 3 * HOUR)
    values = [one.g_per_kwh for one in found]
    expected = [300 + 10.0 * n + 30 for n in range(as_of_h, as_of_h + 3)]
    assert values == pytest.approx(expected, abs=8.0)


def test_errors_of_a_provider_without_past_forecasts_are_unknown() -> None:
    class Failing:
        provenance = StaticIntensity("DE").provenance

        def history(self, *_: Any) -> list[Interval]:
            return hours(1, 2)

        def forecast(self, as_of: datetime, horizon: timedelta) -> list[Interval]:
            if as_of < NOON:
                raise IntensityError("it keeps none")
            return hours(300, 100)

    errors, known = past_errors(Failing(), NOON)
    assert not known
    assert np.isnan(errors).all()
    found = corrected_forecast(Failing(), NOON, 2 * HOUR)
    assert [one.g_per_kwh for one in found] == [300.0, 100.0]


@pytest.fixture
def grid(tmp_path: Path) -> CsvIntensity:
    """Ten days of 300 g/kWh by night and 100 at noon, with forecasts of the day ahead."""
    start = NOON - timedelta(days=10, hours=12)
    rows = []
    for n in range(24 * 12):
        value = 100 if 11 <= n % 24 < 14 else 300
        known = str(value) if start + n * HOUR < NOON + 24 * HOUR else ""
        rows.append(f"{(start + n * HOUR).isoformat()},{known},{value + 10}")
    path = tmp_path / "grid.csv"
    path.write_text("\n".join(["datetime_utc,carbon_intensity,forecast", *rows]))
    return CsvIntensity(path, zone="DE")


def test_a_proposal_says_what_it_saves_and_the_review_what_it_saved(grid: CsvIntensity) -> None:
    evening = NOON - 18 * HOUR
    work = Work(energy_j=3.6e6, duration=2 * HOUR, deadline=evening + 23 * HOUR)
    found = propose(grid, work, evening)
    # The day's forecast ends at midnight; the rest is the mean of the last seven days.
    assert found.forecast_until == NOON - 12 * HOUR
    assert found.plan.start.hour in (11, 12)
    assert found.plan.g_per_kwh == pytest.approx(100.0, abs=2)
    assert found.now.g_per_kwh == pytest.approx(300.0, abs=5)
    assert found.saving_g == pytest.approx(200.0, abs=5)
    assert found.saving_low_g is not None and found.saving_high_g is not None
    assert found.saving_low_g <= found.saving_g <= found.saving_high_g
    past = review(grid, found.as_dict())
    assert past is not None
    assert past.saving_g == pytest.approx(200.0, abs=1)
    assert past.possible_g == pytest.approx(past.saving_g, abs=1)
    later = Work(energy_j=3.6e6, duration=HOUR, deadline=NOON + 30 * HOUR)
    assert review(grid, propose(grid, later, NOON).as_dict()) is None


def test_a_far_deadline_plans_like_a_near_one_or_is_refused(grid: CsvIntensity) -> None:
    evening = NOON - 18 * HOUR
    found = [
        corrected_forecast(grid, evening, days * 24 * HOUR) for days in (1, 3650)
    ]  # the forecast ends at midnight
    assert found[0] == found[1]
    assert found[0][-1].end == NOON - 12 * HOUR
    for deadline in (evening + timedelta(days=30), evening + timedelta(days=30, minutes=1)):
        work = Work(energy_j=3.6e6, duration=2 * HOUR, deadline=deadline)
        if deadline - evening == timedelta(days=30):
            assert propose(grid, work, evening).plan.start.hour in (11, 12)
            continue
        with pytest.raises(ConfigurationError, match="is more than 30 days after"):
            propose(grid, work, evening)
    with pytest.raises(ConfigurationError, match="is more than 30 days after"):
        last = datetime(9999, 12, 31, 23, tzinfo=timezone(-12 * HOUR))
        propose(grid, Work(energy_j=1.0, duration=HOUR, deadline=last), evening)


def test_a_forecast_beyond_seven_days_is_returned_as_it_is() -> None:
    class Long:
        """Forecasts of 200 g/kWh where 210 came; the present one has ten days."""

        provenance = StaticIntensity("DE").provenance

        def history(self, start: datetime, end: datetime) -> list[Interval]:
            count = int((min(end, NOON) - start) / HOUR)
            return hours(*[210.0] * count, start=start)

        def forecast(self, as_of: datetime, horizon: timedelta) -> list[Interval]:
            return hours(*[200.0] * int(horizon / HOUR), start=as_of)

    found = corrected_forecast(Long(), NOON, 240 * HOUR)
    assert [one.start for one in found] == [NOON + n * HOUR for n in range(240)]
    assert 205.0 < found[0].g_per_kwh <= 210.0
    assert [one.g_per_kwh for one in found[168:]] == [200.0] * 72


def test_without_any_value_there_is_no_proposal(grid: CsvIntensity) -> None:
    work = Work(energy_j=1.0, duration=HOUR, deadline=NOON + timedelta(days=91))
    with pytest.raises(IntensityError, match=r"has no forecast for DE from .* on, and no values"):
        propose(grid, work, NOON + timedelta(days=90))


def test_days_without_a_known_error_are_no_days_of_a_correction() -> None:
    errors = np.full(24 * 60, np.nan)
    errors[-24 * 3 :] = 10.0  # of sixty days, the last three are known
    # Ends 1 to 3 days ago, each with the day before it: the windows begin 2, 3 and 4 days ago.
    assert coming_errors(errors, 24).days == 3
    assert coming_errors(np.full(24 * 60, 10.0), 24).days == 59
