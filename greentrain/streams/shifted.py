"""Streams in which the images change: permuted, rotated or corrupted, one shift an experience."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.streams.checks import (
    check_alike,
    check_count,
    check_split,
    checked_numbers,
    first_image,
)
from greentrain.streams.pixels import KINDS, Key, permute, rotate
from greentrain.streams.samples import (
    Sample,
    TransformedSubset,
    cyclic_parts,
    length,
    n_held_out,
)
from greentrain.streams.stream import Experience, Stream, experience_id, named_stream

Kind = Literal["blur", "contrast", "invert", "noise"]
_Change = Callable[[torch.Tensor, Key], torch.Tensor]


class _Shift(NamedTuple):
    change: _Change
    name: str
    metadata: Mapping[str, Any]


def permuted(
    train: Dataset[Sample],
    *,
    n_experiences: int,
    size: int | None = None,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    seed: int = 0,
) -> Stream:
    """Put the pixels in another order with each experience (Goodfellow et al. 2013).

    The first experience leaves the pixels unchanged. arXiv 1312.6211. The usual Permuted MNIST
    takes all samples each time: ``size=len(train)``.

    Args:
        train: Map-style dataset of samples ``(image, ...)``, the images tensors of one shape.
        n_experiences: Number of experiences.
        size: Samples of an experience, including validation samples. By default the samples are
            divided evenly, and none comes twice. With more, none comes again before all have come.
        test: Data for final reports; each experience gets all of it, with its shift.
        val_share: Share of validation samples. A validation sample of one experience is not
            trained on in any.
        seed: Seed of the permutations and of the order of samples.

    Raises:
        ConfigurationError: If samples are no images, or there are too few of them.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 1, 2, 2), torch.arange(40) % 4)
        >>> stream = permuted(data, n_experiences=4)
        >>> [(len(experience.train), len(experience.val)) for experience in stream]
        [(9, 1), (9, 1), (9, 1), (9, 1)]
    """
    check_split(val_share, seed)
    image = first_image(train, "train", "a tensor")
    check_count(n_experiences, "n_experiences", length(train), "samples of train")
    shifts = []
    for position in range(n_experiences):
        random = np.random.default_rng((seed, position))
        order = random.permutation(image.numel()) if position else np.arange(image.numel())
        brings = "pixels in another order" if position else "pixels as they are"
        metadata = {"brings": brings, "permutation": position}
        change = partial(_keyless, function=partial(permute, order=torch.from_numpy(order)))
        shifts.append(_Shift(change, "permuted" if position else "as-it-is", metadata))
    return _shifted("permuted", shifts, train, size, test, val_share, seed)


def rotated(
    train: Dataset[Sample],
    *,
    angles: Sequence[float],
    size: int | None = None,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    seed: int = 0,
) -> Stream:
    """Rotate the images by one angle with each experience (Lopez-Paz & Ranzato 2017).

    arXiv 1706.08840. The list of angles gives the kind of change: ``[30] * 5`` is stationary,
    ``[0, 0, 90, 90]`` abrupt, ``range(0, 90, 10)`` gradual, ``[0, 45] * 3`` recurring.

    Args:
        train: Map-style dataset of samples ``(image, ...)``, the images float tensors
            ``(height, width)`` or ``(channels, height, width)``.
        angles: Degrees, counter-clockwise, of each experience.
        size: As in :func:`permuted`.
        test: As in :func:`permuted`.
        val_share: As in :func:`permuted`.
        seed: Seed of the order of samples.

    Raises:
        ConfigurationError: If an angle is no number, samples are no images, or there are too few
            of them.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 1, 8, 8), torch.arange(40) % 4)
        >>> [experience.id for experience in rotated(data, angles=[0, 45, 0])]
        ['0-rotated-0', '1-rotated-45', '2-rotated-0']
    """
    check_split(val_share, seed)
    given = checked_numbers(angles, "angles", -math.inf, math.inf, "a number of degrees")
    first_image(train, "train", "a float tensor (channels, height, width)", planes=True)
    shifts = [
        _Shift(
            partial(_keyless, function=partial(rotate, angle_deg=angle_deg)),
            f"rotated-{angle_deg:g}",
            {"brings": f"images turned by {angle_deg:g} degrees", "angle_deg": angle_deg},
        )
        for angle_deg in given
    ]
    return _shifted("rotated", shifts, train, size, test, val_share, seed)


def corrupted(
    train: Dataset[Sample],
    *,
    kind: Kind,
    severities: Sequence[float],
    size: int | None = None,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    seed: int = 0,
) -> Stream:
    """Corrupt the images, with one severity for each experience.

    Similar to Hendrycks & Dietterich 2019 (arXiv 1903.12261), with another scale: severity 0
    leaves a sample unchanged. At 1, ``"noise"`` has a standard deviation of 1, ``"blur"`` one of a
    tenth of the shorter side, ``"contrast"`` leaves even grey, and ``"invert"`` gives the negative.
    A sample has the same noise each time it is read.

    Args:
        train: Map-style dataset of samples ``(image, ...)``, the images float tensors
            ``(height, width)`` or ``(channels, height, width)`` with values in [0, 1].
        kind: Kind of corruption.
        severities: Severity of each experience, from 0 to 1; stationary, abrupt, gradual or
            recurring as in :func:`rotated`.
        size: As in :func:`permuted`.
        test: As in :func:`permuted`.
        val_share: As in :func:`permuted`.
        seed: Seed of the noise and of the order of samples.

    Raises:
        ConfigurationError: If there is no such kind, a severity is not from 0 to 1, samples are no
            images, or there are too few of them.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.zeros(40, 1, 8, 8), torch.arange(40) % 4)
        >>> stream = corrupted(data, kind="invert", severities=[0, 0.25, 1])
        >>> [float(experience.train[0][0].mean()) for experience in stream]
        [0.0, 0.25, 1.0]
    """
    check_split(val_share, seed)
    if kind not in get_args(Kind):
        raise ConfigurationError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    given = checked_numbers(severities, "severities", 0.0, 1.0, "a number from 0 to 1")
    wanted = "a float tensor (channels, height, width) with values in [0, 1]"
    image = first_image(train, "train", wanted, planes=True)
    low, high = float(image.min()), float(image.max())
    if not 0.0 <= low <= high <= 1.0:
        raise ConfigurationError(
            f"train has images with values from {low:g} to {high:g}; severities are for values in "
            "[0, 1]: normalise in the model"
        )
    shifts = []
    for severity in given:
        brings = f"{kind} of severity {severity:g}" if severity else "images as they are"
        metadata = {"brings": brings, "kind": kind, "severity": severity}
        change = partial(_corrupted, kind=kind, severity=severity)
        shifts.append(_Shift(change, f"{kind}-{severity:g}", metadata))
    return _shifted("corrupted", shifts, train, size, test, val_share, seed)


def _shifted(
    scenario: str,
    shifts: Sequence[_Shift],
    train: Dataset[Sample],
    size: int | None,
    test: Dataset[Sample] | None,
    val_share: float,
    seed: int,
) -> Stream:
    whole = length(train)
    check_count(len(shifts), "the number of experiences", whole, "samples of train")
    if size is None:
        size = whole // len(shifts)
    check_count(size, "size", whole, "samples of train")
    if size < 2:
        raise ConfigurationError(
            f"{whole} samples for {len(shifts)} experiences leave {size} for each; two or more are "
            "needed, one to train and one to evaluate on"
        )
    if test is not None:
        check_alike(train, test)
    n_val = n_held_out(size, val_share)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(whole)
    # Split once: a sample that comes again never changes between training and validation.
    n_held = max(n_val, whole * n_val // size)
    held = cyclic_parts(shuffled[:n_held], len(shifts), n_val, random)
    fit = cyclic_parts(shuffled[n_held:], len(shifts), size - n_val, random)
    experiences = []
    for position, (shift, fit_part, held_part) in enumerate(zip(shifts, fit, held, strict=True)):
        of_train = partial(_changed, change=shift.change, key=(seed, 0))
        test_part = None
        if test is not None:
            of_test = partial(_changed, change=shift.change, key=(seed, 1))
            test_part = TransformedSubset(test, range(length(test)), of_test)
        experiences.append(
            Experience(
                experience_id(position, len(shifts), shift.name),
                TransformedSubset(train, fit_part, of_train),
                TransformedSubset(train, held_part, of_train),
                metadata=shift.metadata,
                test=test_part,
            )
        )
    return named_stream(scenario, experiences, seed)


def _keyless(
    image: torch.Tensor, key: Key, *, function: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    return function(image)


def _corrupted(image: torch.Tensor, key: Key, *, kind: Kind, severity: float) -> torch.Tensor:
    return KINDS[kind](image, severity, key) if severity else image


def _changed(sample: Sample, index: int, *, change: _Change, key: Key) -> tuple[Any, ...]:
    image, *rest = sample
    return change(image, (*key, index)), *rest
