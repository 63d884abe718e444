from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams import Stream, corrupted, permuted, pixels, rotated


def images(n: int, seed: int = 0, shape: tuple[int, ...] = (1, 6, 6)) -> TensorDataset:
    """Random images, the label of each its number."""
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(n, *shape, generator=generator), torch.arange(n))


TRAIN, TEST = images(60), images(10, seed=1)

BUILDERS: dict[str, Callable[..., Stream]] = {
    "permuted": lambda train, n, **options: permuted(train, n_experiences=n, **options),
    "rotated": lambda train, n, **options: rotated(train, angles=[20.0] * n, **options),
    "corrupted": lambda train, n, **options: corrupted(
        train, kind="noise", severities=[0.3] * n, **options
    ),
}
every_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def labels(dataset: Any) -> list[int]:
    return [int(dataset[index][1]) for index in range(len(dataset))]


def test_the_first_experience_is_not_permuted_and_the_others_each_in_their_way() -> None:
    stream = permuted(TRAIN, n_experiences=3, test=TEST)
    assert [each.id for each in stream] == ["0-as-it-is", "1-permuted", "2-permuted"]
    orders = []
    for experience in stream:
        splits = [(experience.train, TRAIN), (experience.val, TRAIN), (experience.test, TEST)]
        found = set()
        for split, base in splits:
            for image, label in split:  # type: ignore[union-attr]
                before = base[int(label)][0].flatten()
                # Where each pixel came from: the values are all different.
                found.add(tuple((image.flatten()[:, None] == before).int().argmax(1).tolist()))
        assert len(found) == 1  # one order for the whole experience
        orders += found
    assert orders[0] == tuple(range(36))
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(36)) for order in orders)


def test_each_experience_is_turned_by_its_angle() -> None:
    stream = rotated(TRAIN, angles=[0, 90, -180.0], test=TEST)
    assert [each.id for each in stream] == ["0-rotated-0", "1-rotated-90", "2-rotated--180"]
    assert [each.metadata["angle_deg"] for each in stream] == [0.0, 90.0, -180.0]
    for quarters, experience in zip((0, 1, -2), stream, strict=True):
        splits = [(experience.train, TRAIN), (experience.val, TRAIN), (experience.test, TEST)]
        for split, base in splits:
            for image, label in split:  # type: ignore[union-attr]
                turned = torch.rot90(base[int(label)][0], quarters, (-2, -1))
                torch.testing.assert_close(image, turned, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(pixels.KINDS))
def test_each_experience_is_corrupted_to_its_degree(kind: Any) -> None:
    stream = corrupted(TRAIN, kind=kind, severities=[0, 0.5, 1], test=TEST, seed=4)
    assert [each.id for each in stream] == [f"0-{kind}-0", f"1-{kind}-0.5", f"2-{kind}-1"]
    for severity, experience in zip((0.0, 0.5, 1.0), stream, strict=True):
        assert dict(experience.metadata).items() >= {"kind": kind, "severity": severity}.items()
        splits = [
            (experience.train, TRAIN, 0),
            (experience.val, TRAIN, 0),
            (experience.test, TEST, 1),
        ]
        for split, base, role in splits:
            for image, label in split:  # type: ignore[union-attr]
                clean, number, role = base[int(label)][0], int(label), int(base is TEST)
                expected = clean
                if severity:
                    expected = pixels.KINDS[kind](clean, severity, (4, role, number))
                assert torch.equal(image, expected)


def test_a_sample_has_the_same_noise_each_time_it_is_read() -> None:
    stream = corrupted(TRAIN, kind="noise", severities=[0.5, 0.5, 0.25], size=60)
    seen: dict[int, torch.Tensor] = {}
    for experience in stream[:2]:  # all samples come in each
        for image, label in experience.train:  # type: ignore[attr-defined]
            assert torch.equal(image, seen.setdefault(int(label), image))
    assert torch.equal(stream[0].train[3][0], stream[0].train[3][0])
    other = corrupted(TRAIN, kind="noise", severities=[0.5], size=60, seed=1)[0].train
    for image, label in other:  # type: ignore[attr-defined]
        assert not torch.equal(image, seen.get(int(label), TRAIN[0][0]))


@every_builder
def test_by_default_no_sample_comes_twice(build: Callable[..., Stream]) -> None:
    stream = build(TRAIN, 7)  # 8 each, 4 left over
    come = [label for each in stream for label in [*labels(each.train), *labels(each.val)]]
    assert (len(come), len(set(come))) == (56, 56)
    assert all((len(labels(each.train)), len(labels(each.val))) == (7, 1) for each in stream)


@every_builder
def test_all_of_the_test_data_are_seen_under_each_shift(build: Callable[..., Stream]) -> None:
    assert [labels(each.test) for each in build(TRAIN, 3, test=TEST)] == [list(range(10))] * 3
    assert build(TRAIN, 1)[0].test is None


@settings(max_examples=40)
@given(
    n=st.integers(2, 30),
    experiences=st.integers(1, 8),
    val_share=st.floats(0.01, 0.99),
    data=st.data(),
)
def test_what_is_held_out_is_never_trained_on(
    n: int, experiences: int, val_share: float, data: st.DataObject
) -> None:
    hand = data.draw(st.integers(2, n))
    experiences = min(experiences, n)
    train = images(n, shape=(2,))
    stream = permuted(train, n_experiences=experiences, size=hand, val_share=val_share)
    fit = [label for each in stream for label in labels(each.train)]
    held = [label for each in stream for label in labels(each.val)]
    assert not set(fit) & set(held)
    assert all(len(labels(each.train)) + len(labels(each.val)) == hand for each in stream)
    # Chosen without replacement while they last: no sample is two ahead of another of its kind.
    if hand * experiences <= n:
        assert len(set(fit)) == len(fit)
        assert len(set(held)) == len(held)


@every_builder
def test_the_seed_decides_which_samples_come_when(build: Callable[..., Stream]) -> None:
    come = [[labels(each.train) for each in build(TRAIN, 3, seed=seed)] for seed in (1, 1, 2)]
    assert come[0] == come[1] != come[2]


def test_the_seed_decides_the_permutations() -> None:
    one, again, other = (
        dict(zip(labels(train), train, strict=True))  # type: ignore[call-overload]
        for train in (permuted(TRAIN, n_experiences=2, seed=seed)[1].train for seed in (1, 1, 2))
    )
    assert all(torch.equal(one[label][0], again[label][0]) for label in one)
    common = one.keys() & other.keys()
    assert common
    assert not any(torch.equal(one[label][0], other[label][0]) for label in common)


@every_builder
def test_workers_can_read_them(build: Callable[..., Stream]) -> None:
    train = build(TRAIN, 2)[1].train
    again = pickle.loads(pickle.dumps(train))
    for one, two in zip(train, again, strict=True):  # type: ignore[call-overload]
        assert torch.equal(one[0], two[0])


@every_builder
def test_batches_are_images_and_labels(build: Callable[..., Stream]) -> None:
    seen, numbers = next(iter(DataLoader(build(TRAIN, 2)[1].train, batch_size=4)))
    assert (seen.shape, seen.dtype) == ((4, 1, 6, 6), torch.float32)
    assert numbers.dtype == torch.int64


def test_nothing_is_copied_or_changed() -> None:
    before = TRAIN.tensors[0].clone()
    train = corrupted(TRAIN, kind="invert", severities=[1.0])[0].train
    assert train.dataset is TRAIN  # type: ignore[attr-defined]
    list(train)  # type: ignore[call-overload]
    assert torch.equal(TRAIN.tensors[0], before)


def test_lists_of_numbers_may_come_from_numpy() -> None:
    stream = rotated(TRAIN, angles=np.arange(0, 90, 30))  # type: ignore[arg-type]
    assert [each.metadata["angle_deg"] for each in stream] == [0.0, 30.0, 60.0]
    assert len(corrupted(TRAIN, kind="blur", severities=np.linspace(0, 1, 5))) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"size": 61}, "size is 61; it must be a whole number from 1 to 60, the number of samples"),
        ({"size": 0}, "size is 0;"),
        ({"size": 2.5}, "size is 2.5;"),
        ({"size": 1}, "leave 1 for each; two or more are needed"),
        ({"val_share": 0.0}, "val_share is 0.0;"),
        ({"seed": "x"}, "seed is 'x';"),
        ({"test": images(3, shape=(1, 5, 5))}, "test has images (1, 5, 5) of torch.float32 and"),
        ({"test": [1, 2]}, "test has samples a int; each is (image, ...)"),
        ({"train": TensorDataset(torch.rand(0, 1, 2, 2))}, "train holds no samples"),
        ({"train": [torch.zeros(1, 2, 2)] * 4}, "train has samples a torch.float32 tensor"),
        ({"train": [("picture", 1)] * 4}, "train has samples beginning with a str; each is"),
        ({"train": None}, "train is None"),
        ({"n": 61}, "is 61; it must be a whole number from 1 to 60"),
        ({"n": 31}, "60 samples for 31 experiences leave 1 for each"),
    ],
)
@every_builder
def test_what_cannot_be_shifted_is_refused(
    build: Callable[..., Stream], options: dict[str, Any], complaint: str
) -> None:
    given = {"train": TRAIN, "n": 2, **options}
    with pytest.raises(ConfigurationError) as caught:
        build(given.pop("train"), given.pop("n"), **given)
    assert complaint in str(caught.value)


BYTES = TensorDataset(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4))
FLAT = TensorDataset(torch.zeros(4, 4), torch.zeros(4))
NORMALISED = TensorDataset(torch.full((4, 1, 2, 2), -0.5), torch.zeros(4))


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (
            lambda: rotated(TRAIN, angles=[]),
            "angles is []; it must be a number of degrees for each",
        ),
        (
            lambda: rotated(TRAIN, angles=30),
            "angles is 30; it must be a number of degrees for each",
        ),
        (lambda: rotated(TRAIN, angles=[0, float("nan")]), "angles holds nan; each is a number"),
        (lambda: rotated(TRAIN, angles="90"), "angles holds '9'"),
        (lambda: rotated(TRAIN, angles=[True]), "angles holds True"),
        (lambda: rotated(BYTES, angles=[1]), "a torch.uint8 tensor (1, 2, 2); each is"),
        (lambda: rotated(FLAT, angles=[1]), "a torch.float32 tensor (4,); each is (image, ...)"),
        (
            lambda: corrupted(TRAIN, kind="snow", severities=[1]),
            "kind is 'snow'; it must be one of blur",
        ),
        (lambda: corrupted(TRAIN, kind="blur", severities=[0, 1.5]), "severities holds 1.5; each"),
        (lambda: corrupted(TRAIN, kind="blur", severities=[-0.1]), "a number from 0 to 1"),
        (lambda: corrupted(NORMALISED, kind="blur", severities=[1]), "values from -0.5 to -0.5"),
        (lambda: permuted(TRAIN, n_experiences=0), "n_experiences is 0;"),
    ],
)
def test_each_names_what_it_cannot_use(build: Callable[[], Stream], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert complaint in str(caught.value)
