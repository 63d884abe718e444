"""Buffers that choose at random, whatever a sample is of."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from greentrain.memory.bounded import BoundedBuffer
from greentrain.memory.plans import Offer, Plan, replacement, reservoir
from greentrain.memory.protocol import Sample


class ReservoirBuffer(BoundedBuffer):
    """Keep a uniform sample of everything that ever came (Vitter 1985, Algorithm R).

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> buffer = ReservoirBuffer(10)
        >>> buffer.add(TensorDataset(torch.arange(100.0)), origin="first")
        >>> len(buffer), buffer.nbytes
        (10, 40)
    """

    def plan(self, offer: Offer, dataset: Dataset[Sample], random: np.random.Generator) -> Plan:
        """See :func:`~greentrain.memory.plans.reservoir`."""
        return reservoir(offer, random)


class RandomReplacementBuffer(BoundedBuffer):
    """Let ``max_size / i`` random samples of the i-th experience replace as many random old ones.

    Pellegrini et al. 2020, "Latent Replay for Real-Time Continual Learning", Algorithm 1. Each
    experience counts alike, however large it is, where a reservoir counts each sample alike.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> buffer = RandomReplacementBuffer(100)
        >>> for name, count in [("first", 1000), ("second", 100)]:
        ...     buffer.add(TensorDataset(torch.zeros(count)), origin=name)
        >>> len(buffer.select(lambda origin: origin == "second"))  # 100 / 2
        50
    """

    def plan(self, offer: Offer, dataset: Dataset[Sample], random: np.random.Generator) -> Plan:
        """See :func:`~greentrain.memory.plans.replacement`."""
        return replacement(offer, random)
