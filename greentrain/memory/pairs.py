"""Samples of an input and a class: check them, and convert them to tensors and back."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import SampleList, fetch, size
from greentrain.memory.protocol import Sample
from greentrain.units import is_number, is_whole


def as_pairs(inputs: Tensor, labels: Tensor, plain: bool) -> Dataset[Sample]:
    """Return a dataset of inputs and labels, which are plain numbers if new ones are.

    A batch of new and stored samples needs labels of one kind.
    """
    if not plain:
        return TensorDataset(inputs, labels)
    return SampleList(list(zip(inputs, labels.tolist(), strict=True)))


def pairs_of(dataset: Dataset[Sample]) -> tuple[Tensor, Tensor, bool]:
    """Return inputs and classes of all samples, and whether labels are plain numbers.

    Raises:
        ConfigurationError: If a sample is no pair of a tensor of floating point and a class, or
            inputs are of several shapes.
    """
    samples = fetch(dataset, range(size(dataset)))
    if not all(_is_pair(each) for each in samples):
        raise ConfigurationError(
            "a sample is not (input, label) with an input of floating point, which this buffer "
            "needs; use a ReservoirBuffer for other samples"
        )
    first = samples[0]
    shape = list(first[0].shape)
    other = next((list(each.shape) for each, _ in samples if list(each.shape) != shape), shape)
    if other != shape:
        raise ConfigurationError(
            f"inputs of one dataset are {shape} and {other}, and this buffer needs one shape; cut "
            "or pad them, or use a ReservoirBuffer"
        )
    if not shape or not math.prod(shape):
        raise ConfigurationError(
            f"inputs have the shape {shape}, and this buffer needs at least one dimension with "
            "values; give inputs such as x[None]"
        )
    for _, label in samples:
        if not _is_class(label):
            found = f"a label is {label!r}"
            if isinstance(label, Tensor):
                found = f"labels are {label.dtype} of shape {list(label.shape)}"
            raise ConfigurationError(
                f"{found}, and this buffer is for one class per sample: it is not defined for a "
                "regression; use a ReservoirBuffer"
            )
    labels = torch.tensor([int(label) for _, label in samples])
    inputs = torch.stack([each.detach() for each, _ in samples]).cpu()
    return inputs, labels, type(first[1]) is int


def check_pixels(inputs: Tensor, shape: tuple[int, ...] | None = None) -> None:
    """Refuse inputs ``(batch, ...)`` that a generator of values from 0 to 1 cannot learn.

    Args:
        inputs: The inputs.
        shape: Shape of earlier ones; ``None`` for the first.

    Raises:
        ConfigurationError: If values are not from 0 to 1, or inputs have another shape.
    """
    if not inputs.is_floating_point() or inputs.ndim < 2:
        raise ConfigurationError(
            f"inputs are {inputs.dtype} of shape {list(inputs.shape)}, and the generator needs "
            "floating point with one or more dimensions for each sample; convert them"
        )
    if shape is not None and tuple(inputs.shape[1:]) != shape:
        raise ConfigurationError(
            f"inputs are {list(inputs.shape[1:])} where those before are {list(shape)}; samples in "
            "one buffer must have the same shape"
        )
    if not bool(((inputs >= 0) & (inputs <= 1)).all()):
        raise ConfigurationError(
            f"inputs are between {float(inputs.min()):g} and {float(inputs.max()):g}, and the "
            "generator has values from 0 to 1; scale them, and normalise in the model"
        )


def whole(value: object, name: str) -> int:
    """Return a whole number from 1 on.

    Raises:
        ConfigurationError: If it is anything else.
    """
    if not is_whole(value, 1):
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number from 1 on")
    return int(value)


def positive(value: object, name: str, *, above: bool) -> float:
    """Return a finite number, 0 or more, or above 0.

    Raises:
        ConfigurationError: If it is anything else.
    """
    number = float(value) if is_number(value) else math.nan  # type: ignore[arg-type]
    if not math.isfinite(number) or number < 0 or (above and number == 0):
        wanted = "above 0" if above else "from 0 on"
        raise ConfigurationError(f"{name} is {value!r}; it must be a finite number {wanted}")
    return number


def _is_pair(sample: Sample) -> bool:
    is_pair = isinstance(sample, (tuple, list)) and len(sample) == 2
    return is_pair and isinstance(sample[0], Tensor) and sample[0].is_floating_point()


def _is_class(label: object) -> bool:
    if isinstance(label, (np.ndarray, np.generic)):
        return not label.ndim and label.dtype.kind in "biu"
    if not isinstance(label, Tensor):
        return isinstance(label, bool) or is_whole(label, -(2**63))
    return not label.ndim and not (label.is_floating_point() or label.is_complex())
