"""Streams that bring new classes, or more samples of the same classes, with each experience."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.streams.checks import check_count, check_split
from greentrain.streams.samples import Indices, Sample, TransformedSubset, labels_of, length, split
from greentrain.streams.stream import (
    Experience,
    Stream,
    check_dataset,
    experience_id,
    named_stream,
)

Order = Sequence[int] | Literal["random"] | None
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
    """Bring a few new classes with each experience; the model has to distinguish all classes.

    Split MNIST and similar streams, class-incremental as in van de Ven & Tolias 2019 (arXiv
    1904.07734). Samples are not changed. If the classes cannot be divided evenly, the first
    experiences have one more.

    Args:
        train: Map-style dataset of samples ``(x, label, ...)`` with whole numbers as labels.
        n_experiences: Number of experiences.
        test: Data for final reports; each experience gets the samples of its classes.
        val_share: Share of each class's samples to evaluate on instead of training.
        order: Classes in the order of their arrival: ascending by default, ``"random"`` for an
            order by the seed.
        seed: Seed of the validation split and of a random order.

    Raises:
        ConfigurationError: If there are fewer classes than experiences, the order does not contain
            each class once, a class has fewer than two samples, or labels are no whole numbers.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 2), torch.arange(40) % 4)
        >>> stream = class_incremental(data, n_experiences=2)
        >>> [experience.metadata["classes"] for experience in stream]
        [[0, 1], [2, 3]]
        >>> len(stream[0].train), len(stream[0].val)
        (18, 2)
    """
    return _by_class("class-incremental", train, n_experiences, test, val_share, order, seed)


def task_incremental(
    train: Dataset[Sample],
    *,
    n_experiences: int,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    order: Order = None,
    seed: int = 0,
) -> Stream:
    """Bring a new task with each experience; each sample includes the number of its task.

    Arguments and errors are those of :func:`class_incremental`, but samples become ``(x, label,
    ..., task)``. Tasks are numbered from 0. Labels are numbered within the task, in the given
    order of classes.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 2), torch.arange(40) % 4)
        >>> pixels, label, task = task_incremental(data, n_experiences=2)[1].train[0]
        >>> int(label), int(task)  # class 2, the first one of the second task
        (0, 1)
    """
    return _by_class("task-incremental", train, n_experiences, test, val_share, order, seed)


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

    Arguments and errors are those of :func:`class_incremental`, but labels are numbered within the
    experience, in the given order of classes. The model does not get the number of the experience:
    with two classes each, Split MNIST has to answer "the first or the second?".

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(40, 2), torch.arange(40) % 4)
        >>> second = domain_incremental(data, n_experiences=2)[1]
        >>> sorted({int(label) for _, label in second.train})  # classes 2 and 3
        [0, 1]
    """
    return _by_class("domain-incremental", train, n_experiences, test, val_share, order, seed)


def data_incremental(
    train: Dataset[Sample],
    *,
    n_experiences: int,
    test: Dataset[Sample] | None = None,
    val_share: float = 0.1,
    seed: int = 0,
) -> Stream:
    """Bring more data of the same kind with each experience: random, equal parts of the samples.

    Args:
        train: Any map-style dataset; labels are not read.
        n_experiences: Number of experiences.
        test: Data for final reports, divided in the same way.
        val_share: Share of each experience's samples to evaluate on instead of training.
        seed: Seed of the order of samples.

    Raises:
        ConfigurationError: If there are fewer than two samples for an experience.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> stream = data_incremental(TensorDataset(torch.rand(100, 2)), n_experiences=4)
        >>> [(len(experience.train), len(experience.val)) for experience in stream]
        [(23, 2), (23, 2), (23, 2), (23, 2)]
    """
    check_split(val_share, seed)
    random = np.random.default_rng(seed)
    parts = _random_parts(train, "train", n_experiences, random)
    tests: list[Dataset[Sample] | None] = [None] * len(parts)
    if test is not None:
        test_parts = _random_parts(test, "test", n_experiences, random)
        tests = [Subset(test, np.sort(part).tolist()) for part in test_parts]
    experiences = []
    for position, (part, test_part) in enumerate(zip(parts, tests, strict=True)):
        fit, held_out = split(part, val_share, random, f"experience {position}")
        experiences.append(
            Experience(
                experience_id(position, n_experiences, "more"),
                Subset(train, fit),
                Subset(train, held_out),
                metadata={"brings": "more of the same"},
                test=test_part,
            )
        )
    return named_stream("data-incremental", experiences, seed)


def _by_class(
    scenario: str,
    train: Dataset[Sample],
    n_experiences: int,
    test: Dataset[Sample] | None,
    val_share: float,
    order: Order,
    seed: int,
) -> Stream:
    check_split(val_share, seed)
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
    with_task = scenario == "task-incremental"
    experiences = []
    groups = np.array_split(_in_order(known, order, random), n_experiences)
    for position, group in enumerate(groups):
        classes: list[int] = group.tolist()
        parts = [
            split(np.flatnonzero(labels == label), val_share, random, f"class {label} of train")
            for label in classes
        ]
        fit, held_out = (sorted(chain.from_iterable(part)) for part in zip(*parts, strict=True))
        view = partial(_view, scenario=scenario, classes=classes, position=position)
        test_part = None
        if test is not None and test_labels is not None:
            test_part = view(test, np.flatnonzero(np.isin(test_labels, classes)).tolist())
        brings = f"class{'es' if len(classes) > 1 else ''} {', '.join(map(str, classes))}"
        experiences.append(
            Experience(
                experience_id(position, n_experiences, _classes_in_a_name(classes)),
                view(train, fit),
                view(train, held_out),
                metadata={"brings": brings, "classes": classes}
                | ({"task": position} if with_task else {}),
                test=test_part,
            )
        )
    return named_stream(scenario, experiences, seed)


def _random_parts(
    dataset: Dataset[Sample], name: str, n_parts: int, random: np.random.Generator
) -> list[Indices]:
    check_dataset(dataset, name, name)
    check_count(n_parts, "n_experiences", length(dataset), f"samples of {name}")
    return np.array_split(random.permutation(length(dataset)), n_parts)


def _in_order(known: list[int], order: Order, random: np.random.Generator) -> list[int]:
    if order is None:
        return known
    if isinstance(order, str):
        if order != "random":
            raise ConfigurationError(
                f'order is {order!r}; it must be "random", or each class once, as a list'
            )
        return random.permutation(known).tolist()  # type: ignore[no-any-return]
    given = list(order)
    if sorted(given) != known:
        raise ConfigurationError(f"order is {given}; it has to hold each of {known} once")
    return given


def _view(
    dataset: Dataset[Sample],
    indices: Sequence[int],
    *,
    scenario: str,
    classes: Sequence[int],
    position: int,
) -> Dataset[Sample]:
    """Return some samples of an experience, with the labels of the scenario."""
    if scenario == "class-incremental":
        return Subset(dataset, indices)
    numbers = {label: torch.tensor(number) for number, label in enumerate(classes)}
    task = (torch.tensor(position),) if scenario == "task-incremental" else ()
    return TransformedSubset(dataset, indices, partial(_relabelled, numbers=numbers, task=task))


def _relabelled(
    sample: Sample,
    index: int,
    *,
    numbers: Mapping[int, torch.Tensor],
    task: tuple[torch.Tensor, ...],
) -> tuple[Any, ...]:
    features, label, *rest = sample
    return features, numbers[int(label)], *rest, *task


def _classes_in_a_name(classes: Sequence[int]) -> str:
    if len(classes) > _MOST_CLASSES_IN_A_NAME:
        return f"{len(classes)}-classes"
    return "-".join(["classes" if len(classes) > 1 else "class", *map(str, classes)])
