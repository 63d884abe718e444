from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams import (
    Experience,
    Stream,
    class_incremental,
    data_incremental,
    domain_incremental,
    task_incremental,
)

BUILDERS = [class_incremental, data_incremental, domain_incremental, task_incremental]
BY_CLASS = [class_incremental, domain_incremental, task_incremental]


def numbered_samples(classes: int = 6, each: int = 10, first: int = 0) -> TensorDataset:
    """Samples whose only feature is their number, and whose class is that number's remainder."""
    numbers = torch.arange(first, first + classes * each)
    return TensorDataset(numbers.unsqueeze(1), numbers % classes)


TRAIN, TEST = numbered_samples(), numbered_samples(each=4, first=600)


def read(dataset: Dataset[Any] | None) -> list[tuple[int, ...]]:
    assert dataset is not None
    return [tuple(int(part) for part in dataset[i]) for i in range(len(dataset))]  # type: ignore[arg-type]


def everything(stream: Stream, *names: str) -> list[tuple[int, ...]]:
    return [
        sample
        for experience in stream
        for name in names
        for sample in read(getattr(experience, name))
    ]


def test_new_classes_come_with_each_experience() -> None:
    stream = class_incremental(TRAIN, n_experiences=3, test=TEST)
    assert (stream.name, stream.scenario) == ("class-incremental-3-seed-0", "class-incremental")
    assert [each.id for each in stream] == ["0-classes-0-1", "1-classes-2-3", "2-classes-4-5"]
    for position, experience in enumerate(stream):
        classes = {2 * position, 2 * position + 1}
        assert experience.metadata["classes"] == sorted(classes)
        for split in (experience.train, experience.val, experience.test):
            assert {label for _, label in read(split)} == classes
        assert (len(read(experience.train)), len(read(experience.val))) == (18, 2)
    assert stream[1].metadata["brings"] == "classes 2, 3"


def test_class_incremental_samples_are_the_datasets_own() -> None:
    samples = everything(class_incremental(TRAIN, n_experiences=3), "train", "val")
    assert sorted(samples) == [(number, number % 6) for number in range(60)]


def test_labels_of_a_domain_are_counted_within_it() -> None:
    # Split in two, classes 0, 2, 4 are called 0, 1, 2 first, and then 1, 3, 5.
    stream = domain_incremental(TRAIN, n_experiences=2, test=TEST, order=[0, 2, 4, 1, 3, 5])
    for first, experience in enumerate(stream):
        for number, label in everything(Stream([experience]), "train", "val", "test"):
            assert (number % 6) == first + 2 * label


def test_labels_are_counted_in_the_order_given() -> None:
    stream = domain_incremental(TRAIN, n_experiences=2, order=[4, 0, 2, 5, 3, 1])
    for places, experience in zip(({4: 0, 0: 1, 2: 2}, {5: 0, 3: 1, 1: 2}), stream, strict=True):
        for number, label in everything(Stream([experience]), "train", "val"):
            assert label == places[number % 6]


def test_split_in_twos_a_domain_asks_for_even_or_odd() -> None:
    for number, label in everything(domain_incremental(TRAIN, n_experiences=3), "train", "val"):
        assert label == number % 2


def test_a_task_comes_with_each_sample() -> None:
    stream = task_incremental(TRAIN, n_experiences=3, test=TEST)
    for position, experience in enumerate(stream):
        assert experience.metadata["task"] == position
        for number, label, task in everything(Stream([experience]), "train", "val", "test"):
            assert (task, 2 * task + label) == (position, number % 6)
    features, labels, tasks = next(iter(DataLoader(stream[2].train, batch_size=5)))
    assert (features.shape, labels.dtype, tasks.tolist()) == ((5, 1), torch.int64, [2] * 5)


def test_what_else_a_sample_has_is_kept() -> None:
    data = TensorDataset(torch.zeros(8, 1), torch.arange(8) % 4, torch.arange(8))
    for features, label, number, task in task_incremental(data, n_experiences=2)[1].train:  # type: ignore[attr-defined]
        assert (int(label) + 2, int(task)) == (int(number) % 4, 1)
        assert features.shape == (1,)


def test_data_incremental_shares_everything_out() -> None:
    stream = data_incremental(TRAIN, n_experiences=7, test=TEST, val_share=0.25)
    numbers = [number for number, _ in everything(stream, "train", "val")]
    assert sorted(numbers) == list(range(60))
    assert sorted(number for number, _ in everything(stream, "test")) == list(range(600, 624))
    assert {len(read(each.train)) + len(read(each.val)) for each in stream} == {8, 9}
    # Shuffled: not the classes' turn, nor the dataset's order.
    assert len({label for _, label in read(stream[0].train)}) > 2
    assert [each.id for each in stream][:2] == ["0-more", "1-more"]


def test_data_incremental_needs_no_labels() -> None:
    stream = data_incremental(list(range(20)), n_experiences=2)  # type: ignore[arg-type]
    assert sorted([*stream[0].train, *stream[0].val, *stream[1].train, *stream[1].val]) == [  # type: ignore[misc]
        *range(20)
    ]


@given(
    build=st.sampled_from(BUILDERS),
    n_experiences=st.integers(1, 6),
    val_share=st.floats(0.01, 0.9),
    seed=st.integers(0, 5),
)
def test_no_sample_is_lost_or_comes_twice(
    build: Callable[..., Stream], n_experiences: int, val_share: float, seed: int
) -> None:
    stream = build(TRAIN, n_experiences=n_experiences, val_share=val_share, seed=seed)
    assert len(stream) == n_experiences
    assert sorted(sample[0] for sample in everything(stream, "train", "val")) == list(range(60))


@pytest.mark.parametrize("build", BUILDERS)
def test_the_seed_decides_what_is_held_out(build: Callable[..., Stream]) -> None:
    one, again, other = (
        everything(build(TRAIN, n_experiences=3, test=TEST, seed=seed), "val") for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize("build", BY_CLASS)
def test_a_random_order_is_drawn_by_the_seed(build: Callable[..., Stream]) -> None:
    orders = [
        [each.metadata["classes"] for each in build(TRAIN, n_experiences=3, order=order, seed=seed)]
        for order, seed in (("random", 1), ("random", 1), ("random", 2), (None, 1))
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[3] == [[0, 1], [2, 3], [4, 5]]
    assert sorted(label for classes in orders[0] for label in classes) == list(range(6))


def test_classes_may_be_any_whole_numbers_and_need_not_divide() -> None:
    data = TensorDataset(torch.zeros(30, 1), torch.tensor([-7, 3, 40, 41, 1000]).repeat(6))
    stream = class_incremental(data, n_experiences=2, order=[1000, 3, 40, -7, 41])
    assert [each.metadata["classes"] for each in stream] == [[1000, 3, 40], [-7, 41]]
    alone = class_incremental(data, n_experiences=5)
    assert (alone[0].id, alone[0].metadata["brings"]) == ("0-class--7", "class -7")


def test_many_classes_are_counted_in_a_name() -> None:
    assert class_incremental(TRAIN, n_experiences=1)[0].id == "0-6-classes"


@pytest.mark.parametrize("build", BUILDERS)
def test_workers_can_read_them(build: Callable[..., Stream]) -> None:
    experience = build(TRAIN, n_experiences=2, test=TEST)[1]
    again: Experience = pickle.loads(pickle.dumps(experience))
    assert read(again.train) == read(experience.train)
    assert read(again.test) == read(experience.test)


def test_there_is_no_test_data_unless_given() -> None:
    for build in BUILDERS:
        assert build(TRAIN, n_experiences=2)[0].test is None  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            {"n_experiences": 7},
            "n_experiences is 7; it must be a whole number from 1 to 6, the number",
        ),
        ({"n_experiences": 0}, "n_experiences is 0;"),
        ({"n_experiences": 2.0}, "n_experiences is 2.0;"),
        (
            {"val_share": 0},
            "val_share is 0; it must be the share of validation samples, between 0 and 1",
        ),
        ({"val_share": 1.0}, "val_share is 1.0;"),
        ({"val_share": "10 %"}, "val_share is '10 %';"),
        ({"seed": -1}, "seed is -1; it must be a whole number, 0 or more"),
        ({"seed": None}, "seed is None;"),
        ({"order": "shuffled"}, "order is 'shuffled'; it must be \"random\", or each class once"),
        ({"order": [0, 1, 2, 3, 4]}, r"order is [0, 1, 2, 3, 4]; it has to hold each of"),
        ({"order": [0, 1, 2, 3, 4, 4]}, "it has to hold each of [0, 1, 2, 3, 4, 5] once"),
        ({"order": [0, 1, 2, 3, 4, 5, 6]}, "it has to hold each of [0, 1, 2, 3, 4, 5] once"),
        ({"test": numbered_samples(classes=5)}, "test has the classes [0, 1, 2, 3, 4] and train"),
        ({"test": TensorDataset(torch.zeros(3, 1))}, "test has samples without a label"),
    ],
)
@pytest.mark.parametrize("build", BY_CLASS)
def test_what_cannot_be_split_by_class_is_refused(
    build: Callable[..., Stream], arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(TRAIN, **{"n_experiences": 2, **arguments})
    assert complaint in str(caught.value)


@pytest.mark.parametrize("build", BY_CLASS)
def test_a_class_of_one_sample_is_too_small(build: Callable[..., Stream]) -> None:
    data = TensorDataset(torch.zeros(5, 1), torch.tensor([0, 0, 1, 1, 2]))
    with pytest.raises(ConfigurationError, match="class 2 of train holds 1 of the samples"):
        build(data, n_experiences=3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n_experiences": 61}, "from 1 to 60, the number of samples of train"),
        ({"n_experiences": 60}, "experience 0 holds 1 of the samples; two or more are needed"),
        ({"n_experiences": 25, "test": TEST}, "from 1 to 24, the number of samples of test"),
        ({"test": TensorDataset(torch.zeros(0, 1))}, "test holds no samples"),
        ({"val_share": 2}, "val_share is 2;"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        data_incremental(TRAIN, **{"n_experiences": 2, **arguments})
    assert complaint in str(caught.value)


def test_random_numbers_of_others_are_left_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    for build in BUILDERS:
        build(TRAIN, n_experiences=2)  # type: ignore[operator]
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index,union-attr]
