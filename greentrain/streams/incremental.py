"""Streams in which new classes, or more samples of the same classes, come one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.streams.checks import check_count, check_share
from greentrain.streams.experience import Experience, check_dataset
from greentrain.streams.samples import (
    Indices,
    Sample,
    View,
    labels_of,
    length,
    shares,
)
from greentrain.streams.stream import Stream, built, numbered

Order = Sequence[int] | Literal["random"] | None
# Makes a dataset of some samples of one, given the experience's classes and its position.
_Take = Callable[[Dataset[Sample], Sequence[int], Sequence[int], int], Dataset[Sample]]
_MOST_CLASSES_IN_A_NAME = 5


def class_incremental(
    train: Dataset[Sample],
    *,
    n_experiences: int,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    order: Order = None,
    seed: int = 0,
) -> Stream:
    """Bring a few new classes with each experience; the model has to tell all of them apart.

    Split MNIST and its like, class-incremental as in van de Ven & Tolias 2019 (arXiv 1904.07734).
    Samples stay as they are. Where the classes cannot be shared out evenly, the first experiences
    have one more.

    Args:
        train: Map-style dataset of samples ``(x, label, ...)`` with whole numbers as labels.
        n_experiences: Number of experiences.
        test: Data to report on; each experience gets the samples of its classes.
        val_share: Share of each class's samples to measure on in place of training.
        order: Classes in the order in which they come; ascending by default, ``"random"`` for one
            drawn by the seed.
        seed: Decides what is held out, and a random order.

    Raises:
        ConfigurationError: If there are fewer classes than experiences, the order does not hold
            each class once, an experience would be left without samples, or labels are no whole
            numbers.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 2), torch.arange(40) % 4)
        >>> stream = class_incremental(data, n_experiences=2)
        >>> [experience.metadata["classes"] for experience in stream]
        [[0, 1], [2, 3]]
        >>> len(stream[0].train), len(stream[0].val)
        (18, 2)
    """
    return _by_class(
        "class-incremental", _as_it_is, train, n_experiences, test, val_share, order, seed
    )


def task_incremental(
    train: Dataset[Sample],
    *,
    n_experiences: int,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    order: Order = None,
    seed: int = 0,
) -> Stream:
    """Bring a new task with each experience; the model is told which task a sample is of.

    As :func:`class_incremental`, but samples are ``(x, label, ..., task)``: the label is counted
    within the task, the task from 0.

    Args:
        train: As in :func:`class_incremental`.
        n_experiences: Number of experiences, which are the tasks.
        test: As in :func:`class_incremental`.
        val_share: As in :func:`class_incremental`.
        order: As in :func:`class_incremental`; within a task, labels are counted in this order.
        seed: As in :func:`class_incremental`.

    Raises:
        ConfigurationError: As :func:`class_incremental`.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 2), torch.arange(40) % 4)
        >>> pixels, label, task = task_incremental(data, n_experiences=2)[1].train[0]
        >>> int(label), int(task)  # class 2, the first one of the second task
        (0, 1)
    """
    return _by_class(
        "task-incremental", _of_a_task, train, n_experiences, test, val_share, order, seed
    )


def domain_incremental(
    train: Dataset[Sample],
    *,
    n_experiences: int,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    order: Order = None,
    seed: int = 0,
) -> Stream:
    """Bring the same question about other classes with each experience.

    As :func:`class_incremental`, but labels are counted within the experience, and the model is
    not told which it is: Split MNIST with two classes each asks "the first or the second?".

    Args:
        train: As in :func:`class_incremental`.
        n_experiences: Number of experiences.
        test: As in :func:`class_incremental`.
        val_share: As in :func:`class_incremental`.
        order: As in :func:`class_incremental`; labels are counted in this order.
        seed: As in :func:`class_incremental`.

    Raises:
        ConfigurationError: As :func:`class_incremental`.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 2), torch.arange(40) % 4)
        >>> second = domain_incremental(data, n_experiences=2)[1]
        >>> sorted({int(label) for _, label in second.train})  # classes 2 and 3
        [0, 1]
    """
    return _by_class(
        "domain-incremental", _of_a_domain, train, n_experiences, test, val_share, order, seed
    )


def data_incremental(
    train: Dataset[Sample],
    *,
    n_experiences: int,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    seed: int = 0,
) -> Stream:
    """Bring more data of the same kind with each experience: the samples, shuffled and shared out.

    Args:
        train: Any map-style dataset; labels are not looked at.
        n_experiences: Number of experiences.
        test: Data to report on, shuffled and shared out likewise.
        val_share: Share of each experience's samples to measure on in place of training.
        seed: Decides which samples come when.

    Raises:
        ConfigurationError: If there are fewer than two samples for an experience.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> stream = data_incremental(TensorDataset(torch.rand(100, 2)), n_experiences=4)
        >>> [(len(experience.train), len(experience.val)) for experience in stream]
        [(23, 2), (23, 2), (23, 2), (23, 2)]
    """
    check_share(val_share, seed)
    random = np.random.default_rng(seed)
    arrivals = _iid(train, "train", n_experiences, random)
    reports: list[Dataset[Sample] | None] = [None] * len(arrivals)
    if test is not None:
        parts = _iid(test, "test", n_experiences, random)
        reports = [Subset(test, np.sort(part).tolist()) for part in parts]
    experiences = []
    for position, (arrival, report) in enumerate(zip(arrivals, reports, strict=True)):
        fit, held_out = shares(arrival, val_share, random, f"experience {position}")
        experiences.append(
            Experience(
                numbered(position, n_experiences, "more"),
                Subset(train, fit),
                Subset(train, held_out),
                metadata={"brings": "more of the same"},
                test=report,
            )
        )
    return built("data-incremental", experiences, seed)


def _by_class(
    scenario: str,
    take: _Take,
    train: Dataset[Sample],
    n_experiences: int,
    test: Dataset[Sample] | None,
    val_share: float,
    order: Order,
    seed: int,
) -> Stream:
    check_share(val_share, seed)
    random = np.random.default_rng(seed)
    labels = labels_of(train, "train")
    known = np.unique(labels).tolist()
    check_count(n_experiences, "n_experiences", len(known), "classes")
    test_labels = None if test is None else labels_of(test, "test")
    if test_labels is not None and set(test_labels.tolist()) != set(known):
        raise ConfigurationError(
            f"test has the classes {sorted(set(test_labels.tolist()))} and train {known}; they "
            "have to be the same"
        )
    groups = np.array_split(_in_order(known, order, random), n_experiences)
    experiences = []
    for position, group in enumerate(groups):
        classes: list[int] = group.tolist()
        told = ", ".join(map(str, classes))
        parts = [
            shares(np.flatnonzero(labels == label), val_share, random, f"class {label} of train")
            for label in classes
        ]
        fit, held_out = (sorted(chain.from_iterable(part)) for part in zip(*parts, strict=True))
        report = None
        if test is not None and test_labels is not None:
            indices = np.flatnonzero(np.isin(test_labels, classes)).tolist()
            report = take(test, indices, classes, position)
        experiences.append(
            Experience(
                numbered(position, n_experiences, _classes_in_a_name(classes)),
                take(train, fit, classes, position),
                take(train, held_out, classes, position),
                metadata={"brings": f"class{'es' if len(classes) > 1 else ''} {told}"}
                | {"classes": classes}
                | ({"task": position} if scenario == "task-incremental" else {}),
                test=report,
            )
        )
    return built(scenario, experiences, seed)


def _iid(
    dataset: Dataset[Sample], name: str, parts: int, random: np.random.Generator
) -> list[Indices]:
    check_dataset(dataset, name, name)
    check_count(parts, "n_experiences", length(dataset), f"samples of {name}")
    return np.array_split(random.permutation(length(dataset)), parts)


def _in_order(known: list[int], order: Order, random: np.random.Generator) -> list[int]:
    if order is None:
        return known
    if isinstance(order, str):
        if order != "random":
            raise ConfigurationError(
                f'order is {order!r}; it is "random", or each class once, as a list'
            )
        shuffled: list[int] = random.permutation(known).tolist()
        return shuffled
    given = list(order)
    if sorted(given) != known:
        raise ConfigurationError(f"order is {given}; it has to hold each of {known} once")
    return given


def _as_it_is(
    dataset: Dataset[Sample], indices: Sequence[int], classes: Sequence[int], position: int
) -> Dataset[Sample]:
    return Subset(dataset, indices)


def _of_a_domain(
    dataset: Dataset[Sample], indices: Sequence[int], classes: Sequence[int], position: int
) -> Dataset[Sample]:
    return View(dataset, indices, partial(_counted, numbers=_numbers(classes)))


def _of_a_task(
    dataset: Dataset[Sample], indices: Sequence[int], classes: Sequence[int], position: int
) -> Dataset[Sample]:
    change = partial(_counted, numbers=_numbers(classes), task=(torch.tensor(position),))
    return View(dataset, indices, change)


def _numbers(classes: Sequence[int]) -> dict[int, torch.Tensor]:
    return {label: torch.tensor(number) for number, label in enumerate(classes)}


def _counted(
    sample: Sample,
    index: int,
    *,
    numbers: Mapping[int, torch.Tensor],
    task: tuple[torch.Tensor, ...] = (),
) -> tuple[Any, ...]:
    features, label, *rest = sample
    return features, numbers[int(label)], *rest, *task


def _classes_in_a_name(classes: Sequence[int]) -> str:
    if len(classes) > _MOST_CLASSES_IN_A_NAME:
        return f"{len(classes)}-classes"
    return "-".join(["classes" if len(classes) > 1 else "class", *map(str, classes)])
