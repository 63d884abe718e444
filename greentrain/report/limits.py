"""Limits of the lists in the document of a large ledger; its sums cover everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from greentrain.report.document import ExperienceEntry
from greentrain.report.window_list import TaggedWindow

MOST_WINDOWS = 10_000
MOST_EXPERIENCES = 5_000
"""Windows and experiences that the document lists at most: the last ones."""
MOST_POINTS = 2_000
"""Points of a budget's spending that the document lists at most."""

_One = TypeVar("_One")


class Latest(Generic[_One]):
    """The last ones of some things, by a number.

    Args:
        most: How many of them are kept.
        number: Function that returns the number of one of them.

    Attributes:
        count: Number of things that were added.
    """

    def __init__(self, most: int, number: Callable[[_One], int] = lambda _: 0) -> None:
        self._most = most
        self._number = number
        self._held: list[_One] = []
        self.count = 0

    def add(self, *ones: _One, keep: bool = True) -> None:
        """Add some; ``keep`` is ``False`` to count them only."""
        self.count += len(ones)
        if not keep:
            return
        self._held += ones
        if len(self._held) >= 2 * self._most:
            self._held = self.listed()

    def listed(self) -> list[_One]:
        """Return the last ones, in order."""
        return sorted(self._held, key=self._number)[-self._most :]


class Sink:
    """Takes each window and each experience of a report; this one drops them."""

    def window(self, one: TaggedWindow) -> None:
        """Take a window. Runs come in the order in which they were opened."""

    def experience(self, one: ExperienceEntry) -> None:
        """Take an experience or a baseline retraining, in the order of the decisions."""


NO_SINK = Sink()


def thinned(points: Sequence[_One]) -> Sequence[_One]:
    """Return at most :data:`MOST_POINTS` points at even distances, with the first and the last.

    Example:
        >>> len(thinned(range(25_000))), thinned(range(25_000))[-1], thinned(range(3))
        (2000, 24999, range(0, 3))
    """
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(step * number)] for number in range(MOST_POINTS)]
