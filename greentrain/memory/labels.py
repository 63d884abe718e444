"""Which class each sample is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import fetch, item_column, size
from greentrain.memory.plans import Indices, Label
from greentrain.memory.protocol import Sample

CHUNK = 256
"""Samples that are read at a time where all have to be."""


def read_labels(
    dataset: Dataset[Sample], label: Callable[[Sample], Any] | None = None
) -> tuple[list[Label], Indices]:
    """Read the labels of all samples, without a step for each where tensors hold them.

    Args:
        dataset: A map-style dataset.
        label: Gives the label of a sample; by default it is the second item of a sequence, or
            ``sample["label"]``.

    Returns:
        The classes in the order of their first sample, and the position among them of each sample's
        class, ``(samples,)``.

    Raises:
        ConfigurationError: If a label is no whole number, truth value or text.
    """
    column = item_column(dataset, 1) if label is None else None
    if column is not None and _is_whole(column.dtype) and column[0].numel() == 1:
        values, firsts, places = np.unique(
            column.cpu().numpy().reshape(-1).astype(np.int64),
            return_index=True,
            return_inverse=True,
        )
        order = np.argsort(firsts)
        return values[order].tolist(), np.argsort(order)[places]
    classes: dict[Label, int] = {}
    found = []
    for start in range(0, size(dataset), CHUNK):
        for sample in fetch(dataset, range(start, min(start + CHUNK, size(dataset)))):
            value = plain((label or second)(sample))
            found.append(classes.setdefault(value, len(classes)))
    return list(classes), np.array(found, dtype=np.int64)


def second(sample: Sample) -> Any:
    """Return the label of a sample ``(x, label, ...)`` or ``{"label": label, ...}``.

    Raises:
        ConfigurationError: If the sample is neither.
    """
    if isinstance(sample, (tuple, list)) and len(sample) > 1:
        return sample[1]
    if isinstance(sample, dict) and "label" in sample:
        return sample["label"]
    raise ConfigurationError(
        f"a sample is a {type(sample).__name__} without a second item or a 'label'; say with "
        "label=... how to tell its class"
    )


def plain(value: Any) -> Label:
    """Return a label as a whole number or a text.

    Raises:
        ConfigurationError: If it is neither, nor an array of one whole number.

    Example:
        >>> plain(torch.tensor(3)), plain("cat"), plain(True)
        (3, 'cat', 1)
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1 and _is_whole(value.dtype):
        return int(value)
    if (
        isinstance(value, (np.ndarray, np.generic))
        and value.size == 1
        and value.dtype.kind in "iub"
    ):
        return int(value.item())
    if isinstance(value, (int, str)):
        return str(value) if isinstance(value, str) else int(value)
    shown = (
        f"a {type(value).__name__} of {value.dtype}{list(value.shape)}"
        if isinstance(value, (torch.Tensor, np.ndarray))
        else repr(value)
    )
    raise ConfigurationError(
        f"a label is {shown}; a class is one whole number, truth value or text (label=... may make "
        "it so)"
    )


def _is_whole(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex
