"""Sums over windows that take one window at a time, and whose memory does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain

from greentrain.report.document import EnergyFigures
from greentrain.report.row_helpers import MeasuredWindow, known_wh

_MOST = 64
"""Values that a sum keeps as they are."""


class Sum:
    """The sum of the values that are known. It is rounded once, so their order does not matter.

    Example:
        >>> tenths = Sum()
        >>> for _ in range(1000):
        ...     tenths.add(0.1)
        >>> tenths.total, Sum().total
        (100.0, None)
    """

    __slots__ = ("_values", "known")

    def __init__(self) -> None:
        self.known = 0
        self._values: list[float] = []

    def add(self, value: float | None) -> None:
        """Add a value; ``None`` is left out."""
        if value is not None:
            self.known += 1
            self._values.append(value)
            if len(self._values) > _MOST:
                self.compress()

    def add_all(self, values: Iterable[float | None]) -> None:
        """Add values, which takes less time than one by one."""
        known = [value for value in values if value is not None]
        self.known += len(known)
        self._values += known
        if len(self._values) > _MOST:
            self.compress()

    def join(self, other: Sum) -> None:
        """Add all values of another sum."""
        self.known += other.known
        self._values += other._values
        self.compress()

    def compress(self) -> None:
        """Replace the values by a few that have exactly the same sum."""
        parts: list[float] = []
        while rest := _exact(chain(self._values, (-part for part in parts))):
            parts.append(rest)
            if not math.isfinite(rest):
                break
        self._values = parts

    @property
    def total(self) -> float | None:
        """The sum; ``None`` if no value is known."""
        return _exact(self._values) if self.known else None

    def plus(self, others: Iterable[float]) -> float:
        """Return the sum with other values."""
        return _exact(chain(self._values, others))

    @property
    def number(self) -> float:
        """The sum; 0 if no value is known."""
        return _exact(self._values)


class EnergySum:
    """Energy and time of some windows, and how many of them are incomplete or recovered.

    Attributes:
        first: Number of the first entry among them, by which groups of windows are in order.
    """

    __slots__ = ("_energy", "_seconds", "first", "incomplete", "recovered", "windows")

    def __init__(self) -> None:
        self._energy, self._seconds = Sum(), Sum()
        self.windows = self.incomplete = self.recovered = 0
        self.first = math.inf

    def add_all(self, windows: Sequence[MeasuredWindow]) -> None:
        """Add windows."""
        self._energy.add_all([one["energy_j"] for one in windows])
        self._seconds.add_all([one["duration_s"] for one in windows])
        self.windows += len(windows)
        self.incomplete += sum([not one["complete"] for one in windows])
        self.recovered += sum([one["recovered"] for one in windows])
        self.first = min(self.first, min((one["entry_id"] for one in windows), default=math.inf))

    def join(self, other: EnergySum) -> None:
        """Add all windows of another sum."""
        self._energy.join(other._energy)
        self._seconds.join(other._seconds)
        self.windows += other.windows
        self.incomplete += other.incomplete
        self.recovered += other.recovered
        self.first = min(self.first, other.first)

    def compress(self) -> None:
        """Keep as little as possible in memory."""
        self._energy.compress()
        self._seconds.compress()

    @property
    def energy_j(self) -> float | None:
        """Joules of all measured sources; ``None`` if nothing was measured."""
        return self._energy.total

    def figures(self) -> EnergyFigures:
        """Return the sums as the report has them."""
        energy_j = self._energy.total
        return {
            "energy_j": energy_j,
            "energy_wh": known_wh(energy_j),
            "duration_s": self._seconds.number,
            "windows": self.windows,
            "windows_incomplete": self.incomplete,
            "windows_recovered": self.recovered,
        }


def joined(sums: Iterable[EnergySum]) -> EnergySum:
    """Return the sum of sums."""
    together = EnergySum()
    for one in sums:
        together.join(one)
    return together


def _exact(values: Iterable[float]) -> float:
    """Return a sum that is rounded once; NaN for forged values whose sum is no number."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.nan
