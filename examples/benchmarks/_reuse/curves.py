"""Joules at which a curve of accuracy reaches a target, and their ratio over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Curve = Sequence[tuple[float, float]]
"""Joules and accuracy of trainings of growing length."""
_DRAWS = 1000


def joules_at(curve: Curve, target: float) -> float | None:
    """Return the joules at which a curve first reaches an accuracy, between its points in a line.

    Example:
        >>> joules_at([(10.0, 80.0), (20.0, 90.0)], 85.0), joules_at([(10.0, 80.0)], 85.0)
        (15.0, None)
    """
    first_j, first = curve[0]
    if first >= target:
        return first_j
    for (low_j, low), (high_j, high) in pairwise(curve):
        if high >= target:
            return low_j + (high_j - low_j) * (target - low) / (high - low)
    return None


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of the curves of several seeds, point by point."""
    return [
        (statistics.fmean(j for j, _ in points), statistics.fmean(value for _, value in points))
        for points in zip(*curves, strict=True)
    ]


def ratio(
    curves: Sequence[Curve], references: Sequence[Curve], target: Sequence[float]
) -> float | None:
    """Return the joules of curves at the mean target, in percent of those of the references."""
    wanted = statistics.fmean(target)
    own = joules_at(mean_curve(curves), wanted)
    reference = joules_at(mean_curve(references), wanted)
    return None if own is None or reference is None else 100 * own / reference


def bootstrap(
    curves: Sequence[Curve], references: Sequence[Curve], target: Sequence[float]
) -> tuple[float, float] | None:
    """Return a 95 % interval of :func:`ratio`, by sampling seeds again; ``None`` for one seed."""
    if len(curves) < 2:
        return None
    random = np.random.default_rng(0)
    values = []
    for _ in range(_DRAWS):
        drawn = random.integers(len(curves), size=len(curves))
        value = ratio(*([part[at] for at in drawn] for part in (curves, references, target)))
        values.append(np.inf if value is None else value)
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return (float(low), float(high)) if np.isfinite(high) else None
