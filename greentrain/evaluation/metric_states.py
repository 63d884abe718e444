"""Split a torchmetrics object into its states on blocks of samples, and join them again.

AUROC, F1 and many other metrics are no mean over samples. Their value on several blocks follows
from the joined states of the blocks, never from the values of the blocks.
"""

from __future__ import annotations

import copy
import math
import statistics
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

RESAMPLES = 50
"""Resamples of a bootstrap: its standard error is then known to about a tenth of itself."""
_UNDEFINED = ("No positive samples", "No negative samples")
_SEED = 0


class BlockStates:
    """Collect the states of a metric object, one for each block of samples.

    The object is reset after each block, so that it holds the samples of one block only. With a
    collection, all of its metrics are: they may share their states.

    Args:
        module: The module that logs the metric.
        metric: The metric object.
    """

    def __init__(self, module: nn.Module, metric: Metric) -> None:
        collections = (each for each in module.modules() if isinstance(each, MetricCollection))
        self._owner: Metric | MetricCollection = next(
            (each for each in collections if any(metric is one for one in _members(each))), metric
        )
        self._place = next(
            place for place, each in enumerate(_members(self._owner)) if each is metric
        )
        self._taken: list[list[Metric]] = []

    @property
    def mergeable(self) -> bool:
        """True if states of blocks can be joined, as they are across processes."""
        return all(_is_mergeable(each) for each in _members(self._owner))

    @property
    def states(self) -> tuple[Metric, ...]:
        """The metric object on each block."""
        return tuple(members[self._place] for members in self._taken)

    def take(self) -> None:
        """End a block: keep a copy of the states, and reset the object."""
        self._taken.append(_members(copy.deepcopy(self._owner), copy_state=True))
        self._owner.reset()

    def restore(self) -> None:
        """Give the object the joined states of all blocks."""
        for place, member in enumerate(_members(self._owner)):
            _join([members[place] for members in self._taken], into=member)


def value_of(states: Sequence[Metric]) -> float:
    """Return the value of a metric on all blocks together.

    Args:
        states: The metric object on each block; 1 or more.

    Example:
        >>> from torchmetrics.classification import BinaryAUROC
        >>> blocks = [BinaryAUROC(), BinaryAUROC()]
        >>> blocks[0].update(torch.tensor([0.1, 0.2]), torch.tensor([0, 0]))  # no positive sample
        >>> blocks[1].update(torch.tensor([0.3, 0.9]), torch.tensor([0, 1]))
        >>> value_of(blocks)
        1.0
    """
    return _computed(states)[0]


def bootstrap_error(*models: Sequence[Metric]) -> float:
    """Return the standard error of a metric, or of the difference between two models.

    Blocks are resampled with replacement, alike for both models (Efron & Tibshirani 1993, "An
    Introduction to the Bootstrap", chapter 6). Resamples in which the metric is not defined are
    left out: those without a positive sample, for example.

    Args:
        models: The metric object on each block, for one or two models.

    Returns:
        The standard error; 0 for fewer than two blocks.
    """
    blocks = len(models[0])
    if blocks < 2:
        return 0.0
    random, values = torch.Generator().manual_seed(_SEED), []
    for _ in range(RESAMPLES):
        chosen = torch.randint(blocks, (blocks,), generator=random).tolist()
        found = [_computed([states[block] for block in chosen]) for states in models]
        value = found[-1][0] - (found[0][0] if len(found) > 1 else 0.0)
        if math.isfinite(value) and all(defined for _, defined in found):
            values.append(value)
    if len(values) < 2:
        return 0.0
    return statistics.stdev(values) * math.sqrt(blocks / (blocks - 1))


def _computed(states: Sequence[Metric]) -> tuple[float, bool]:
    """Return a metric on all blocks together, and whether it is defined there."""
    whole = copy.deepcopy(states[0])
    _join(states, into=whole)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = float(whole.compute())
    undefined = any(text in str(each.message) for each in caught for text in _UNDEFINED)
    return value, not undefined


def _join(states: Sequence[Metric], *, into: Metric) -> None:
    # The private names are those of torchmetrics' own reduction across processes.
    into._computed = None
    into._update_count = sum(each._update_count for each in states)
    for name, reduction in into._reductions.items():
        setattr(into, name, _reduced([getattr(each, name) for each in states], reduction))


def _reduced(parts: Sequence[Any], reduction: Any) -> Any:
    if isinstance(parts[0], list):
        return [each for part in parts for each in part]
    if reduction is dim_zero_cat:
        return torch.cat(list(parts))
    stacked = torch.stack(list(parts))
    if reduction is dim_zero_sum:
        return stacked.sum(0)
    return stacked.amax(0) if reduction is dim_zero_max else stacked.amin(0)


def _is_mergeable(metric: Metric) -> bool:
    known = (dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum)
    reductions = list(metric._reductions.values())
    # A wrapper holds another metric, and joins its states in its own way. A metric with its own
    # `reset` has more to reset than its states, such as a plain number that `update` counts.
    nested = any(isinstance(each, Metric) for each in metric.children())
    own_reset = type(metric).reset is not Metric.reset
    splits = bool(reductions) and not nested and not own_reset
    return splits and all(each in known for each in reductions)


def _members(owner: Metric | MetricCollection, *, copy_state: bool = False) -> list[Metric]:
    if isinstance(owner, MetricCollection):
        return list(owner.values(copy_state=copy_state))
    return [owner]
