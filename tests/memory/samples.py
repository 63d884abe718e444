"""Small datasets in which each sample is a different number, and the buffers to store them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset

from greentrain.memory import (
    Buffer,
    ClassBalancedBuffer,
    HerdingBuffer,
    RandomReplacementBuffer,
    ReservoirBuffer,
    size,
)
from greentrain.memory.datasets import fetch

BOUNDED = [ReservoirBuffer, RandomReplacementBuffer, ClassBalancedBuffer, HerdingBuffer]


def numbers(start: int, stop: int) -> TensorDataset:
    """Samples ``(number,)``."""
    return TensorDataset(torch.arange(start, stop))


def labelled(start: int, count: int, classes: int = 3) -> TensorDataset:
    """Samples ``(number, label)``, each class as often as may be."""
    number = torch.arange(start, start + count)
    return TensorDataset(number, number % classes)


def arrivals(sizes: Sequence[int]) -> list[tuple[str, TensorDataset]]:
    """Experiences of some sizes, with consecutive numbers."""
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        (f"experience {place}", labelled(start, count))
        for place, (start, count) in enumerate(zip(starts, sizes, strict=True))
    ]


def held(dataset: Dataset[Any]) -> list[int]:
    """The numbers in a dataset, in order."""
    return [int(sample[0]) for sample in fetch(dataset, range(size(dataset)))]


def everything(buffer: Buffer) -> list[int]:
    """The numbers in a buffer, in order."""
    return held(buffer.select(lambda origin: True))
