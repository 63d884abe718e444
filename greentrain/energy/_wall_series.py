"""Accumulate a node's energy over time from occasional wall samples."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from array import array

MAX_GAP = 2.5
"""Longest gap in sampling intervals that is interpolated: one sample may be missing."""
MAX_EDGE = 1.5
"""Sampling intervals that a span may reach beyond the first or last sample."""

# A counter that moves faster than a megawatt plus 10 kWh, the coarsest step of a meter, has jumped.
_MAX_POWER_W = 1e6
_MAX_STEP_J = 3.6e7
_RECENT = 1000


class EnergySeries:
    """Accumulate joules over time. Not thread-safe: the meter holds its lock around every call.

    A counter that shows the same as before has not been updated, since a running node uses power.
    Such a sample is dropped. So between two kept samples the counter has moved, and a counter with
    coarse steps is interpolated from step to step.

    Args:
        sampled: ``True`` if the samples are watts, ``False`` if they are joules of a counter.
    """

    def __init__(self, *, sampled: bool) -> None:
        self.times_s = array("d")
        self.energy_j = array("d")
        self.restarts = 0
        self._sampled = sampled
        self._last = 0.0
        self._fell_from = math.inf
        self._unknown: list[int] = []
        self._scanned = 1
        self._interval_s: float | None = None

    def add(self, at_s: float, value: float) -> None:
        """Add a sample, unless it is not later than the last one."""
        count = len(self.times_s)
        if count == 0:
            total_j = 0.0
        else:
            gap_s, change = at_s - self.times_s[-1], value - self._last
            if gap_s <= 0 or (change == 0 and not self._sampled):
                return
            total_j = self.energy_j[-1]
            if self._sampled:
                total_j += 0.5 * (value + self._last) * gap_s
            elif self._counted(change, gap_s, value):
                total_j += change
            else:
                self.restarts += 1
                self._unknown.append(count)
                self._fell_from = self._last if change < 0 else math.inf
        self.times_s.append(at_s)
        self.energy_j.append(total_j)
        self._last = value

    @property
    def interval_s(self) -> float | None:
        """Median seconds between recent samples; ``None`` before there are two."""
        self._scan()
        return self._interval_s

    def since(self, index: int) -> tuple[float, float | None] | None:
        """Return seconds and joules from a sample to the last one.

        Returns:
            ``None`` if that sample has not arrived yet; joules are ``None`` if a gap or a restart
            of the counter lies in between.
        """
        if index >= len(self.times_s):
            return None
        self._scan()
        known = not self._unknown or self._unknown[-1] <= index
        energy_j = self.energy_j[-1] - self.energy_j[index] if known else None
        return self.times_s[-1] - self.times_s[index], energy_j

    def between(self, start_s: float, end_s: float) -> float | None:
        """Return the joules from one time to another; ``None`` if they are unknown."""
        self._scan()
        times_s = self.times_s
        if self._interval_s is None or end_s <= times_s[0] or start_s >= times_s[-1]:
            return None
        # Bracket i lies between samples i - 1 and i.
        first = max(bisect.bisect_right(times_s, start_s), 1)
        last = min(bisect.bisect_left(times_s, end_s), len(times_s) - 1)
        unknown = bisect.bisect_left(self._unknown, first)
        if unknown < len(self._unknown) and self._unknown[unknown] <= last:
            return None
        begin_j = self._at(start_s, first, self._interval_s)
        finish_j = self._at(end_s, last, self._interval_s)
        return None if begin_j is None or finish_j is None else finish_j - begin_j

    def _counted(self, change: float, gap_s: float, value: float) -> bool:
        """Return ``False`` if a counter has restarted, jumped or returned from 0."""
        fell_from, self._fell_from = self._fell_from, math.inf
        return 0 < change <= _MAX_POWER_W * gap_s + _MAX_STEP_J and value < fell_from

    def _at(self, at_s: float, bracket: int, interval_s: float) -> float | None:
        """Return the joules at a time in a bracket, or a little beyond the first or last one."""
        begin_s, end_s = self.times_s[bracket - 1], self.times_s[bracket]
        begin_j, end_j = self.energy_j[bracket - 1], self.energy_j[bracket]
        if at_s in (begin_s, end_s):
            return begin_j if at_s == begin_s else end_j
        beyond_s = max(begin_s - at_s, at_s - end_s)
        if end_s - begin_s > MAX_GAP * interval_s or beyond_s > MAX_EDGE * interval_s:
            return None
        return begin_j + (at_s - begin_s) / (end_s - begin_s) * (end_j - begin_j)

    def _scan(self) -> None:
        """Find the interval, and gaps among the samples since the last scan."""
        count = len(self.times_s)
        if count <= self._scanned:
            return
        recent = self.times_s[-_RECENT - 1 :]
        self._interval_s = statistics.median_low(b - a for a, b in itertools.pairwise(recent))
        if self._sampled:
            longest_s = MAX_GAP * self._interval_s
            for index in range(self._scanned, count):
                if self.times_s[index] - self.times_s[index - 1] > longest_s:
                    self._unknown.append(index)
        self._scanned = count
