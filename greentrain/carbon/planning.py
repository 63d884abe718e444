"""Plan work into the cleanest time before a deadline: one window, or slices with a pause cost.

Pure functions: a forecast in, times out. A plan ends before its deadline for every forecast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from greentrain.carbon.intensity import Interval
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

State = Literal["new", "running", "paused"]
STEP = timedelta(minutes=5)
_MOST_CELLS = 4_000_000
"""Most steps of time, times steps of work: longer plans have longer steps."""
_MOST_STEPS = 20_000
_DAY = timedelta(days=1)
HURDLE = 1.5
"""Gain of a pause that is required above its cost, as a share of the cost: forecasts are wrong."""
_ROUNDING = 1e-9
_TIE = 1e-9
"""Relative advantage of an earlier step, so that equal forecasts start at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Times of a work, and its expected intensity.

    Args:
        segments: Start and end of each segment, in UTC. From the second one on, a segment begins
            with the pause cost.
        g_per_kwh: Expected grams per kilowatt-hour of the work, the pauses' cost included.
        low_g_per_kwh: The same by the lower bounds of the forecast; ``None`` without bounds.
        high_g_per_kwh: The same by the upper bounds.
    """

    segments: tuple[tuple[datetime, datetime], ...]
    g_per_kwh: float | None
    low_g_per_kwh: float | None = None
    high_g_per_kwh: float | None = None

    @property
    def start(self) -> datetime:
        """Start of the first segment."""
        return self.segments[0][0]

    @property
    def end(self) -> datetime:
        """End of the last segment."""
        return self.segments[-1][1]

    @property
    def pauses(self) -> int:
        """Number of pauses."""
        return len(self.segments) - 1


def check_work(now: datetime, duration: timedelta, deadline: datetime) -> None:
    """Check that a work can end before its deadline.

    Args:
        now: First possible start.
        duration: Time that is needed.
        deadline: Last possible end.

    Raises:
        ConfigurationError: If a time is naive, the deadline is past, or it is shorter than the
            work.
    """
    for name, moment in (("now", now), ("deadline", deadline)):
        if moment.tzinfo is None:
            raise ConfigurationError(
                f"{name} is the naive time {moment.isoformat()}; give it a zone, as in "
                "2026-12-01T08:00+01:00"
            )
    if duration <= timedelta(0):
        raise ConfigurationError(f"duration is {duration}; it must be above 0")
    left = deadline - now
    if left <= timedelta(0):
        raise ConfigurationError(
            f"the deadline {deadline.isoformat()} is in the past; it is {now.isoformat()} now"
        )
    if duration > left:
        raise ConfigurationError(
            f"the work needs {duration} and the deadline {deadline.isoformat()} is in "
            f"{str(left).partition('.')[0]}; move the deadline, or shorten the work"
        )


def plan(
    forecast: Sequence[Interval],
    *,
    now: datetime,
    duration: timedelta,
    deadline: datetime,
    pause_cost: timedelta = timedelta(0),
    sliced: bool = False,
    state: State = "new",
    step: timedelta = STEP,
) -> Plan:
    """Return the times with the least expected grams, at constant power.

    One window is the cheapest one, of all that begin at a step. Slices are the exact optimum over
    the steps, where each pause costs some time at full power when the work resumes. A pause has to
    save 2.5 times its cost, because forecasts are wrong. One window is among the candidates, so
    slices are never expected to be worse.

    Times without a forecast count as the mean of the known values of the same time of day, or else
    of all. Without any forecast, the work starts at once.

    Args:
        forecast: Predicted intervals; see :func:`greentrain.carbon.correction.corrected_forecast`.
        now: First possible start, aware.
        duration: Time that the work needs, without pauses.
        deadline: Last possible end, aware.
        pause_cost: Time at full power that each pause costs.
        sliced: Whether the work may pause.
        state: ``"new"`` if the work has not begun, ``"running"`` if it may go on without a cost, or
            ``"paused"`` if going on costs a pause. To plan again while it runs, give the rest of
            its time as the duration, and wake up at the first start or a step later.
        step: Longest time between two candidates for a start.

    Raises:
        ConfigurationError: If the deadline cannot be met, or a time is naive.

    Example:
        >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        >>> hour = timedelta(hours=1)
        >>> values = [300.0, 200.0, 300.0, 100.0]
        >>> forecast = [
        ...     Interval(start=noon + n * hour, end=noon + (n + 1) * hour, g_per_kwh=value)
        ...     for n, value in enumerate(values)
        ... ]
        >>> work = {"now": noon, "duration": 2 * hour, "deadline": noon + 4 * hour}
        >>> plan(forecast, **work).g_per_kwh, plan(forecast, **work, sliced=True).g_per_kwh
        (200.0, 150.0)
        >>> plan(forecast, **work, sliced=True, pause_cost=hour).pauses
        0
    """
    check_work(now, duration + (pause_cost if state == "paused" else timedelta(0)), deadline)
    now, deadline = now.astimezone(UTC), deadline.astimezone(UTC)
    step, work = plan_steps(duration, deadline - now, step)
    wait = math.ceil(pause_cost / step - _ROUNDING) if state == "paused" else 0
    # A deadline that leaves a part of a step for the resume is met without the rest of the step.
    count = max(work + wait, int((deadline - now) / step + _ROUNDING))
    means = filled(step_means(forecast, now, count, step), now, step)
    chosen = best_steps(means, work, pause_cost / step, state=state, sliced=sliced, hurdle=HURDLE)
    segments = [(now + first * step, now + last * step) for first, last in chosen]
    # The work does not fill its last step.
    segments[-1] = segments[-1][0], min(deadline, segments[-1][1] - (work * step - duration))
    bounds = [
        step_means(_bounds(forecast, name), now, count, step)
        for name in ("low_g_per_kwh", "high_g_per_kwh")
    ]
    known = any(one.start < deadline and one.end > now for one in forecast)
    costs = [
        _cost(values, chosen, work, pause_cost / step, state) if known else None
        for values in (means, *bounds)
    ]
    mean, low, high = (None if one is None or math.isnan(one) else one for one in costs)
    return Plan(segments=tuple(segments), g_per_kwh=mean, low_g_per_kwh=low, high_g_per_kwh=high)


def at_once(
    forecast: Sequence[Interval], *, now: datetime, duration: timedelta, step: timedelta = STEP
) -> Plan:
    """Return the plan that starts now, for comparison."""
    return plan(forecast, now=now, duration=duration, deadline=now + duration, step=step)


def step_means(
    intervals: Sequence[Interval], start: datetime, count: int, step: timedelta
) -> Floats:
    """Return the mean intensity in each step, of shape ``(count,)``; NaN where a part is unknown.

    Args:
        intervals: The intervals; of two that overlap, the later one counts.
        start: Start of the first step, aware.
        count: Number of steps.
        step: Length of a step.
    """
    import numpy as np

    if not intervals or not count:
        return np.full(count, np.nan)
    ordered = sorted(intervals, key=lambda one: one.start)
    starts, ends = (
        np.array([(moment - start) / step for moment in moments]).clip(-1.0, count + 1.0)
        for moments in ([one.start for one in ordered], [one.end for one in ordered])
    )
    ends[:-1] = np.minimum(ends[:-1], starts[1:])
    values = np.array([one.g_per_kwh for one in ordered])
    # Integrals of the values and of the covered time, up to each border of a step.
    borders = np.arange(count + 1.0)
    edges = np.column_stack([starts, ends]).ravel()
    lengths = ends - starts
    with np.errstate(over="ignore"):
        of_values = np.column_stack([np.zeros(len(values)), values * lengths]).ravel().cumsum()
    of_time = np.column_stack([np.zeros(len(values)), lengths]).ravel().cumsum()
    with np.errstate(invalid="ignore"):  # of values too large for a sum, which are unknown then
        total = np.diff(np.interp(borders, edges, of_values))
    covered = np.diff(np.interp(borders, edges, of_time))
    return np.where(covered > 1 - _ROUNDING * count, total / np.maximum(covered, 0.5), np.nan)


def best_steps(
    values: Floats,
    work: int,
    pause_cost: float,
    *,
    state: State = "new",
    sliced: bool = True,
    hurdle: float = 0.0,
    ended: Floats | None = None,
    switch: float = 0.0,
) -> list[tuple[int, int]]:
    """Return the cheapest steps for a work, as segments of first step and end.

    Args:
        values: Cost of each step, of shape ``(steps,)``. If one is no finite number, all of them
            are ignored.
        work: Steps of work; at least 1, and at most the number of values.
        pause_cost: Steps at full power that each pause costs. The time of a resume is rounded up to
            whole steps, its energy is not.
        state: As for :func:`plan`.
        sliced: Whether the work may pause.
        hurdle: Gain of a pause that is required above its cost, as a share of the cost.
        ended: Cost of an end ``n`` steps after the earliest possible one, of shape
            ``(steps - work + 1,)``; for slices only. Use it for what waiting costs.
        switch: Cost of each pause that takes no time; for slices only.

    Raises:
        ConfigurationError: If the work does not fit.
    """
    import numpy as np

    values = np.asarray(values, dtype=float)
    count = len(values)
    wait = math.ceil(pause_cost - _ROUNDING) if state == "paused" else 0
    if not 1 <= work <= count - wait:
        raise ConfigurationError(f"work of {work + wait} steps does not fit into {count} steps")
    if not np.isfinite(values).all():
        values, ended, switch = np.ones(count), None, 0.0
    scale = float(np.abs(values).max()) or 1.0
    values = values / scale + _TIE * np.arange(count) / count
    if not sliced and state != "paused":
        first = 0 if state == "running" else _window(values, work)
        return [(first, first + work)]
    last, switch = 0.0 if ended is None else ended / scale, switch / scale
    return _slices(values, work, pause_cost, state, last, switch, sliced=sliced, hurdle=hurdle)


def _window(values: Floats, work: int) -> int:
    import numpy as np

    sums = np.concatenate([[0.0], values.cumsum()])
    return int((sums[work:] - sums[:-work]).argmin())


def _slices(
    values: Floats,
    work: int,
    pause_cost: float,
    state: State,
    ended: Floats | float,
    switch: float,
    *,
    sliced: bool,
    hurdle: float,
) -> list[tuple[int, int]]:
    """Return the optimal segments by dynamic programming over the work done and its delay.

    ``costs[done][delay]`` is the least cost of ``done`` steps of work that end ``done + delay``
    steps after the start. The next step follows at once, with the same delay; or after a pause, in
    which the work resumes by ``wait`` steps and their energy.
    """
    import numpy as np

    delays, wait = len(values) - work + 1, math.ceil(pause_cost - _ROUNDING)
    shares = np.ones(wait)
    if wait:
        shares[-1] = pause_cost - (wait - 1)
    resume_cost = np.convolve(values, shares[::-1])[wait - 1 :] if wait else np.zeros(len(values))
    resume_cost = resume_cost * (1.0 + hurdle) + switch
    costs = np.empty((work, delays))
    costs[0] = values[:delays]  # the first step of a new work starts anywhere, without a cost
    if state != "new":
        free = 1 if state == "running" else 0
        costs[0, wait:] += resume_cost[: max(0, delays - wait)]
        costs[0, free:wait] = np.inf
        costs[0, :free] = values[:free]
    resumes = np.zeros((work, delays), dtype=bool)
    left = max(0, delays - wait) if sliced else 0
    resumed = np.empty(left)
    for done in range(1, work):
        before, after = costs[done - 1], costs[done]
        if left:
            # The cheapest end until each delay, and a resume from there.
            np.minimum.accumulate(before[:left], out=resumed)
            np.add(resumed, resume_cost[done : done + left], out=resumed)
            np.less(resumed, before[wait:], out=resumes[done, wait:])
            np.minimum(resumed, before[wait:], out=after[wait:])
        after[: delays - left] = before[: delays - left]
        after += values[done : done + delays]
    delay = int((costs[-1] + ended).argmin())
    segments, last = [], work + delay
    for done in range(work - 1, 0, -1):
        if resumes[done, delay]:
            segments.append((done + delay - wait, last))
            delay = int(costs[done - 1, : delay - wait + 1].argmin())
            last = done + delay
    resumed_first = state == "paused" or (state == "running" and delay > 0)
    return [(delay - wait if resumed_first else delay, last), *reversed(segments)]


def _cost(
    values: Floats,
    segments: Sequence[tuple[int, int]],
    work: int,
    pause_cost: float,
    state: State,
) -> float:
    """Return the mean cost of a step of work, with the energy of the pauses."""
    wait = math.ceil(pause_cost - _ROUNDING)
    total = 0.0
    for number, (first, last) in enumerate(segments):
        total += float(values[first:last].sum())
        resumed = number or state == "paused" or (state == "running" and first > 0)
        if resumed and wait:
            total -= (wait - pause_cost) * float(values[first + wait - 1])
    return total / work


def plan_steps(
    duration: timedelta, left: timedelta, step: timedelta = STEP
) -> tuple[timedelta, int]:
    """Return the length of a step, and the number of steps that the work takes, rounded up.

    Args:
        duration: Time that the work needs.
        left: Time until its deadline.
        step: Shortest length of a step.
    """
    cells = (duration / step) * (left / step)
    step = step * max(1.0, math.sqrt(cells / _MOST_CELLS), left / step / _MOST_STEPS)
    return step, max(1, math.ceil(duration / step - _ROUNDING))


def filled(
    values: Floats,
    start: datetime,
    step: timedelta,
) -> Floats:
    """Return the values with unknown ones replaced by those of the same time of day.

    Args:
        values: Values of steps, of shape ``(steps,)``; NaN where unknown.
        start: Start of the first step.
        step: Length of a step.
    """
    import numpy as np

    unknown = np.isnan(values)
    if not unknown.any() or unknown.all():
        return values
    of_day = np.round(np.arange(len(values)) * (step / _DAY) % 1.0 * 24).astype(int) % 24
    known = ~unknown
    sums = np.bincount(of_day[known], values[known], minlength=24)
    counts = np.bincount(of_day[known], minlength=24)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), values[known].mean())
    return np.where(unknown, means[of_day], values)


def _bounds(intervals: Sequence[Interval], name: str) -> list[Interval]:
    """Return the intervals that have a bound, with the bound as their value."""
    return [
        Interval(start=one.start, end=one.end, g_per_kwh=bound)
        for one in intervals
        if (bound := getattr(one, name)) is not None
    ]
