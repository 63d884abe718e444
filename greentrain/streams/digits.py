"""Scikit-learn's handwritten digits, and the demo's stream of them: real data, no download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from greentrain.streams.stream import Experience, Stream

Images = NDArray[np.float32]
_VAL_SHARE = 0.25
_N_TEST = 360


def _unchanged(images: Images, random: np.random.Generator) -> Images:
    return images


def _invert(images: Images, random: np.random.Generator) -> Images:
    return (1.0 - images).astype(np.float32)


def _dim_and_noisy(images: Images, random: np.random.Generator) -> Images:
    noise = random.normal(0.0, 0.15, images.shape)
    return np.clip(0.5 * images + noise, 0.0, 1.0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Arrival:
    id: str
    brings: str
    counts: Mapping[int, int]
    change: Callable[[Images, np.random.Generator], Images] = _unchanged
    repeats: str | None = None


_ARRIVALS = (
    _Arrival("0-first", "digits 0 to 5", dict.fromkeys(range(6), 40)),
    _Arrival("1-more", "more of digits 0 to 5", dict.fromkeys(range(6), 25)),
    _Arrival("2-again", "samples that have been here before", {}, repeats="1-more"),
    _Arrival("3-new-classes", "new classes 6 and 7", dict.fromkeys((6, 7), 70)),
    _Arrival("4-inverted", "a shift: dark on light", dict.fromkeys(range(8), 25), _invert),
    _Arrival("5-new-classes", "new classes 8 and 9", dict.fromkeys((8, 9), 70)),
    _Arrival("6-more", "more of all digits", dict.fromkeys(range(10), 20)),
    _Arrival("7-dim", "a shift: dim and noisy", dict.fromkeys(range(10), 20), _dim_and_noisy),
)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Load scikit-learn's handwritten digits (Alpaydin & Kaynak 1998), which need no download.

    The 1,797 digits have no published split. The last 360, a fifth, are the test data here.

    Returns:
        Training and test data: images ``(n, 1, 8, 8)`` in [0, 1], ``float32``, and labels 0 to 9,
        ``int64``.

    Example:
        >>> train, test = digits()
        >>> len(train), len(test), tuple(train[0][0].shape)
        (1437, 360, (1, 8, 8))
    """
    images, labels = _load()
    shaped = images.reshape(-1, 1, 8, 8)
    return (
        _dataset(shaped[:-_N_TEST], labels[:-_N_TEST]),
        _dataset(shaped[-_N_TEST:], labels[-_N_TEST:]),
    )


def digits_stream(*, seed: int = 0) -> Stream:
    """Build the stream of the demo.

    Some experiences bring more of the same, some new classes, and some a visible shift. One brings
    the samples of an earlier one again, which are not worth training on. Otherwise no sample is in
    two experiences, and no sample is both a training and a validation sample.

    Args:
        seed: Seed of the order of samples.

    Returns:
        Eight experiences; a sample is an image of 64 pixels in [0, 1], ``(64,)``, and its label.

    Example:
        >>> stream = digits_stream()
        >>> len(stream), stream[3].id, stream[3].metadata["brings"]
        (8, '3-new-classes', 'new classes 6 and 7')
    """
    images, labels = _load()
    random = np.random.default_rng(seed)
    unused = {
        digit: list(random.permutation(np.flatnonzero(labels == digit))) for digit in range(10)
    }
    built: dict[str, Experience] = {}
    for arrival in _ARRIVALS:
        if arrival.repeats is not None:
            train, val = built[arrival.repeats].train, built[arrival.repeats].val
        else:
            counts = arrival.counts.items()
            chosen = [unused[digit].pop() for digit, count in counts for _ in range(count)]
            indices = random.permutation(np.array(chosen))
            changed = arrival.change(images[indices], random)
            n_val = int(_VAL_SHARE * len(indices))
            train = _dataset(changed[n_val:], labels[indices][n_val:])
            val = _dataset(changed[:n_val], labels[indices][:n_val])
        built[arrival.id] = Experience(arrival.id, train, val, metadata={"brings": arrival.brings})
    return Stream(list(built.values()), name=f"digits-seed-{seed}", scenario="mixed")


def _load() -> tuple[Images, NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # the import takes a second

    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).astype(np.float32), labels


def _dataset(images: Images, labels: NDArray[np.int64]) -> TensorDataset:
    return TensorDataset(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))
