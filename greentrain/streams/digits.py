"""Scikit-learn's handwritten digits, and the demo's stream of them: real data, no download."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from greentrain.streams.experience import Experience
from greentrain.streams.stream import Stream

Images = NDArray[np.float32]
_VAL_SHARE = 0.25
_N_TEST = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    id: str
    brings: str
    counts: Mapping[int, int]
    look: Callable[[Images, np.random.Generator], Images] = lambda images, random: images
    again: str | None = None


def _each(classes: Collection[int], count: int) -> dict[int, int]:
    return dict.fromkeys(classes, count)


def _invert(images: Images, random: np.random.Generator) -> Images:
    return (1.0 - images).astype(np.float32)


def _dim_and_noisy(images: Images, random: np.random.Generator) -> Images:
    noise = random.normal(0.0, 0.15, images.shape)
    return np.clip(0.5 * images + noise, 0.0, 1.0).astype(np.float32)


_ARRIVALS: Sequence[_Arrival] = (
    _Arrival(id="0-first", brings="digits 0 to 5", counts=_each(range(6), 40)),
    _Arrival(id="1-more", brings="more of digits 0 to 5", counts=_each(range(6), 25)),
    _Arrival(id="2-new-classes", brings="new classes 6 and 7", counts=_each((6, 7), 70)),
    _Arrival(id="3-again", brings="samples that have been here before", counts={}, again="1-more"),
    _Arrival(
        id="4-inverted",
        brings="a shift: dark on light",
        counts=_each(range(8), 25),
        look=_invert,
    ),
    _Arrival(id="5-new-classes", brings="new classes 8 and 9", counts=_each((8, 9), 70)),
    _Arrival(id="6-more", brings="more of all digits", counts=_each(range(10), 20)),
    _Arrival(
        id="7-dim",
        brings="a shift: dim and noisy",
        counts=_each(range(10), 20),
        look=_dim_and_noisy,
    ),
)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Load scikit-learn's handwritten digits (Alpaydin & Kaynak 1998): small, and always there.

    They have no split of their own: the last 360 of the 1,797, a fifth, are the test data here.

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

    Some experiences bring more of the same, some new classes, some a visible shift, and one the
    samples of an earlier one again: nothing worth training for. But for that one no sample is in
    two experiences, and none is both trained and measured on.

    Args:
        seed: Which samples come when.

    Returns:
        Eight experiences; a sample is an image of 64 pixels in [0, 1], ``(64,)``, and its label.

    Example:
        >>> stream = digits_stream()
        >>> len(stream), stream[2].id, stream[2].metadata["brings"]
        (8, '2-new-classes', 'new classes 6 and 7')
    """
    images, labels = _load()
    random = np.random.default_rng(seed)
    unused = {
        digit: list(random.permutation(np.flatnonzero(labels == digit))) for digit in range(10)
    }
    built: dict[str, Experience] = {}
    for arrival in _ARRIVALS:
        if arrival.again is not None:
            train, val = built[arrival.again].train, built[arrival.again].val
        else:
            chosen = np.array(
                [
                    unused[digit].pop()
                    for digit, count in arrival.counts.items()
                    for _ in range(count)
                ]
            )
            chosen = random.permutation(chosen)
            looks = arrival.look(images[chosen], random)
            n_val = int(_VAL_SHARE * len(chosen))
            train = _dataset(looks[n_val:], labels[chosen][n_val:])
            val = _dataset(looks[:n_val], labels[chosen][:n_val])
        built[arrival.id] = Experience(arrival.id, train, val, metadata={"brings": arrival.brings})
    return Stream(list(built.values()), name=f"digits-seed-{seed}", scenario="mixed")


def _load() -> tuple[Images, NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # takes a second to import

    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).astype(np.float32), labels


def _dataset(images: Images, labels: NDArray[np.int64]) -> TensorDataset:
    return TensorDataset(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))
