"""Micro-profiling: whether a short trial of two updates is worth its joules, and what it says."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greentrain.control.action import Estimate, Option
from greentrain.control.regression import Vector

PROFILE_SHARE = 0.05
"""Share of the difference in cost that is at stake which a profile may draw."""
_SURE_SD = 2.0
_POINTS = 4
"""Different steps below which a curve of three parameters says nothing."""
_LEVELS = 64
_LEAST_SD = 1e-4
_LARGEST = 1e12
_UNLIKELY = 1e-4


def worth_profiling(best: Option, second: Option, profile_j: float) -> bool:
    """Tell whether to try two options on a part of the data before choosing one of them.

    Only where their gains, each with two standard deviations to both sides, overlap, and where the
    trial draws less than 5 % of the difference in what they cost. The idea is that of Ekya
    (Bhardwaj et al. 2022, section 4), whose trials take 5 to 10 % of the data; the condition is our
    own.

    Args:
        best: One of the two best options.
        second: The other one.
        profile_j: Joules that trying both would draw.

    Example:
        >>> def option(gain, cost_j):
        ...     return Option(
        ...         candidate=None,
        ...         cost_j=Estimate(mean=cost_j, sd=0.0, upper=cost_j),
        ...         gain=Estimate(mean=gain, sd=0.01, upper=gain + 0.02),
        ...     )
        >>> worth_profiling(option(0.10, 500.0), option(0.08, 100.0), 15.0)  # 5 % are 20 J
        True
        >>> worth_profiling(option(0.10, 500.0), option(0.08, 100.0), 25.0)
        False
        >>> worth_profiling(option(0.10, 500.0), option(0.01, 100.0), 15.0)  # no doubt
        False
    """
    apart = abs(best.gain.mean - second.gain.mean)
    overlap = apart <= _SURE_SD * (best.gain.sd + second.gain.sd)
    stake_j = abs(best.cost_j.mean - second.cost_j.mean)
    return overlap and 0 <= profile_j < PROFILE_SHARE * stake_j


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How a metric rises with training: a weighted family of curves that fit what was seen.

    Each of them is ``ceiling - (1 / (b0 * k + b1) + b2)`` at step ``k``.

    Args:
        ceiling: The best value of the metric.
        levels: ``(weight, b0, b1, b2)`` of each; the weights sum to 1.
        noise_sd: Standard deviation of what was seen around the best of them.
    """

    ceiling: float
    levels: tuple[tuple[float, float, float, float], ...]
    noise_sd: float

    def at(self, steps: float) -> Estimate:
        """Predict the metric that a training of some steps would reach.

        Args:
            steps: Steps; fewer than 1 count as 1.

        Returns:
            The mean, the standard deviation, in which the curves' disagreement and the noise are
            taken together, and the mean plus two of them.
        """
        weights, b0, b1, b2 = np.array(self.levels).T
        metrics = self.ceiling - (1.0 / (b0 * max(steps, 1.0) + b1) + b2)
        mean = float(weights @ metrics)
        sd = math.hypot(self.noise_sd, *(np.sqrt(weights) * (metrics - mean)))
        return Estimate(mean=mean, sd=sd, upper=mean + _SURE_SD * sd)


def fit_curve(
    steps: Sequence[float], metrics: Sequence[float], *, ceiling: float = 1.0
) -> Curve | None:
    """Fit the learning curve of Optimus to a short training, to say where a long one would end.

    ``metric(k) = ceiling - (1 / (b0 * k + b1) + b2)`` with ``b0, b1, b2 >= 0`` (Peng et al. 2018,
    "Optimus", section 3.1, for a loss; Bhardwaj et al. 2022, "Ekya", section 4, for accuracy). For
    each of 64 values of ``b2``, what is never learned, ``b0`` and ``b1`` follow by non-negative
    least squares on ``1 / (ceiling - metric - b2)``, with weights by which an error of the metric
    counts as one of the curve. A single ``b2`` would be a guess, as a short training hardly shows
    it: each is weighted by its likelihood, and their disagreement is part of what is said about
    long trainings. A second round takes 64 values among the likely ones.

    Args:
        steps: Steps after which the metric was measured; those below 1 are left out.
        metrics: The metric then, oriented: higher is better. What is not finite is left out.
        ceiling: The best value of the metric.

    Returns:
        The curve; ``None`` where nothing can be said: with fewer than four different steps, or
        where the metric lies above its ceiling, or never below it.

    Example:
        >>> seen = [1 - (1 / (0.1 * k + 2) + 0.05) for k in (10, 20, 40, 80)]
        >>> curve = fit_curve([10, 20, 40, 80], seen)
        >>> round(curve.at(1000).mean, 2)  # 1 - (1 / 102 + 0.05)
        0.94
    """
    pairs = [
        (float(step), ceiling - float(metric))
        for step, metric in zip(steps, metrics, strict=True)
        if 1 <= step <= _LARGEST and math.isfinite(metric)
    ]
    k, loss = (np.array([pair[place] for pair in pairs]) for place in range(2))
    if len(set(k.tolist())) < _POINTS or loss.min() < 0:
        return None
    if not 1 / _LARGEST <= loss.max() <= _LARGEST:
        return None
    scale = float(loss.max())  # so that no constant has a unit
    levels = np.linspace(0.0, 1.0, _LEVELS, endpoint=False)
    for _ in range(2):  # once for all values, once for those that are likely
        fitted, squares = _fit_levels(k, loss / scale, levels)
        variance = max(float(squares.min()) / (len(k) - 3), _LEAST_SD**2)
        weights = np.exp(-0.5 * (squares - squares.min()) / variance)
        likely, step = fitted[weights > _UNLIKELY, 2], levels[1] - levels[0]
        levels = np.linspace(max(0.0, likely.min() - step), likely.max() + step, _LEVELS)
    b0, b1, b2 = fitted.T
    shares = weights / weights.sum()
    rows = np.stack([shares, b0 / scale, b1 / scale, b2 * scale], axis=1)
    return Curve(
        ceiling=ceiling,
        levels=tuple((row[0], row[1], row[2], row[3]) for row in rows.tolist()),
        noise_sd=math.sqrt(variance) * scale,
    )


def _fit_levels(k: Vector, loss: Vector, levels: Vector) -> tuple[Vector, Vector]:
    """Return the best (b0, b1, b2) for each value of b2, and their squared errors."""
    optimize = importlib.import_module("scipy.optimize")  # a fifth of a second
    longest = float(k.max())
    shares = k / longest
    fitted, squares = [], []
    for b2 in levels:
        rest = np.maximum(loss - b2, 0.0)
        # An error of the rest is one of 1 / rest divided by its square.
        rows = np.stack([rest**2 * shares, rest**2], axis=1)
        (b0, b1), _ = optimize.nnls(rows, rest)
        if b0 + b1 <= 0:
            continue
        misses = 1.0 / (b0 * shares + b1) + b2 - loss
        fitted.append((b0 / longest, b1, b2))
        squares.append(misses @ misses)
    return np.array(fitted), np.array(squares)
