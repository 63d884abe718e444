"""Type of the estimated share of a job in the report document."""

from __future__ import annotations

from typing import TypedDict


class JobShareFigures(TypedDict):
    """An estimated share of one source, and the joules that it makes.

    No other figure is divided by it. ``low_j`` and ``high_j`` are the whole source's joules times
    the shares; ``standard_uncertainty`` is that of the mean of both shares.
    """

    source: str
    low: float
    high: float
    standard_uncertainty: float
    basis: str
    low_j: float | None
    high_j: float | None
