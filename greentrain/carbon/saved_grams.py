"""Compute what waiting has saved, by the intensities that came."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from greentrain.carbon.accounting import CarbonAccount

Stretch = tuple[datetime, datetime, float]
"""Start, end, and joules that were used in between, at constant power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedGrams:
    """Grams that waiting saved against a start at once; below 0 if more were emitted.

    Args:
        grams: The grams; ``None`` if an intensity is unknown.
        low_g: Lower bound, by the bounds of the intensities; ``None`` if one has none.
        high_g: Upper bound.
    """

    grams: float | None = None
    low_g: float | None = None
    high_g: float | None = None


def saved_grams(
    carbon: CarbonAccount, at_once: datetime, worked: Sequence[Stretch], waited: Sequence[Stretch]
) -> SavedGrams:
    """Return the grams of the same joules at once, less those at their own hours and of waiting.

    Args:
        carbon: Converts joules to grams.
        at_once: When the work could have started.
        worked: Stretches of the work, in order. At once, they would have followed each other.
        waited: Stretches that are due to waiting: those of the wait, of pausing and of resuming.

    Example:
        >>> from datetime import UTC
        >>> from greentrain.carbon.static import StaticIntensity
        >>> noon, hour = datetime(2026, 1, 1, 12, tzinfo=UTC), timedelta(hours=1)
        >>> germany = CarbonAccount(zone="DE")
        >>> work, wait = [(noon + hour, noon + 2 * hour, 3.6e6)], [(noon, noon + hour, 3.6e4)]
        >>> saved = saved_grams(germany, noon, work, wait)  # the same at all hours
        >>> abs(saved.grams + germany.emissions(3.6e4, noon, noon + hour).grams) < 1e-9
        True
    """
    moved: list[Stretch] = []
    begins = at_once
    for start, end, joules in worked:
        length = max(end - start, timedelta(0))
        moved.append((begins, begins + length, joules))
        begins += length
    own = [*worked, *waited]

    def of(stretches: Sequence[Stretch], value: Callable[[Stretch], float | None]) -> float | None:
        found = [value(one) for one in stretches if one[2]]
        known = [one for one in found if one is not None]
        return math.fsum(known) if len(known) == len(found) else None

    def low(one: Stretch) -> float | None:
        return carbon.bounds_g(one[2], one[0], one[1])[0]

    def high(one: Stretch) -> float | None:
        return carbon.bounds_g(one[2], one[0], one[1])[1]

    def grams(one: Stretch) -> float | None:
        return carbon.emissions(one[2], one[0], one[1]).grams

    return SavedGrams(
        grams=_less(of(moved, grams), of(own, grams)),
        low_g=_less(of(moved, low), of(own, high)),
        high_g=_less(of(moved, high), of(own, low)),
    )


def _less(more: float | None, less: float | None) -> float | None:
    return None if more is None or less is None else more - less
