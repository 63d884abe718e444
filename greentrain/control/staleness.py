"""Possible losses of the metric by new data: as a probe found, or as the past and labels expect."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from greentrain.control.state import State

EXPECTED_STALENESS = ((0.0, 0.7), (0.1, 0.15), (0.5, 0.15))
"""Prior of the staleness on new data, with its weight in experiences: none, a drift, a break.

It is in units of the metric. The stream's own experiences soon outweigh it.
"""
_BREAK = max(value for value, _ in EXPECTED_STALENESS)
_TELLING = 0.05
"""Smallest share of new data in all data at which a drop gives the staleness on the new."""

Case = tuple[float, float]
"""A possible value with its probability."""


def staleness_cases(stale: Sequence[float], unit: float) -> list[Case]:
    """Return possible stalenesses with their probability, from the prior and from the past.

    The past is summarised in thirds, lowest first, so that a long past costs no more time.

    Args:
        stale: Staleness at earlier experiences.
        unit: Unit of the metric: see :attr:`~greentrain.control.state.State.unit`.
    """
    seen = sorted(max(0.0, each) for each in stale)
    prior = sum(weight for _, weight in EXPECTED_STALENESS)
    total = prior + len(seen)
    cases = [(value * unit, weight / total) for value, weight in EXPECTED_STALENESS]
    parts = min(3, len(seen))
    edges = [round(part * len(seen) / parts) for part in range(parts + 1)] if parts else []
    for begin, end in itertools.pairwise(edges):
        part = seen[begin:end]
        cases.append((sum(part) / len(part), len(part) / total))
    return cases


def drop_cases(state: State, stale: Sequence[float]) -> list[Case]:
    """Return the possible drops by the new data, each with its probability.

    Data that were probed with labels have one. If the metric was estimated without labels, there
    are three, with its mean and its standard error (the nodes of Gauss and Hermite). Of others the
    staleness is as it was at earlier experiences. Samples that are copies lose nothing. Those of a
    class that was never seen lose everything: the metric of a model on them is about 0, and a loss
    is as after a break.

    Args:
        state: The state.
        stale: Staleness at earlier experiences.

    Example:
        >>> state = State(position=1, num_experiences=2, has_model=True, metric_before=None,
        ...     metric_last=0.8, metric_ceiling=1.0, n_new=50, n_stored=50, unseen=1.0)
        >>> drop_cases(state, [])  # the whole metric of half of the samples
        [(0.4, 0.7), (0.4, 0.15), (0.4, 0.15)]
    """
    if state.metric_new is not None and math.isfinite(state.metric_new):
        # A negative drop (the new data score better) is chance: no update removes it.
        if state.estimated_by:
            return _of_estimate(state)
        return [(max(0.0, state.drop), 1.0)]
    share = state.n_new / max(1, state.n_new + state.n_stored)
    return [(share * value, weight) for value, weight in _of_present(state, stale)]


def staleness_of(state: State, stale: Sequence[float]) -> float | None:
    """Return the staleness on the present data: as probed, or as expected from their labels.

    ``None`` if they were not probed, and bring no class that was never seen.

    Args:
        state: The state.
        stale: Staleness at earlier experiences.
    """
    if state.metric_new is not None:
        return state.staleness
    if not state.unseen:
        return None
    return math.fsum(value * weight for value, weight in _of_present(state, stale))


def staleness_found(state: State, metric_after: float | None, gain: float | None) -> float | None:
    """Return the staleness that follows from a comparison after an update, or ``None``.

    Args:
        state: The state before the update.
        metric_after: The metric of the trained model, oriented.
        gain: Its gain.
    """
    share = state.n_new / max(1, state.n_new + state.n_stored)
    if metric_after is None or gain is None or state.metric_last is None or share < _TELLING:
        return None
    stale = (state.metric_last - (metric_after - gain)) / share
    return min(max(0.0, stale), state.unit) if math.isfinite(stale) else None


def _of_estimate(state: State) -> list[Case]:
    """Return the possible drops of an estimate: its mean is shrunk, and so is its error."""
    share = state.n_new / max(1, state.n_new + state.n_stored)
    stale, sd = state.staleness, state.metric_new_sd or 0.0
    last = state.metric_last if state.metric_last is not None else 0.0
    found = last - (state.metric_new or 0.0)
    left = abs(found) * sd / math.hypot(found, sd) if found and sd else 0.0
    far = math.sqrt(3.0) * left
    each = ((stale - far, 1 / 6), (stale, 2 / 3), (stale + far, 1 / 6))
    return [(share * max(0.0, value), weight) for value, weight in each]


def _of_present(state: State, stale: Sequence[float]) -> list[Case]:
    """Return the possible stalenesses on data that were not probed."""
    unseen = state.unseen or 0.0
    known = max(0.0, 1.0 - unseen - (state.copies or 0.0))
    by_class = state.metric_last if state.metric_ceiling == 1 else None
    lost = _BREAK * state.unit if by_class is None else by_class
    return [
        (known * value + unseen * lost, weight)
        for value, weight in staleness_cases(stale, state.unit)
    ]
