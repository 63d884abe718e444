"""Labels, splits and transformed views of samples, for the builders of streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams.stream import check_dataset

Indices = NDArray[np.int64]
Sample = Any


class TransformedSubset(Dataset[Sample]):
    """Some samples of a dataset, each transformed when it is read; nothing is copied.

    Args:
        dataset: The samples.
        indices: Positions of the samples.
        transform: Function of a sample and its index in ``dataset``. It has to be deterministic,
            and picklable for loaders with workers.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        indices: Sequence[int],
        transform: Callable[[Sample, int], Sample],
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        place = self.indices[index]
        return self.transform(self.dataset[place], place)


def length(dataset: Dataset[Sample]) -> int:
    """Return the number of samples of a map-style dataset."""
    return len(dataset)  # type: ignore[arg-type]


def labels_of(dataset: Dataset[Sample], name: str) -> Indices:
    """Read the label of each sample, ``(samples,)``.

    Labels come from a tensor dataset's second tensor or from the attribute ``targets``, also
    through subsets and concatenations. Otherwise each sample is read.

    Args:
        dataset: A map-style dataset of samples ``(x, label, ...)``.
        name: Name of the dataset in errors.

    Raises:
        ConfigurationError: If it is no map-style dataset, holds no samples, or a label is no whole
            number.
    """
    check_dataset(dataset, name, name)
    labels = _as_array(_labels(dataset, name))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        shape = "" if labels.ndim == 1 else f" of shape {labels.shape[1:]}"
        raise ConfigurationError(
            f"{name} has labels of type {labels.dtype}{shape}; a class is one whole number"
        )
    return labels.astype(np.int64)


def split(
    indices: Indices, val_share: float, random: np.random.Generator, name: str
) -> tuple[list[int], list[int]]:
    """Split samples at random into training and validation samples.

    Args:
        indices: The samples.
        val_share: Share of validation samples; there is at least one sample of each kind.
        random: Source of randomness.
        name: Name of the samples in the error.

    Raises:
        ConfigurationError: If there are fewer than two samples.
    """
    if len(indices) < 2:
        raise ConfigurationError(
            f"{name} holds {len(indices)} of the samples; two or more are needed, one to train and "
            "one to evaluate on"
        )
    n_val = n_held_out(len(indices), val_share)
    shuffled = random.permutation(indices)
    return np.sort(shuffled[n_val:]).tolist(), np.sort(shuffled[:n_val]).tolist()


def n_held_out(n: int, val_share: float) -> int:
    """Return the number of validation samples among ``n``: at least one, and not all."""
    return min(max(1, round(val_share * n)), n - 1)


def cyclic_parts(
    pool: Indices, n_parts: int, part_size: int, random: np.random.Generator
) -> Iterator[list[int]]:
    """Yield random parts of a pool, in which no sample comes again before all have come.

    No part has a sample twice.

    Args:
        pool: The samples, ``part_size`` or more.
        n_parts: Number of parts.
        part_size: Samples in each part.
        random: Source of randomness.

    Example:
        >>> parts = list(cyclic_parts(np.arange(4), 4, 3, np.random.default_rng(0)))
        >>> sorted(sample for part in parts for sample in part)  # 12 in all, each three times
        [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    """
    queue = random.permutation(pool)
    for _ in range(n_parts):
        if len(queue) < part_size:
            rest = set(queue.tolist())
            again = random.permutation([index for index in pool.tolist() if index not in rest])
            # Samples that are in this part already come last in the next round.
            queue = np.concatenate([queue, again, random.permutation(queue)]).astype(np.int64)
        yield np.sort(queue[:part_size]).tolist()
        queue = queue[part_size:]


def _labels(dataset: Dataset[Sample], name: str) -> Any:
    if isinstance(dataset, Subset):
        indices = np.asarray(dataset.indices, dtype=np.int64)
        return _as_array(_labels(dataset.dataset, name))[indices]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([_as_array(_labels(part, name)) for part in dataset.datasets])
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return dataset.tensors[1]
    targets = getattr(dataset, "targets", None)
    # Labels that are transformed when they are read differ from those in the list.
    as_stored = getattr(dataset, "target_transform", None) is None
    if targets is not None and as_stored and len(targets) == length(dataset):
        return targets
    return [_label(dataset[index], name) for index in range(length(dataset))]


def _label(sample: Sample, name: str) -> Any:
    if isinstance(sample, (tuple, list)) and len(sample) > 1:
        label = sample[1]
        if isinstance(label, (torch.Tensor, np.ndarray)) and len(label.shape) == 0:
            return label.item()
        if not isinstance(label, (torch.Tensor, np.ndarray, Sequence)) or isinstance(label, str):
            return label
    raise ConfigurationError(
        f"{name} has samples without a label (one is a {type(sample).__name__}); each is "
        "(x, label), the label one whole number"
    )


def _as_array(labels: Any) -> NDArray[Any]:
    return labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
