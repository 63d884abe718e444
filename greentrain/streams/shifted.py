"""Streams in which the images change: permuted, rotated or corrupted, one shift an experience."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.streams.checks import check_alike, check_count, check_share, first_image, listed
from greentrain.streams.experience import Experience
from greentrain.streams.pixels import KINDS, Key, permute, rotate
from greentrain.streams.samples import (
    Sample,
    View,
    deal,
    length,
    n_held_out,
)
from greentrain.streams.stream import Stream, built, numbered

Kind = Literal["blur", "contrast", "invert", "noise"]
_Look = Callable[[torch.Tensor, Key], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shift:
    look: _Look
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

    The first experience has them as they are. arXiv 1312.6211. The usual Permuted MNIST takes all
    samples each time: ``size=len(train)``.

    Args:
        train: Map-style dataset of samples ``(image, ...)``, the images tensors of one shape.
        n_experiences: Number of experiences.
        size: Samples of an experience, held-out ones among them. By default the samples are shared
            out evenly, so that none comes twice. With more, none comes again before all have come.
        test: Data to report on; each experience gets all of them, with its shift.
        val_share: Share of the samples to measure on. What is held out in one experience is
            trained on in none.
        seed: Decides the permutations and which samples come when.

    Raises:
        ConfigurationError: If samples are no images, or there are too few of them.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 1, 2, 2), torch.arange(40) % 4)
        >>> stream = permuted(data, n_experiences=4)
        >>> [(len(experience.train), len(experience.val)) for experience in stream]
        [(9, 1), (9, 1), (9, 1), (9, 1)]
    """
    check_share(val_share, seed)
    image = first_image(train, "train", "a tensor")
    check_count(n_experiences, "n_experiences", length(train), "samples of train")
    shifts = []
    for position in range(n_experiences):
        random = np.random.default_rng((seed, position))
        order = np.arange(image.numel()) if not position else random.permutation(image.numel())
        shifts.append(
            _Shift(
                look=partial(_permuted, order=torch.from_numpy(order)),
                name="permuted" if position else "as-it-is",
                metadata={
                    "brings": "pixels in another order" if position else "pixels as they are",
                    "permutation": position,
                },
            )
        )
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
    """Turn the images by one angle with each experience (Lopez-Paz & Ranzato 2017).

    arXiv 1706.08840. The list says what kind of change it is: ``[30] * 5`` is stationary,
    ``[0, 0, 90, 90]`` abrupt, ``range(0, 90, 10)`` gradual, ``[0, 45] * 3`` recurring.

    Args:
        train: Map-style dataset of samples ``(image, ...)``, the images float tensors
            ``(height, width)`` or ``(channels, height, width)``.
        angles: Degrees, counter-clockwise, of each experience.
        size: As in :func:`permuted`.
        test: As in :func:`permuted`.
        val_share: As in :func:`permuted`.
        seed: Decides which samples come when.

    Raises:
        ConfigurationError: If an angle is no number, samples are no images, or there are too few
            of them.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 1, 8, 8), torch.arange(40) % 4)
        >>> [experience.id for experience in rotated(data, angles=[0, 45, 0])]
        ['0-rotated-0', '1-rotated-45', '2-rotated-0']
    """
    check_share(val_share, seed)
    given = listed(angles, "angles", -math.inf, math.inf, "a number of degrees")
    first_image(train, "train", "a float tensor (channels, height, width)", planes=True)
    shifts = [
        _Shift(
            look=partial(_rotated, angle_deg=angle_deg),
            name=f"rotated-{angle_deg:g}",
            metadata={"brings": f"images turned by {angle_deg:g} degrees", "angle_deg": angle_deg},
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
    """Make the images worse, to the degree that is listed for each experience.

    In the manner of Hendrycks & Dietterich 2019 (arXiv 1903.12261), with a scale of our own: at
    severity 0 a sample is as it was. At 1, ``"noise"`` has a standard deviation of 1, ``"blur"``
    one of a tenth of the shorter side, ``"contrast"`` leaves even grey, and ``"invert"`` gives the
    negative. A sample has the same noise each time it is read.

    Args:
        train: Map-style dataset of samples ``(image, ...)``, the images float tensors
            ``(height, width)`` or ``(channels, height, width)`` with values in [0, 1].
        kind: What is done.
        severities: How much, from 0 to 1, in each experience; stationary, abrupt, gradual or
            recurring as in :func:`rotated`.
        size: As in :func:`permuted`.
        test: As in :func:`permuted`.
        val_share: As in :func:`permuted`.
        seed: Decides the noise and which samples come when.

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
    check_share(val_share, seed)
    if kind not in get_args(Kind):
        raise ConfigurationError(f"kind is {kind!r}; it is one of {', '.join(KINDS)}")
    given = listed(severities, "severities", 0.0, 1.0, "a number from 0 to 1")
    wanted = "a float tensor (channels, height, width) with values in [0, 1]"
    image = first_image(train, "train", wanted, planes=True)
    if not 0.0 <= float(image.min()) <= float(image.max()) <= 1.0:
        raise ConfigurationError(
            f"train has images with values from {float(image.min()):g} to {float(image.max()):g}; "
            "severities are for values in [0, 1]: normalise in the model"
        )
    shifts = [
        _Shift(
            look=partial(_corrupted, kind=kind, severity=severity),
            name=f"{kind}-{severity:g}",
            metadata={
                "brings": f"{kind} of severity {severity:g}" if severity else "images as they are",
                "kind": kind,
                "severity": severity,
            },
        )
        for severity in given
    ]
    return _shifted("corrupted", shifts, train, size, test, val_share, seed)


def _shifted(
    scenario: str,
    shifts: Sequence[_Shift],
    train: Dataset[Sample],
    hand_size: int | None,
    test: Dataset[Sample] | None,
    val_share: float,
    seed: int,
) -> Stream:
    whole = length(train)
    check_count(len(shifts), "the number of experiences", whole, "samples of train")
    if hand_size is None:
        hand_size = whole // len(shifts)
    check_count(hand_size, "size", whole, "samples of train")
    if hand_size < 2:
        raise ConfigurationError(
            f"{whole} samples for {len(shifts)} experiences leave {hand_size} for each; two or "
            "more are needed, one to train and one to measure on"
        )
    if test is not None:
        check_alike(train, test)
    n_val = n_held_out(hand_size, val_share)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(whole)
    # Parted once: a sample that comes again is never trained on here and measured on there.
    n_held = max(n_val, whole * n_val // hand_size)
    held = deal(shuffled[:n_held], len(shifts), n_val, random)
    fit = deal(shuffled[n_held:], len(shifts), hand_size - n_val, random)
    experiences = []
    for position, (shift, train_part, val_part) in enumerate(zip(shifts, fit, held, strict=True)):
        of_train = partial(_seen, look=shift.look, key=(seed, 0))
        of_test = partial(_seen, look=shift.look, key=(seed, 1))
        experiences.append(
            Experience(
                numbered(position, len(shifts), shift.name),
                View(train, train_part, of_train),
                View(train, val_part, of_train),
                metadata=shift.metadata,
                test=None if test is None else View(test, range(length(test)), of_test),
            )
        )
    return built(scenario, experiences, seed)


def _permuted(image: torch.Tensor, key: Key, *, order: torch.Tensor) -> torch.Tensor:
    return permute(image, order)


def _rotated(image: torch.Tensor, key: Key, *, angle_deg: float) -> torch.Tensor:
    return rotate(image, angle_deg)


def _corrupted(image: torch.Tensor, key: Key, *, kind: Kind, severity: float) -> torch.Tensor:
    return KINDS[kind](image, severity, key) if severity else image


def _seen(sample: Sample, index: int, *, look: _Look, key: Key) -> tuple[Any, ...]:
    image, *rest = sample
    return look(image, (*key, index)), *rest
