"""Read the class of each sample of a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import fetch, item_column, size
from greentrain.memory.protocol import Sample
from greentrain.memory.sample_table import Indices, Label

CHUNK = 256
"""Number of samples to read at a time where all have to be read."""


def read_labels(
    dataset: Dataset[Sample], label: Callable[[Sample], Any] | None = None
) -> tuple[list[Label], Indices]:
    """Read the labels of all samples, in one step where tensors hold them.

    Args:
        dataset: A map-style dataset.
        label: Function that returns the label of a sample; by default the second item of a
            sequence, or ``sample["label"]``.

    Returns:
        The classes in the order of their first sample, and the position of each sample's class
        among them, ``(samples,)``.

    Raises:
        ConfigurationError: If a label is no whole number, truth value or text.
    """
    column = item_column(dataset, 1) if label is None else None
    if column is not None and _is_integral(column.dtype) and column[0].numel() == 1:
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
            value = plain((label or _second)(sample))
            found.append(classes.setdefault(value, len(classes)))
    return list(classes), np.array(found, dtype=np.int64)


def plain(value: Any) -> Label:
    """Return a label as a whole number or a text.

    Raises:
        ConfigurationError: If it is neither, nor an array of one whole number or text.

    Example:
        >>> plain(torch.tensor(3)), plain("cat"), plain(True)
        (3, 'cat', 1)
    """
    if isinstance(value, (int, str)):
        return str(value) if isinstance(value, str) else int(value)
    shown, whole = repr(value), False
    if isinstance(value, torch.Tensor):
        whole = _is_integral(value.dtype)
    elif isinstance(value, (np.ndarray, np.generic)):
        whole = value.dtype.kind in "iub"
        if value.dtype.kind == "U" and value.size == 1:
            return str(value.item())
    if whole and math.prod(value.shape) == 1:
        return int(value.item())
    if isinstance(value, (torch.Tensor, np.ndarray)):
        shown = f"a {type(value).__name__} of {value.dtype}{list(value.shape)}"
    raise ConfigurationError(
        f"a label is {shown}; a class is one whole number, truth value or text (label=... can "
        "convert it)"
    )


def _second(sample: Sample) -> Any:
    if isinstance(sample, (tuple, list)) and len(sample) > 1:
        return sample[1]
    if isinstance(sample, dict) and "label" in sample:
        return sample["label"]
    raise ConfigurationError(
        f"a sample is a {type(sample).__name__} without a second item or a 'label'; say with "
        "label=... how to find its class"
    )


def _is_integral(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex
