"""Buffers that choose at random, without looking at the samples."""

from __future__ import annotations

import numpy as np

from greentrain.memory.bounded import BoundedBuffer
from greentrain.memory.retention import RetentionInput, algorithm_r
from greentrain.memory.sample_table import RetentionPlan


class ReservoirBuffer(BoundedBuffer):
    """Keep a uniform sample of all samples so far (Vitter 1985, Algorithm R).

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> buffer = ReservoirBuffer(10)
        >>> buffer.add(TensorDataset(torch.arange(100.0)), origin="first")
        >>> len(buffer), buffer.nbytes
        (10, 40)
    """

    def plan(self, given: RetentionInput) -> RetentionPlan:
        """Keep each sample so far with the same probability."""
        seen, stored = int(given.table.seen.sum()), len(given.table)
        keep, insert = algorithm_r(seen, stored, len(given.new), given.capacity, given.random)
        return RetentionPlan(keep=keep, insert=insert)


class RandomReplacementBuffer(BoundedBuffer):
    """Replace random stored samples by ``max_size / i`` random samples of the i-th experience.

    Pellegrini et al. 2020, "Latent Replay for Real-Time Continual Learning", Algorithm 1. Each
    experience counts alike, however large it is; in a reservoir each sample counts alike. A
    fractional number is met on average. Free places are filled before anything is replaced; the
    paper has no free places after the first experience.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> buffer = RandomReplacementBuffer(100)
        >>> for name, count in [("first", 1000), ("second", 100)]:
        ...     buffer.add(TensorDataset(torch.zeros(count)), origin=name)
        >>> len(buffer.select(lambda origin: origin == "second"))  # 100 / 2
        50
    """

    def plan(self, given: RetentionInput) -> RetentionPlan:
        """Replace as many random samples as the experience's share of the capacity."""
        n_stored, n_new, capacity = len(given.table), len(given.new), given.capacity
        share = capacity / (given.table.adds + 1)
        wanted = int(share) + int(given.random.random() < share % 1)
        n_insert = min(n_new, max(wanted, capacity - n_stored))
        n_keep = n_stored - max(0, n_stored + n_insert - capacity)
        return RetentionPlan(
            keep=np.sort(given.random.choice(n_stored, n_keep, replace=False)),
            insert=np.sort(given.random.choice(n_new, n_insert, replace=False)),
        )
