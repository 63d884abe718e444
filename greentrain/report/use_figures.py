"""Types of the report's figures on what energy and operations were used for."""

from __future__ import annotations

from typing import TypedDict


class UseFigures(TypedDict):
    """The energy that was used for one purpose, and how often."""

    use: str
    count: int | None
    energy_j: float


class ComputeFigures(TypedDict):
    """Floating-point operations of the trainings that were counted.

    Probes and validation are not included. ``flops_note`` is the first reason for a training
    without them.
    """

    flops: float | None
    trainings: int
    trainings_without_flops: int
    flops_note: str | None
