"""A buffer that keeps equally many samples of each class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.bounded import BoundedBuffer, Rank
from greentrain.memory.labels import read_labels
from greentrain.memory.protocol import Sample
from greentrain.memory.retention import RetentionInput, algorithm_r, equal_shares, ones_at
from greentrain.memory.sample_table import Indices, Key, RetentionPlan
from greentrain.texts import get_logger
from greentrain.units import is_whole

_log = get_logger(__name__)


class ClassBalancedBuffer(BoundedBuffer):
    """Keep equally many samples of each class, each a uniform sample of its class so far.

    Places are freed as new classes arrive. Other classes use the places that a small class does
    not need, so the buffer is full as soon as enough samples have arrived. Class counts are those
    of GDumb's greedy sampler (Prabhu et al. 2020, Algorithm 1), up to one sample. GDumb keeps
    mostly the first samples of a class; this buffer keeps all of them with equal probability. The
    share of a class that has lost samples never grows again, so that this stays true.

    With fewer places than classes, as many classes as fit keep one sample each, chosen at random
    among all classes so far. A warning is logged once.

    Args:
        max_size: As for :class:`ReservoirBuffer`, and so are ``seed``, ``folder``, ``rank`` and
            ``world_size``.
        per_class: Most samples of a class to keep, from the start on.
        per_experience: Count each class of each experience as a separate class, for streams that
            bring the same classes again from other domains.
        label: Function that returns the label of a sample; by default the second item of a
            sequence, or ``sample["label"]``.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> buffer = ClassBalancedBuffer(9)
        >>> for label, count in [(0, 100), (1, 2), (2, 100)]:
        ...     labels = torch.full((count,), label)
        ...     buffer.add(TensorDataset(torch.zeros(count), labels), origin=f"class {label}")
        >>> [len(buffer.select(lambda origin: origin == f"class {n}")) for n in range(3)]
        [4, 2, 3]
    """

    def __init__(
        self,
        max_size: int | str,
        *,
        per_class: int | None = None,
        per_experience: bool = False,
        label: Callable[[Sample], Any] | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        rank: Rank = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(max_size, seed=seed, folder=folder, rank=rank, world_size=world_size)
        if per_class is not None and not is_whole(per_class, 1):
            raise ConfigurationError(
                f"per_class is {per_class!r}; it must be the most samples of a class to keep: a "
                "whole number, 1 or more, or None"
            )
        self._per_class = None if per_class is None else int(per_class)
        self._per_experience = per_experience
        self._label = label
        self._warned = False

    def settings(self) -> dict[str, Any]:
        """Return the arguments that have to be the same when a state is loaded."""
        own = {"per_class": self._per_class, "per_experience": self._per_experience}
        return {**super().settings(), **own}

    def groups(self, dataset: Dataset[Sample], origin: str) -> tuple[list[Key], Indices]:
        """Return the classes of the samples."""
        labels, places = read_labels(dataset, self._label)
        return [(label, origin if self._per_experience else None) for label in labels], places

    def plan(self, given: RetentionInput) -> RetentionPlan:
        """Share the places equally among the classes, and sample uniformly within each class."""
        table, random, capacity = given.table, given.random, given.capacity
        self._warned = warn_if_crowded(len(table.keys), capacity, self._warned)
        stored, new = given.counts()
        limits = stored + new
        if self._per_class is not None:
            limits = np.minimum(limits, self._per_class)
        if np.count_nonzero(limits) > capacity:
            old, fresh = np.flatnonzero(stored), np.flatnonzero((table.seen == 0) & (limits > 0))
            keep, insert = algorithm_r(table.groups_seen, len(old), len(fresh), capacity, random)
            limits = ones_at(np.concatenate([old[keep], fresh[insert]]), len(limits))
        keeps, inserts = [np.arange(0)], [np.arange(0)]
        targets = equal_shares(limits, capacity).tolist()
        groups = zip(table.seen.tolist(), targets, given.positions_by_group(), strict=True)
        for seen, target, (stored, new) in groups:
            keep, insert = algorithm_r(seen, len(stored), len(new), target, random)
            keeps.append(stored[keep])
            inserts.append(new[insert])
        keep, insert = np.concatenate(keeps), np.concatenate(inserts)
        return RetentionPlan(keep=np.sort(keep), insert=np.sort(insert))


def warn_if_crowded(n_classes: int, capacity: int, warned: bool) -> bool:
    """Log once if there are more classes than places, and return whether that has been logged."""
    if n_classes > capacity and not warned:
        _log.warning(
            "the buffer has room for %d samples and there are %d classes: as many classes as fit "
            "keep one sample each, chosen at random",
            capacity,
            n_classes,
        )
    return warned or n_classes > capacity
