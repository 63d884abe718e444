"""Hash the samples of an experience, so that an outcome can be tied to its data."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain.evaluation.signals.drift import spread
from greentrain.memory import size
from greentrain.memory.datasets import BatchedConcatDataset, ColumnDataset, column_runs
from greentrain.memory.layout import format_layout, sample_bytes

MOST_BYTES = 64 * 2**20
"""Largest size of the samples that are hashed: a few hundredths of a second."""
MOST_READ = 64
"""Most samples that are read of a dataset that is not in memory."""
_FIRST = b"greentrain samples 1\n"
"""First bytes that are hashed: the version of the rule."""
_CHUNK = 1024
_IN_MEMORY = (TensorDataset, ColumnDataset)
_JOINS = (ConcatDataset, BatchedConcatDataset)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDigest:
    """A hash of samples, in their order.

    Args:
        sha256: The hash, in hexadecimal.
        samples: Number of samples of the dataset.
        hashed: Number of samples that were hashed: fewer than all of a large dataset.
    """

    sha256: str
    samples: int
    hashed: int


def data_digest(dataset: Dataset[Any]) -> DataDigest:
    """Return the hash of a map-style dataset, of inputs and labels alike.

    All samples of a dataset in memory are hashed, if they have at most 64 MiB. Otherwise as many as
    fit are, at even distances. Of other datasets, at most 64 samples are read, with fixed seeds.
    Hashed are the numbers of samples, then chunks of 1024 samples: each with its structure in JSON,
    and its parts as bytes. The random numbers of the training do not change.

    Raises:
        ConfigurationError: If a sample contains something else than tensors, arrays, numbers, texts
            and bytes.

    Example:
        >>> one, two = (TensorDataset(torch.arange(n), torch.zeros(n)) for n in (5, 6))
        >>> data_digest(one) == data_digest(two), data_digest(one).hashed
        (False, 5)
    """
    samples = size(dataset)
    with isolate_rng(include_cuda=False):
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` would seed GPUs, too
        np.random.seed(0)
        random.seed(0)
        indices = _chosen(dataset, samples)
        digest = hashlib.sha256(_FIRST)
        digest.update(f"{samples} {len(indices)}\n".encode())
        for start in range(0, len(indices), _CHUNK):
            for run in column_runs(dataset, indices[start : start + _CHUNK]):
                _add(digest, run)
    return DataDigest(sha256=digest.hexdigest(), samples=samples, hashed=len(indices))


def _chosen(dataset: Dataset[Any], samples: int) -> list[int]:
    most = MOST_READ
    if samples and _in_memory(dataset):
        (first,) = column_runs(dataset, [0])
        most = max(1, MOST_BYTES // max(1, sample_bytes(first.layout)))
    return spread(samples, most).tolist()


def _in_memory(dataset: Dataset[Any]) -> bool:
    """Return whether reading a dataset costs no more than copying it; subclasses may do more."""
    if type(dataset) is Subset:
        return _in_memory(dataset.dataset)
    if isinstance(dataset, ConcatDataset) and type(dataset) in _JOINS:
        return all(map(_in_memory, dataset.datasets))
    return type(dataset) in _IN_MEMORY


def _add(digest: Any, run: ColumnDataset) -> None:
    for column in run.copied(range(len(run))):
        head = [format_layout(run.layout), len(run)]
        digest.update(json.dumps(head).encode() + b"\n")
        if isinstance(column, torch.Tensor):
            digest.update(column.contiguous().numpy().data)
        else:
            digest.update(json.dumps(column).encode() + b"\n")
