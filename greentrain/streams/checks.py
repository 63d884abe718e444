"""Check the arguments of the builders of streams."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.streams.stream import check_dataset
from greentrain.units import is_whole, whole_seed


def check_count(value: Any, name: str, most: int, of: str) -> None:
    """Check that a value is a whole number from 1 to ``most``, the number of ``of``.

    Raises:
        ConfigurationError: If it is not.
    """
    if not is_whole(value, 1) or value > most:
        raise ConfigurationError(
            f"{name} is {value!r}; it must be a whole number from 1 to {most}, the number of {of}"
        )


def check_split(val_share: Any, seed: Any) -> None:
    """Check that a validation share is between 0 and 1, and that a seed is a whole number.

    Raises:
        ConfigurationError: If either is wrong.
    """
    is_number = isinstance(val_share, (int, float)) and not isinstance(val_share, bool)
    if not is_number or not 0 < val_share < 1:
        raise ConfigurationError(
            f"val_share is {val_share!r}; it must be the share of validation samples, "
            "between 0 and 1"
        )
    whole_seed(seed)


def first_image(
    dataset: Dataset[Any], name: str, wanted: str, *, planes: bool = False
) -> torch.Tensor:
    """Return the image of the first sample, which represents all samples.

    Args:
        dataset: Samples ``(image, ...)``.
        name: Name of the dataset in errors.
        wanted: Description of a valid image for the error.
        planes: Whether an image needs a height, a width and a floating-point type.

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
        is_tensor = isinstance(image, torch.Tensor)
        shown = f"{image.dtype} tensor {tuple(image.shape)}" if is_tensor else type(image).__name__
        among = "" if image is sample else "beginning with "
        raise ConfigurationError(
            f"{name} has samples {among}a {shown}; each is (image, ...), the image {wanted}"
        )
    found: torch.Tensor = image
    return found


def check_alike(train: Dataset[Any], test: Dataset[Any]) -> None:
    """Check that test images have the shape and type of training images.

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


def checked_numbers(
    values: Sequence[float], name: str, low: float, high: float, wanted: str
) -> list[float]:
    """Return as floats a list with one number for each experience.

    Raises:
        ConfigurationError: If it is no list, is empty, or has a number outside ``low`` to
            ``high``.
    """
    given: list[Any] = list(values) if isinstance(values, Iterable) else []
    if not given:
        raise ConfigurationError(f"{name} is {values!r}; it must be {wanted} for each experience")
    for value in given:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise ConfigurationError(f"{name} holds {value!r}; each is {wanted}")
    return [float(value) for value in given]
