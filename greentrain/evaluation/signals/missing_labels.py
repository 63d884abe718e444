"""Find out which samples of a dataset have no label yet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from greentrain.evaluation.signals.drift import spread
from greentrain.memory import size
from greentrain.memory.datasets import fetch, item_column
from greentrain.methods import MISSING_LABEL

LOOKED_AT = 16
"""Samples that are read first, if no tensor holds the labels."""
_AT_ONCE = 256
"""Samples that are held at once while all are read."""


def label_known(sample: Any) -> bool | None:
    """Return whether a sample has a label: its second item, or ``sample["label"]``.

    ``None``, NaN and a target of -1 are no label.

    Returns:
        ``None`` if the sample has no place for a label.

    Example:
        >>> [label_known(each) for each in (("x", 3), ("x", None), ("x", -1), torch.zeros(2))]
        [True, False, False, None]
    """
    if isinstance(sample, Mapping):
        if "label" not in sample:
            return None
        value = sample["label"]
    elif isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) > 1:
        value = sample[1]
    else:
        return None
    if value is None:
        return False
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        elements = value.numel() if isinstance(value, torch.Tensor) else value.size
        if elements != 1:
            return True
        value = value.item()
    if isinstance(value, float):
        return not math.isnan(value)
    return isinstance(value, bool) or value != MISSING_LABEL


def labelled_part(dataset: Dataset[Any], *, quick: bool = False) -> Dataset[Any]:
    """Return the samples that have a label; the dataset itself if all have one.

    Labels in a tensor are all read at once. Of other datasets all samples are read. Samples without
    a place for a label count as labelled: a module may need none.

    Args:
        dataset: A map-style dataset.
        quick: Whether a few samples are read first, and all only if one of these has no label. A
            few missing labels may be overlooked then.

    Example:
        >>> len(labelled_part([("a", 3), ("b", None), ("c", 0)]))
        2
    """
    column = item_column(dataset, 1)
    if column is not None:
        if column.numel() != len(column):
            return dataset
        flat = column.reshape(-1)
        known = ~flat.isnan() if flat.is_floating_point() else flat != MISSING_LABEL
        if bool(known.all()):
            return dataset
        return Subset(dataset, known.nonzero().flatten().tolist())
    if quick and all(label_known(each) is not False for each in _few(dataset)):
        return dataset
    every = list(_known(dataset))
    if False not in every:
        return dataset
    return Subset(dataset, [at for at, each in enumerate(every) if each])


def lacks_labels(dataset: Dataset[Any], past: Dataset[Any]) -> bool:
    """Return whether no sample of a dataset has a label.

    If no tensor holds the labels, samples are read until one has a label. Samples with no place for
    a label lack it if the past ones have one.

    Args:
        dataset: The new samples.
        past: Samples of earlier experiences; empty without any.

    Example:
        >>> lacks_labels([("a", None)], []), lacks_labels([torch.ones(2)], [(torch.ones(2), 1)])
        (True, True)
    """
    column = item_column(dataset, 1)
    if column is not None:
        return not size(labelled_part(dataset))
    known = {label_known(each) for each in _few(dataset)}
    if known == {None}:
        return bool(size(past)) and label_known(fetch(past, [0])[0]) is not None
    return True not in known and not any(_known(dataset))


def _few(dataset: Dataset[Any]) -> list[Any]:
    return fetch(dataset, spread(size(dataset), LOOKED_AT).tolist())


def _known(dataset: Dataset[Any]) -> Iterator[bool | None]:
    """Yield whether each sample has a label."""
    count = size(dataset)
    for first in range(0, count, _AT_ONCE):
        some = fetch(dataset, range(first, min(first + _AT_ONCE, count)))
        yield from map(label_known, some)


def only_inputs(dataset: Dataset[Any]) -> Dataset[Any]:
    """Return the inputs of samples: their first item, or the sample itself if it is a tensor.

    Example:
        >>> only_inputs([(torch.ones(2), None)])[0]
        tensor([1., 1.])
    """
    return _Inputs(dataset)


class _Inputs(Dataset[Any]):
    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return size(self.dataset)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[index]
        if isinstance(sample, Mapping):
            return next(value for key, value in sample.items() if key != "label")
        return sample[0] if isinstance(sample, Sequence) and not isinstance(sample, str) else sample

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [self[index] for index in indices]
