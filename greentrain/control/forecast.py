"""What experiences to come are expected to offer: that is what joules are saved for."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from greentrain.control.action import Option, State, Table, UpdateMode
from greentrain.control.utility import UtilityModel

POINTS = 4
"""Experiences to come that are imagined, at most: each stands for as many as are near it."""
CLOSING = 2.4
"""Share of what is left to gain that a warm start closes, per effort: ``1 - exp(-2.4 step_fraction)``.

Read off the same trainings as the priors of :mod:`greentrain.control.utility`.
"""
EXPECTED_STALENESS = ((0.0, 0.7), (0.1, 0.15), (0.5, 0.15))
"""What new data may lose, and how many experiences of having seen that it counts for.

Nothing new, a drift, a break. What a stream brings soon outweighs it.
"""


def outlook(
    options: Sequence[Option],
    state: State,
    utility: UtilityModel,
    stale: Sequence[float],
    left_j: float,
) -> tuple[tuple[Table, ...], tuple[float, ...]]:
    """Imagine the options of experiences to come.

    Each brings as many samples as there were on average so far, the model stays as good as it is,
    and the new data go as much worse than the last model did as they did before, or as a prior
    expects. A gain counts for as many experiences as it lasts: if each update closes a share ``r``
    of what is left to gain, what one has gained is worth ``1 + (1 - r) + (1 - r)**2 + ...`` over
    the experiences that remain. So what is cheap early, while there is little data, is done early.

    Args:
        options: The options now.
        state: What is known now.
        utility: Predicts gains.
        stale: How much worse new data went than the last model did, so far.
        left_j: Joules that may be spent on this experience and those to come.

    Returns:
        The tables, with gains in units of one that comes now, and how many experiences each of
        them stands for.
    """
    ahead = state.remaining - 1
    if not state.has_model or ahead < 1:
        return (), ()
    lines = _lines(options)
    n_all = state.n_new + state.n_stored
    n_each = max(1.0, n_all / (state.position + 1))
    cases = _cases([*stale, state.staleness] if state.metric_new is not None else stale)
    even_j = left_j / state.remaining
    rate = _rate(options, lines, even_j)
    tables, weights = [], []
    for first, last in _spans(ahead):
        middle = (first + last) / 2
        then = dataclasses.replace(
            state, n_new=round(n_each), n_stored=round(n_all + (middle - 1) * n_each)
        )
        share = n_each / (n_each + then.n_stored)
        lasting = _lasting(rate, state.remaining - middle) / _lasting(rate, state.remaining)
        growth = {
            UpdateMode.REPLAY: n_each / max(1, state.n_new),
            UpdateMode.WARM_START: (n_each + then.n_stored) / max(1, n_all),
            UpdateMode.FULL_RETRAIN: (n_each + then.n_stored) / max(1, n_all),
            UpdateMode.SKIP: 0.0,
        }
        costs_j = [
            lines[option.action.mode][0]
            + lines[option.action.mode][1] * option.candidate.steps * growth[option.action.mode]
            if option.candidate.steps
            else 0.0
            for option in options
        ]
        means, sds = utility.gains(
            [option.action for option in options], then, [stale_by * share for stale_by, _ in cases]
        )
        careful = np.array([risk_discount(cost_j, even_j) for cost_j in costs_j])
        values = lasting * (means - careful * sds)
        for row, (_, weight) in zip(values.tolist(), cases, strict=True):
            tables.append(tuple(zip(costs_j, row, strict=True)))
            weights.append(weight * (last - first + 1))
    return tuple(tables), tuple(weights)


def risk_discount(cost_j: float, even_j: float) -> float:
    """Return how many standard deviations below its mean a gain is taken for.

    What takes the joules of several experiences has to be sure: none up to an even share of what is
    left, one from three of them on, in proportion in between.

    Example:
        >>> [risk_discount(cost_j, 10.0) for cost_j in (5.0, 20.0, 40.0)]
        [0.0, 0.5, 1.0]
    """
    dear = cost_j / even_j if even_j > 0 else math.inf
    return min(1.0, max(0.0, (dear - 1.0) / 2.0))


def _rate(
    options: Sequence[Option], lines: dict[UpdateMode, tuple[float, float]], share_j: float
) -> float:
    """Return the share of what a model may still gain that an update of an even share closes."""
    for option in options:
        if option.action.mode is UpdateMode.WARM_START and option.candidate.steps:
            fixed_j, step_j = lines[UpdateMode.WARM_START]
            usual_j = step_j * option.candidate.steps / option.action.step_fraction
            step_fraction = max(0.0, share_j - fixed_j) / usual_j if usual_j > 0 else 1.0
            return 1.0 - math.exp(-CLOSING * step_fraction)
    return 1.0


def _lasting(rate: float, remaining: float) -> float:
    """Return for how many experiences a gain counts if each update closes a share of the rest."""
    kept = 1.0 - rate
    return remaining if rate < 1e-6 else (1.0 - kept**remaining) / rate


def _spans(ahead: int) -> list[tuple[int, int]]:
    """Cut 1 .. ahead into at most ``POINTS`` spans of about the same length."""
    points = min(POINTS, ahead)
    edges = [round(point * ahead / points) for point in range(points + 1)]
    return [(edges[point] + 1, edges[point + 1]) for point in range(points)]


def _cases(stale: Sequence[float]) -> list[tuple[float, float]]:
    """Return what new data may lose, with the probability: seen before, or expected beforehand.

    What was seen is told in thirds, lowest first: a long past costs no more than a short one.
    """
    seen = sorted(max(0.0, each) for each in stale)
    prior = sum(weight for _, weight in EXPECTED_STALENESS)
    total = prior + len(seen)
    cases = [(value, weight / total) for value, weight in EXPECTED_STALENESS]
    parts = min(3, len(seen))
    edges = [round(part * len(seen) / parts) for part in range(parts + 1)] if parts else []
    for begin, end in itertools.pairwise(edges):
        part = seen[begin:end]
        cases.append((sum(part) / len(part), len(part) / total))
    return cases


def _lines(options: Sequence[Option]) -> dict[UpdateMode, tuple[float, float]]:
    """Return joules at no step, and per step, of each update mode: predictions lie on a line."""
    lines: dict[UpdateMode, tuple[float, float]] = {}
    for mode in {option.action.mode for option in options}:
        points = sorted(
            (option.candidate.steps, option.cost_j.mean)
            for option in options
            if option.action.mode is mode
        )
        (few, low_j), (many, high_j) = points[0], points[-1]
        slope_j = (high_j - low_j) / (many - few) if many > few else 0.0
        lines[mode] = (max(0.0, low_j - slope_j * few), slope_j)
    return lines
