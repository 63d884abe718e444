"""Refusing what no stream can be made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.streams.experience import check_dataset


def check_count(value: Any, name: str, most: int, of: str) -> None:
    """Refuse what is no whole number from 1 to ``most``.

    Raises:
        ConfigurationError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigurationError(
            f"{name} is {value!r}; it is a whole number from 1 to {most}, the number of {of}"
        )


def check_share(val_share: Any, seed: Any) -> None:
    """Refuse a held-out share that is not between 0 and 1, and a seed that is no whole number.

    Raises:
        ConfigurationError: If either is wrong.
    """
    is_number = isinstance(val_share, (int, float)) and not isinstance(val_share, bool)
    if not is_number or not 0 < val_share < 1:
        raise ConfigurationError(
            f"val_share is {val_share!r}; it is the share to measure on, between 0 and 1"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigurationError(f"seed is {seed!r}; it is a whole number, 0 or more")


def first_image(
    dataset: Dataset[Any], name: str, wanted: str, *, planes: bool = False
) -> torch.Tensor:
    """Return the image of the first sample, which stands for all of them.

    Args:
        dataset: Samples ``(image, ...)``.
        name: What the dataset is called in errors.
        wanted: What an image has to be, for the error.
        planes: Whether it needs a height and a width, and fractions.

    Raises:
        ConfigurationError: If samples are of another kind.
    """
    check_dataset(dataset, name, name)
    sample = dataset[0]
    image = sample[0] if isinstance(sample, (tuple, list)) and len(sample) else sample
    is_image = isinstance(image, torch.Tensor) and image is not sample
    if is_image and planes:
        is_image = image.is_floating_point() and image.ndim in (2, 3)
    if not is_image:
        told = (
            f"{image.dtype} tensor {tuple(image.shape)}"
            if isinstance(image, torch.Tensor)
            else type(image).__name__
        )
        among = "" if image is sample else "beginning with "
        raise ConfigurationError(
            f"{name} has samples {among}a {told}; each is (image, ...), the image {wanted}"
        )
    found: torch.Tensor = image
    return found


def check_alike(train: Dataset[Any], test: Dataset[Any]) -> None:
    """Refuse test images of another shape or type than those to train on.

    Raises:
        ConfigurationError: If they differ.
    """
    ours = first_image(train, "train", "a tensor")
    theirs = first_image(test, "test", "a tensor")
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        raise ConfigurationError(
            f"test has images {tuple(theirs.shape)} of {theirs.dtype} and train "
            f"{tuple(ours.shape)} of {ours.dtype}; they have to be alike"
        )


def listed(values: Sequence[float], name: str, low: float, high: float, wanted: str) -> list[float]:
    """Return as floats what is listed, one number for each experience.

    Raises:
        ConfigurationError: If it is no list, an empty one, or one is not from ``low`` to ``high``.
    """
    given: list[Any] = list(values) if isinstance(values, Iterable) else []
    if not given:
        raise ConfigurationError(f"{name} is {values!r}; it is {wanted} for each experience")
    for value in given:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise ConfigurationError(f"{name} holds {value!r}; each is {wanted}")
    return [float(value) for value in given]
