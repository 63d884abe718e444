"""Choose in which slices a work runs, when waiting between them costs idle energy.

A pure function: a forecast in, times out. The slices are the exact optimum over steps of time. With
the end of the work, the joules of waiting are known, so each end has its own cost. A pause has to
save more than a hurdle, because forecasts are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from greentrain.carbon.delay import MIN_KNOWN, DelayCosts, DelayOption
from greentrain.carbon.intensity import Interval
from greentrain.carbon.planning import HURDLE, State, best_steps, filled, plan_steps, step_means
from greentrain.units import J_PER_WH


def choose_slices(
    forecast: Sequence[Interval],
    *,
    now: datetime,
    end: datetime,
    costs: DelayCosts,
    pause_cost: timedelta,
    state: State = "new",
) -> DelayOption | None:
    """Return the slices with the least grams, those of waiting and of the lost benefit included.

    Args:
        forecast: Expected intensities; values that are no numbers are unknown.
        now: Earliest start, aware.
        end: Latest end, aware.
        costs: The work, and what waiting costs; ``worth_g`` has to be known.
        pause_cost: Time at full power. A pause has to save the grams of 2.5 times that, beyond
            those of waiting.
        state: ``"running"`` if the work runs now, so that a later start is a pause.

    Returns:
        ``None`` if less than half of the time has a forecast, or no time is left to wait. The grams
        of a pause are those of waiting.

    Example:
        >>> noon, hour = datetime(2026, 1, 1, 12, tzinfo=UTC), timedelta(hours=1)
        >>> forecast = [
        ...     Interval(start=noon + n * hour, end=noon + (n + 1) * hour, g_per_kwh=value)
        ...     for n, value in enumerate([100.0, 500.0, 100.0])
        ... ]
        >>> costs = DelayCosts(
        ...     energy_j=7.2e6, duration=2 * hour, idle_w=100.0, lasts=24 * hour, worth_g=240.0
        ... )
        >>> found = choose_slices(
        ...     forecast,
        ...     now=noon,
        ...     end=noon + 3 * hour,
        ...     costs=costs,
        ...     pause_cost=timedelta(minutes=10),
        ... )
        >>> [f"{start:%H:%M} to {end:%H:%M}" for start, end in found.segments]
        ['12:00 to 13:00', '14:00 to 15:00']
        >>> round(found.work_g), round(found.idle_g), round(found.lost_g)
        (200, 50, 10)
    """
    import numpy as np

    now, end = now.astimezone(UTC), end.astimezone(UTC)
    if end - now <= costs.duration:
        return None
    step, work = plan_steps(costs.duration, end - now)
    count = math.ceil((end - now) / step)
    usable = [one for one in forecast if math.isfinite(one.g_per_kwh) and one.g_per_kwh >= 0]
    means = step_means(usable, now, count, step)
    if np.isnan(means).mean() > 1.0 - MIN_KNOWN or count < work:
        return None
    means = filled(means, now, step)
    # Grams of 1 W in each step, and up to each border of a step.
    grams = means * (step.total_seconds() / (1000.0 * J_PER_WH))
    sums = np.concatenate([[0.0], grams.cumsum()])
    power_w = costs.energy_j / costs.duration.total_seconds()
    lost_g = (costs.worth_g or 0.0) * (step / costs.lasts)  # of each step
    # Working instead of waiting uses the difference; all time up to the end uses the idle power.
    ended = costs.idle_w * sums[work:] + lost_g * np.arange(count - work + 1)
    pause_g = power_w * float(grams.mean()) * (pause_cost / step)
    chosen = best_steps(
        (power_w - costs.idle_w) * grams,
        work,
        0.0,
        state=state,
        ended=ended,
        switch=(1.0 + HURDLE) * pause_g,
    )
    segments = [(now + first * step, min(now + last * step, end)) for first, last in chosen]
    spare = sum((last - first for first, last in segments), timedelta(0)) - costs.duration
    # The work does not fill its last step.
    segments[-1] = segments[-1][0], segments[-1][1] - max(spare, timedelta(0))
    borders = np.arange(count + 1) * step.total_seconds()

    def until(moment: datetime) -> float:
        return float(np.interp((moment - now).total_seconds(), borders, sums))

    ran = math.fsum(until(last) - until(first) for first, last in segments)
    waited = segments[-1][1] - now - costs.duration  # with the pauses
    return DelayOption(
        start=segments[0][0],
        work_g=power_w * ran,
        idle_g=costs.idle_w * (until(segments[-1][1]) - ran),
        lost_g=(costs.worth_g or 0.0) * max(waited / costs.lasts, 0.0),
        segments=tuple(segments),
    )
