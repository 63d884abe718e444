"""Building blocks for the choice of samples that a bounded buffer keeps.

All functions depend on counts and groups only, and refer to samples by position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from greentrain.memory.protocol import Sample
from greentrain.memory.sample_table import Indices, SampleTable


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionInput:
    """The input of a retention plan.

    Args:
        table: The stored samples and earlier counts, in which all groups of new samples exist.
        new: Group of each new sample, by its position in ``table.keys``, ``(new,)``.
        dataset: The new samples, for plans that look at them.
        capacity: Number of samples that the buffer may store.
        random: Source of randomness, the same for the same input.
    """

    table: SampleTable
    new: Indices
    dataset: Dataset[Sample]
    capacity: int
    random: np.random.Generator

    def positions_by_group(self) -> Iterator[tuple[Indices, Indices]]:
        """Return the positions of the stored and of the new samples of each group."""
        n_groups = len(self.table.keys)
        stored, new = members(self.table.group, n_groups), members(self.new, n_groups)
        return zip(stored, new, strict=True)

    def counts(self) -> tuple[Indices, Indices]:
        """Return the numbers of stored and of new samples of each group."""
        n_groups = len(self.table.keys)
        stored = np.bincount(self.table.group, minlength=n_groups)
        return stored, np.bincount(self.new, minlength=n_groups)


def algorithm_r(
    seen: int, stored: int, new: int, capacity: int, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Extend a uniform sample of the earlier samples to one of all samples.

    Vitter 1985, "Random Sampling with a Reservoir", Algorithm R. The n-th sample chooses one of n
    places, and replaces the sample there if the place is in the reservoir. All places are chosen
    at once, and of several samples in one place the last remains. If the capacity has shrunk, a
    uniform part of the reservoir stays, which is a uniform sample as well.

    Args:
        seen: Number of earlier samples.
        stored: Number of those that are stored, a uniform sample of them.
        new: Number of new samples.
        capacity: Number of samples that may be stored. A reservoir that was full and has lost
            samples does not grow again: that would favour new samples.
        random: Source of randomness.

    Returns:
        Positions of the stored samples that stay and of the new ones to insert, each ascending.
    """
    keep = np.arange(stored)
    if stored > capacity:
        keep = np.sort(random.choice(stored, capacity, replace=False))
    elif stored < seen:
        capacity = stored
    if not capacity:
        return keep, np.arange(0)
    filling = min(capacity - len(keep), new)
    places = np.concatenate([keep, stored + np.arange(filling)])
    chosen = random.integers(0, seen + np.arange(filling, new) + 1)
    late = np.flatnonzero(chosen < capacity)
    places[chosen[late]] = stored + filling + late  # NumPy keeps the last of repeated places
    return np.sort(places[places < stored]), np.sort(places[places >= stored]) - stored


def reservoir_slots(
    new: int, seen: int, capacity: int, generator: torch.Generator
) -> dict[int, int]:
    """Return which new sample replaces which numbered place (Vitter 1985, algorithm R).

    Args:
        new: Number of new samples.
        seen: Number of earlier samples; the first ``capacity`` ones filled the places.
        capacity: Number of places.
        generator: Source of randomness.

    Returns:
        Positions of new samples, by place.
    """
    slots: dict[int, int] = {}
    for index, share in enumerate(torch.rand(new, generator=generator).tolist()):
        seen += 1
        slot = seen - 1 if seen <= capacity else int(share * seen)
        if slot < capacity:
            slots[slot] = index
    return slots


def equal_shares(limits: Indices, capacity: int) -> Indices:
    """Divide places as equally as possible among groups that can each use a limited number.

    Args:
        limits: Places that each group can use, ``(n,)``.
        capacity: Number of places.

    Returns:
        Places of each group, at most ``capacity`` together. A remainder goes to the first groups.

    Example:
        >>> equal_shares(np.array([9, 2, 9]), 11).tolist()
        [5, 2, 4]
    """
    shares = np.zeros_like(limits)
    left = min(capacity, int(limits.sum()))
    while left:
        open_ = np.flatnonzero(shares < limits)
        if left < len(open_):
            shares[open_[:left]] += 1
            break
        step = min(left // len(open_), int((limits - shares)[open_].min()))
        shares[open_] += step
        left -= step * len(open_)
    return shares


def members(groups: Indices, n_groups: int) -> list[Indices]:
    """Return the positions of the members of each group, ascending."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=n_groups))
    return np.split(order, ends[:-1])


def ones_at(where: Indices, n: int) -> Indices:
    """Return ``n`` numbers that are 1 at some positions, and 0 elsewhere."""
    ones = np.zeros(n, dtype=np.int64)
    ones[where] = 1
    return ones
