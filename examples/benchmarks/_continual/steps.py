"""Seconds per step of each experience, and the growth of a quantity over a stream."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from _results import Row
from pytorch_lightning import Callback

from greentrain.metrics import slope


class StepTimes(Callback):
    """Measure the median time from the end of one step to the end of the next, for each fit.

    Args:
        clock: Function that returns seconds.

    Attributes:
        medians_s: Seconds per step in each fit, with the loader; ``None`` for a fit of one step.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.medians_s: list[float | None] = []
        self._ends_s: list[float] = []

    def on_train_start(self, *args: Any) -> None:
        self._ends_s = []

    def on_train_batch_end(self, *args: Any) -> None:
        self._ends_s.append(self.clock())

    def on_train_end(self, *args: Any) -> None:
        self.medians_s.append(median_gap(self._ends_s))


def median_gap(ends_s: Sequence[float]) -> float | None:
    """Return the median of the differences between successive times; ``None`` for one time."""
    gaps = [later - sooner for sooner, later in pairwise(ends_s)]
    return statistics.median(gaps) if gaps else None


def growth(id: str, what: str, values: Sequence[float | None], *, held_to: bool, note: str) -> Row:
    """Return the growth of a quantity from one experience to the next, at least.

    Args:
        id: Id of the row.
        what: Description of the quantity.
        values: One value for each experience; ``None`` if it is unknown.
        held_to: Whether it must not grow.
        note: Method of the measurement.
    """
    fitted = slope(values)
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known)
    if not mean:
        note = f"not known: each value is 0, as where nothing was affordable; {note}"
        return Row(
            id=id, what=what, value=None, unit="% per experience", seeds=len(known), note=note
        )
    percent = 100 / mean
    low, high = (percent * bound for bound in fitted.interval or (0.0, 0.0))
    return Row(
        id=id,
        what=what,
        value=max(0.0, low),
        unit="% per experience",
        reach=0.0 if held_to else None,
        seeds=len(known),
        interval=(low, high),
        note=f"{note}; the lower end of the slope's 95 % interval, or 0 if that is below, with the "
        "interval, in % of the mean",
    )
