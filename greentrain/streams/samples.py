"""What the builders of streams share: labels, shares of samples, samples changed when read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams.experience import check_dataset

Indices = NDArray[np.int64]
Sample = Any


class View(Dataset[Sample]):
    """Some samples of a dataset, each changed when it is read; nothing is copied.

    Args:
        dataset: The samples.
        indices: Which of them.
        change: Makes of a sample and its index in ``dataset`` what is read. It has to give the
            same for the same, and to be picklable for loaders with workers.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        indices: Sequence[int],
        change: Callable[[Sample, int], Sample],
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.change = change

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        place = self.indices[index]
        return self.change(self.dataset[place], place)


def length(dataset: Dataset[Sample]) -> int:
    """Number of samples of a map-style dataset."""
    return len(dataset)  # type: ignore[arg-type]


def labels_of(dataset: Dataset[Sample], name: str) -> Indices:
    """Read the label of each sample, ``(samples,)``.

    Labels come from a tensor dataset's second tensor or from ``targets`` where there are any,
    through subsets and concatenations, and else from reading each sample.

    Args:
        dataset: A map-style dataset of samples ``(x, label, ...)``.
        name: What the dataset is called in errors.

    Raises:
        ConfigurationError: If it is no map-style dataset, holds no samples, or a label is no whole
            number.
    """
    check_dataset(dataset, name, name)
    labels = _plain(_labels(dataset, name))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        shape = "" if labels.ndim == 1 else f" of shape {labels.shape[1:]}"
        raise ConfigurationError(
            f"{name} has labels of type {labels.dtype}{shape}; a class is one whole number"
        )
    return labels.astype(np.int64)


def shares(
    indices: Indices, val_share: float, random: np.random.Generator, name: str
) -> tuple[list[int], list[int]]:
    """Part samples at random into those to train on and those to measure on.

    Args:
        indices: The samples.
        val_share: Share to measure on; at least one sample is, and at least one is not.
        random: Decides which.
        name: What the samples are called in the error.

    Raises:
        ConfigurationError: If there are fewer than two samples.
    """
    if len(indices) < 2:
        raise ConfigurationError(
            f"{name} holds {len(indices)} of the samples; two or more are needed, one to train and "
            "one to measure on"
        )
    n_val = n_held_out(len(indices), val_share)
    shuffled = random.permutation(indices)
    return np.sort(shuffled[n_val:]).tolist(), np.sort(shuffled[:n_val]).tolist()


def n_held_out(n: int, val_share: float) -> int:
    """How many of ``n`` samples are to measure on: the share, but one or more, and not all."""
    return min(max(1, round(val_share * n)), n - 1)


def deal(
    pool: Indices, hands: int, hand_size: int, random: np.random.Generator
) -> Iterator[list[int]]:
    """Deal samples like cards: none comes again before all have come, nor twice in one hand.

    Args:
        pool: The samples, ``hand_size`` or more.
        hands: How often to deal.
        hand_size: Samples in each hand.
        random: Shuffles.

    Example:
        >>> hands = list(deal(np.arange(4), 4, 3, np.random.default_rng(0)))
        >>> sorted(sample for hand in hands for sample in hand)  # 12 cards, each three times
        [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    """
    deck = random.permutation(pool)
    for _ in range(hands):
        if len(deck) < hand_size:
            rest = set(deck.tolist())
            again = random.permutation([index for index in pool.tolist() if index not in rest])
            # What is in the hand already goes to the bottom of the next deck.
            deck = np.concatenate([deck, again, random.permutation(deck)]).astype(np.int64)
        yield np.sort(deck[:hand_size]).tolist()
        deck = deck[hand_size:]


def _labels(dataset: Dataset[Sample], name: str) -> Any:
    if isinstance(dataset, Subset):
        return _plain(_labels(dataset.dataset, name))[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([_plain(_labels(part, name)) for part in dataset.datasets])
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return dataset.tensors[1]
    targets = getattr(dataset, "targets", None)
    # Labels that are changed when they are read are not those in the list.
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


def _plain(labels: Any) -> NDArray[Any]:
    return labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
