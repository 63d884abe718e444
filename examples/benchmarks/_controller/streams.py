"""The streams of the controller's benchmark: one of each kind, with an order and split by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from _controller.new_streams import NEW_BUILDERS
from greentrain.streams import (
    Experience,
    Stream,
    class_incremental,
    corrupted,
    data_incremental,
    digits,
    fashion_mnist,
    mnist,
    rotated,
)
from greentrain.streams.pixels import rotate
from greentrain.streams.samples import cyclic_parts, split

Pair = tuple[TensorDataset, TensorDataset]

SIZE = 3000
"""Samples of an arrival of MNIST, held-out ones included."""
HALF = 30_000
"""Samples of Fashion-MNIST, half of all: five seeds of all would take two cores a day."""
TESTED = 2000
"""Most test samples of an arrival that are evaluated."""
_VAL_SHARE = 0.1
_ABRUPT = (0, 0, 0, 30, 30, 30, 60, 60, 60, 0)
_GRADUAL = tuple(range(0, 100, 10))
_RECURRING = (
    *("clean", "noise", "clean", "blur", "noise"),
    *("clean", "blur", "noise", "clean", "blur"),
)
_SEVERITY = 0.5
_TURNED_DEG = 45.0
_SMALL_SIZE = 100


def iid(data: Pair, seed: int, *, n_experiences: int = 10) -> Stream:
    """Return a stream with more data of one kind at each arrival."""
    train, test = data
    return data_incremental(
        train, n_experiences=n_experiences, test=test, val_share=_VAL_SHARE, seed=seed
    )


def classes(data: Pair, seed: int, *, n_experiences: int = 5) -> Stream:
    """Return a stream with two new classes at each arrival, in an order by seed."""
    train, test = data
    return class_incremental(
        train,
        n_experiences=n_experiences,
        test=test,
        val_share=_VAL_SHARE,
        order="random",
        seed=seed,
    )


def drifting(data: Pair, seed: int, *, size: int = SIZE) -> Stream:
    """Return a stream with abrupt turns, a gradual turn, or recurring corruptions, by seed."""
    train, test = data
    options: dict[str, Any] = {"size": size, "test": test, "val_share": _VAL_SHARE, "seed": seed}
    if seed % 3 < 2:
        return rotated(train, angles=(_ABRUPT, _GRADUAL)[seed % 3], **options)
    # The same samples arrive in both, as the seed is the same.
    looks = {
        kind: corrupted(
            train,
            kind=kind,
            severities=[_SEVERITY if each == kind else 0.0 for each in _RECURRING],
            **options,
        )
        for kind in ("noise", "blur")
    }
    chosen = [
        looks["blur" if kind == "blur" else "noise"][position]
        for position, kind in enumerate(_RECURRING)
    ]
    return Stream(chosen, name=f"recurring-seed-{seed}", scenario="corrupted")


def stationary(data: Pair, seed: int, *, size: int = SIZE) -> Stream:
    """Return a stream with eight arrivals of one kind, then two of another."""
    train, test = data
    angles = [0.0] * 8 + [_TURNED_DEG] * 2
    return rotated(train, angles=angles, size=size, test=test, val_share=_VAL_SHARE, seed=seed)


def mixture(data: Pair, seed: int, *, size: int = SIZE) -> Stream:
    """Return a stream with new classes twice, a turn, and the first domain again at the end.

    Six classes come three times, two new ones alone, all eight twice, the last two alone, all ten
    twice, turned, and then the first six as at the beginning. No sample is trained on twice.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(10).tolist()
    arrivals: list[tuple[Sequence[int], float]] = [
        *[(order[:6], 0.0)] * 3,
        (order[6:8], 0.0),
        *[(order[:8], 0.0)] * 2,
        (order[8:], 0.0),
        *[(order, _TURNED_DEG)] * 2,
        (order[:6], 0.0),
    ]
    (images, labels), (test_images, test_labels) = (part.tensors for part in data)
    unused = np.arange(len(labels))
    experiences = []
    for position, (known, angle_deg) in enumerate(arrivals):
        unused = random.permutation(unused)  # otherwise the remaining samples come first
        taken = np.flatnonzero(np.isin(labels[unused].numpy(), known))[:size]
        chosen, unused = unused[taken], np.delete(unused, taken)
        fit, held_out = split(chosen, _VAL_SHARE, random, f"arrival {position}")
        tested = np.flatnonzero(np.isin(test_labels.numpy(), known)).tolist()
        experiences.append(
            Experience(
                f"{position}-{len(known)}-classes-{angle_deg:g}",
                _turned(images, labels, fit, angle_deg),
                _turned(images, labels, held_out, angle_deg),
                test=_turned(test_images, test_labels, tested, angle_deg),
            )
        )
    return Stream(experiences, name=f"mixture-seed-{seed}", scenario="mixed")


def thinned(data: Pair, count: int, seed: int) -> Pair:
    """Return a number of training samples, chosen by the seed, and all test samples."""
    train, test = data
    chosen = torch.from_numpy(np.random.default_rng((seed, 6)).permutation(len(train))[:count])
    return TensorDataset(*(part[chosen] for part in train.tensors)), test


def read(stream: Stream, seed: int, *, tested: int = TESTED) -> list[Experience]:
    """Read each sample once, so that no update pays for a stream's transforms of images.

    At most ``tested`` test samples of each arrival are kept, chosen by the seed.

    Args:
        stream: The stream.
        seed: Chooses the test samples.
        tested: Most test samples to keep of each arrival.
    """
    random = np.random.default_rng((seed, 7))
    experiences = []
    for experience in stream:
        test: Any = experience.test  # each stream here has test samples
        kept = next(cyclic_parts(np.arange(len(test)), 1, min(tested, len(test)), random))
        experiences.append(
            Experience(
                experience.id,
                _tensors(experience.train),
                _tensors(experience.val),
                metadata=experience.metadata,
                test=_tensors(Subset(test, kept)),
            )
        )
    return experiences


BUILDERS: Mapping[str, Callable[[int], Stream]] = {
    "a": lambda seed: iid(thinned(fashion_mnist(), HALF, seed), seed),
    "b": lambda seed: classes(thinned(fashion_mnist(), HALF, seed), seed),
    "c": lambda seed: drifting(mnist(), seed),
    "d": lambda seed: stationary(mnist(), seed),
    "e": lambda seed: mixture(mnist(), seed),
    "a_cnn": lambda seed: iid(thinned(fashion_mnist(), 10_000, seed), seed),
    **NEW_BUILDERS,
}
"""The streams by name, for a seed."""
SMALL: Mapping[str, Callable[[int], Stream]] = {
    "a": lambda seed: iid(digits(), seed, n_experiences=5),
    "b": lambda seed: classes(digits(), seed),
    "c": lambda seed: drifting(digits(), seed, size=_SMALL_SIZE),
    "d": lambda seed: stationary(digits(), seed, size=_SMALL_SIZE),
    "e": lambda seed: mixture(digits(), seed, size=_SMALL_SIZE),
}
"""Streams of scikit-learn's digits by name, for the short form."""


@lru_cache(maxsize=5)
def stream_of(name: str, seed: int) -> list[Experience]:
    """Read the experiences of one of :data:`BUILDERS`."""
    return read(BUILDERS[name](seed), seed)


def small_stream_of(name: str, seed: int) -> list[Experience]:
    """Read the experiences of one of :data:`SMALL`."""
    return read(SMALL[name](seed), seed)


def _turned(
    images: torch.Tensor, labels: torch.Tensor, indices: Sequence[int], angle_deg: float
) -> TensorDataset:
    turned = [rotate(images[index], angle_deg) for index in indices]
    return TensorDataset(torch.stack(turned), labels[indices])


def _tensors(dataset: Dataset[Any]) -> TensorDataset:
    samples = [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]
    images, labels = zip(*samples, strict=True)
    return TensorDataset(torch.stack(images), torch.stack(labels))
