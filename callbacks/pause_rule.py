"""Decide whether a training pauses or continues, by a forecast of the carbon intensity.

Each decision compares two ways to do the rest of the work in one piece: now, or later. A pause has
to save more than it costs, and by a margin: the hysteresis of double-threshold algorithms
(Lechowicz et al. 2023, arXiv 2303.17551), here in grams. Without a usable forecast the training
runs. No forecast delays it past the latest start that its deadline allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from greentrain.carbon.planning import HURDLE

State = Literal["new", "running", "paused"]

MIN_KNOWN = 0.5
"""Least share of the time up to the deadline, of a day at most, that a forecast has to cover."""
_STEP_S = 300.0
_MOST_STEPS = 4000
_LEAST_SAVING = 1e-6
_TIE = 1e-9
_DAY_S = 86400.0
_LONGEST_WAIT_S = 7 * _DAY_S
"""No forecast reaches further, so no later start is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseCosts:
    """Power of a training, and what a pause costs; measured where it is known.

    Args:
        power_w: Power while it trains; only its ratio to the others matters.
        idle_w: Power while it waits in its process; 0 if it releases the machine.
        pause_j: Joules of saving, of ending and of starting again up to the first new batch.
        restart_s: Seconds from the wish to continue to the first new batch.
    """

    power_w: float = 1.0
    idle_w: float = 0.0
    pause_j: float = 0.0
    restart_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseChoice:
    """A decision, and the figures it was made by.

    Args:
        wait: Whether to pause, or to go on waiting.
        until: When to continue if ``wait``; the next decision may be earlier.
        now_g: Expected grams of the rest if it runs now; ``None`` without a forecast.
        later_g: Expected grams if it runs from ``until`` on, pause and waiting included.
        latest: Latest time to continue that the deadline allows.
        reason: One sentence.
        g_per_kwh: Intensity of the present; ``None`` without a forecast.
    """

    wait: bool
    until: datetime
    now_g: float | None
    later_g: float | None
    latest: datetime
    reason: str
    g_per_kwh: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the ledger."""
        return {
            "until_utc": self.until.isoformat(),
            "latest_utc": self.latest.isoformat(),
            "g_per_kwh": self.g_per_kwh,
            "now_g": self.now_g,
            "later_g": self.later_g,
            "predicted_saving_g": None
            if self.now_g is None or self.later_g is None
            else self.now_g - self.later_g,
            "reason": self.reason,
        }


def choose(
    now: datetime,
    forecast: Sequence[Any],
    *,
    state: State,
    work_s: float,
    deadline: datetime,
    costs: PauseCosts,
    min_saving: float,
    margin: float,
) -> PauseChoice:
    """Choose between running and waiting.

    Args:
        now: The present time, aware.
        forecast: Intervals with ``start``, ``end`` and ``g_per_kwh``. Values that are no number are
            unknown.
        state: ``"running"`` if a wait would be a new pause.
        work_s: Seconds of training that are left.
        deadline: End of the work, aware.
        costs: Power, and what a pause costs.
        min_saving: Least share of the grams that a new pause has to save.
        margin: Share of ``work_s`` to keep in reserve.

    Returns:
        The choice. It never waits beyond ``deadline`` minus the work, its reserve and a restart.
    """
    needed_s = work_s * (1.0 + margin) + costs.restart_s
    slack_s = (deadline - now).total_seconds() - needed_s
    latest = now + timedelta(seconds=max(0.0, slack_s))

    def run(reason: str, now_g: float | None = None, later_g: float | None = None) -> PauseChoice:
        return PauseChoice(
            wait=False,
            until=now,
            now_g=now_g,
            later_g=later_g,
            latest=latest,
            reason=reason,
            g_per_kwh=present,
        )

    present: float | None = None

    if slack_s <= 0:
        return run("the deadline leaves no time to wait")
    slack_s = min(slack_s, _LONGEST_WAIT_S)
    step_s = max(_STEP_S, (slack_s + needed_s) / _MOST_STEPS)
    grid = _intensities(now, forecast, math.ceil((slack_s + needed_s) / step_s) + 1, step_s)
    if grid is None:
        return run("there is no forecast of enough of the time up to the deadline")
    energy_s = work_s + costs.pause_j / costs.power_w
    grams, present = _grams(grid, step_s), float(grid[0])
    starts_s = np.append(np.arange(1, int(slack_s / step_s) + 1) * step_s, slack_s)
    later = costs.power_w * (grams(starts_s + energy_s) - grams(starts_s))
    later += costs.idle_w * grams(starts_s)
    own_s = energy_s if state == "paused" else work_s
    now_g = float(costs.power_w * grams(own_s))
    best = int(np.argmax(later <= later.min() * (1.0 + _TIE)))  # the first of equal ones
    later_g, until = float(later[best]), now + timedelta(seconds=float(starts_s[best]))
    least, hurdle_g = _LEAST_SAVING, 0.0
    if state == "running":
        least = max(min_saving, _LEAST_SAVING)
        hurdle_s = HURDLE * costs.pause_j / costs.power_w
        hurdle_g = costs.power_w * float(grams(starts_s[best] + hurdle_s) - grams(starts_s[best]))
    if later_g + max(hurdle_g, now_g * least) >= now_g:
        return run("no later start saves enough", now_g, later_g)
    share = 1.0 - later_g / now_g
    reason = f"a start at {until.isoformat(timespec='minutes')} saves {share:.0%} of the rest"
    return PauseChoice(
        wait=True,
        until=until,
        now_g=now_g,
        later_g=later_g,
        latest=latest,
        reason=reason,
        g_per_kwh=present,
    )


def persisted(history: Sequence[Any], now: datetime, horizon: timedelta) -> list[Shifted]:
    """Return a forecast for a provider that has none: the last day, again and again.

    Args:
        history: Intervals that are known; what is after ``now`` is left out.
        now: The present time.
        horizon: Length of the forecast.
    """
    found = []
    for one in history:
        start, end = max(one.start, now - timedelta(days=1)), min(one.end, now)
        days = 1
        while end > start and start + timedelta(days=days) < now + horizon:
            shift = timedelta(days=days)
            found.append(Shifted(start + shift, end + shift, one.g_per_kwh))
            days += 1
    return found


@dataclass(frozen=True, slots=True)
class Shifted:
    """An interval of another day.

    Args:
        start: Its first moment.
        end: The first moment after it.
        g_per_kwh: Its intensity.
    """

    start: datetime
    end: datetime
    g_per_kwh: float


def _intensities(
    now: datetime, forecast: Sequence[Any], count: int, step_s: float
) -> NDArray[np.float64] | None:
    """Return the intensity of each step; steps without a value have the mean of the others."""
    grid = np.full(count, np.nan)
    for one in forecast:
        try:
            value = float(one.g_per_kwh)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value) and value >= 0:
            first = (one.start - now).total_seconds() / step_s
            last = (one.end - now).total_seconds() / step_s
            # A step has the value at its middle.
            grid[max(0, math.ceil(first - 0.5)) : max(0, math.ceil(last - 0.5))] = value
    horizon = min(count, math.ceil(_DAY_S / step_s))
    known = ~np.isnan(grid)
    if known[:horizon].mean() < MIN_KNOWN or not known[0]:
        return None
    grid[~known] = grid[known].mean()
    return grid


def _grams(grid: NDArray[np.float64], step_s: float) -> Any:
    """Return a function: grams up to some seconds from now, of a power of 1 W."""
    edges = np.arange(len(grid) + 1) * step_s
    sums = np.concatenate([[0.0], np.cumsum(grid) * step_s / 3.6e6])
    mean = float(grid.mean()) / 3.6e6

    def until(seconds: Any) -> Any:
        beyond = np.maximum(0.0, np.asarray(seconds) - edges[-1])
        return np.interp(seconds, edges, sums) + beyond * mean

    return until
