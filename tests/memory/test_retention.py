"""The choice of samples, against the papers' algorithms, one sample at a time."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory import ClassBalancedBuffer, HerdingBuffer, SampleList, concat
from greentrain.memory.herding import herd
from greentrain.memory.labels import plain, read_labels
from greentrain.memory.retention import algorithm_r, equal_shares
from tests.memory.samples import everything, held, labelled

ALPHA = 0.001


def of_class(label: int, start: int, count: int) -> TensorDataset:
    return TensorDataset(torch.arange(start, start + count), torch.full((count,), label))


def class_counts(buffer: Any) -> dict[int, int]:
    dataset = buffer.select(lambda origin: True)
    return dict(Counter(int(dataset[index][1]) for index in range(len(dataset))))


def gdumb(labels: list[int], room: int, random: np.random.Generator) -> Counter[int]:
    """Class counts of Prabhu et al. 2020, Algorithm 1 (Greedy Sampler), sample by sample."""
    counts: Counter[int] = Counter()
    for label in labels:
        per_class = room / len({*counts, label})
        if counts[label] < per_class:
            if counts.total() >= room:
                most = max(counts.values())
                largest = [each for each, count in counts.items() if count == most]
                counts[int(random.choice(largest))] -= 1
            counts[label] += 1
    return counts


def icarl(features: np.ndarray, n: int) -> list[int]:
    """Rebuffi et al. 2017, Algorithm 4 as it is printed, without repetitions."""
    phi = features / np.linalg.norm(features, axis=1, keepdims=True)
    mean, chosen = phi.mean(axis=0), []
    for k in range(1, n + 1):
        costs = [
            np.inf
            if place in chosen
            else np.linalg.norm(mean - (phi[place] + phi[chosen].sum(axis=0)) / k)
            for place in range(len(phi))
        ]
        chosen.append(int(np.argmin(costs)))
    return chosen


@pytest.mark.parametrize("cuts", [[12], [3, 9], [5, 1, 6], [8, 4]])
@pytest.mark.parametrize("rooms", ["level", "falling"])
def test_each_set_of_samples_is_equally_likely(cuts: list[int], rooms: str) -> None:
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(3000):
        random, kept, seen = np.random.default_rng(seed), np.arange(0), 0
        for place, count in enumerate(cuts):
            last = place == len(cuts) - 1
            room = 2 if rooms == "level" or last else 5 - place
            stay, take = algorithm_r(seen, len(kept), count, room, random)
            kept, seen = np.concatenate([kept[stay], seen + take]), seen + count
        counts[tuple(kept.tolist())] += 1
    # 66 pairs of the twelve, each with the same expectation of 3000 / 66.
    assert len(counts) == 66
    assert stats.chisquare(list(counts.values())).pvalue > ALPHA


def test_a_reservoir_that_has_lost_samples_does_not_grow_again() -> None:
    counts: Counter[int] = Counter()
    for seed in range(2000):
        # Two of six are held, and four more come: to fill up with them would favour them.
        stay, take = algorithm_r(6, 2, 4, 5, np.random.default_rng(seed))
        assert len(stay) + len(take) == 2
        counts.update(take.tolist())
    assert stats.binomtest(counts.total(), 2 * 2000, 4 / 10).pvalue > ALPHA


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 200))
def test_shares_are_as_equal_as_they_can_be(most: list[int], room: int) -> None:
    given_ = equal_shares(np.array(most, dtype=np.int64), room).tolist()
    assert sum(given_) == min(room, sum(most))
    assert all(0 <= mine <= limit for mine, limit in zip(given_, most, strict=True))
    # A group with less than another by more than one cannot use more.
    for mine, limit in zip(given_, most, strict=True):
        assert mine == limit or mine >= max(given_) - 1


def test_places_are_freed_as_classes_come() -> None:
    buffer = ClassBalancedBuffer(10)
    counts = []
    for label in range(4):
        buffer.add(of_class(label, 100 * label, 100), origin=str(label))
        counts.append(class_counts(buffer))
    assert counts == [
        {0: 10},
        {0: 5, 1: 5},
        {0: 4, 1: 3, 2: 3},
        {0: 3, 1: 3, 2: 2, 3: 2},
    ]


@given(
    experiences=st.lists(
        st.dictionaries(st.integers(0, 6), st.integers(1, 25), min_size=1, max_size=3),
        min_size=1,
        max_size=5,
    ),
    room=st.integers(8, 30),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_class_counts_are_those_of_gdumb(
    experiences: list[dict[int, int]], room: int, seed: int
) -> None:
    # Each class in one experience, as GDumb's streams bring it.
    buffer, labels, random = ClassBalancedBuffer(room, seed=seed), [], np.random.default_rng(seed)
    for place, counts in enumerate(experiences):
        mine = [10 * place + label for label, count in counts.items() for _ in range(count)]
        if len({*labels, *mine}) > room:
            break
        mine = random.permutation(mine).tolist()
        buffer.add(TensorDataset(torch.arange(len(mine)), torch.tensor(mine)), origin=str(place))
        labels += mine
    ours, theirs = class_counts(buffer), gdumb(labels, room, random)
    assert ours.keys() == (+theirs).keys()
    # Where a class is small, GDumb leaves places empty that others could use.
    assert sum(ours.values()) == min(room, len(labels)) >= theirs.total()
    if all(labels.count(label) >= room / len(ours) for label in ours):
        assert all(abs(ours[label] - theirs[label]) <= 1 for label in ours)


def test_within_a_class_all_samples_are_equally_likely() -> None:
    counts: Counter[int] = Counter()
    for seed in range(300):
        buffer = ClassBalancedBuffer(6, seed=seed)
        buffer.add(concat([of_class(0, 0, 6), of_class(1, 50, 5)]), origin="first")
        buffer.add(of_class(0, 6, 6), origin="second")
        buffer.add(concat([of_class(2, 80, 5), of_class(0, 12, 3)]), origin="third")
        counts.update(number for number in everything(buffer) if number < 50)
    # Two of the fifteen of class 0 each time. A choice without replacement has 14 / 15 of the
    # variance of independent cells less the share chosen: scale to chi-square with 14 degrees.
    expected = 300 * 2 / 15
    squares = sum((counts[number] - expected) ** 2 for number in range(15))
    statistic = squares / (expected * (1 - 2 / 15)) * 14 / 15
    assert counts.total() == 600
    assert stats.chi2.sf(statistic, 14) > ALPHA


def test_so_many_of_a_class_from_the_start() -> None:
    buffer = ClassBalancedBuffer(1000, per_class=4)
    for label in range(3):
        buffer.add(of_class(label, 100 * label, 100), origin=str(label))
        assert class_counts(buffer) == dict.fromkeys(range(label + 1), 4)


def test_classes_of_each_experience_may_count_apart() -> None:
    buffer = ClassBalancedBuffer(100, per_class=5, per_experience=True)
    for name in ("first", "second", "third"):
        buffer.add(labelled(0, 60, classes=2), origin=name)
    for name in ("first", "second", "third"):
        of_one = buffer.select(lambda origin, name=name: origin == name)
        assert Counter(int(of_one[place][1]) for place in range(len(of_one))) == {0: 5, 1: 5}


@pytest.mark.parametrize("kind", [ClassBalancedBuffer, HerdingBuffer])
def test_fewer_places_than_classes_keep_one_sample_each(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = kind(4)
    with caplog.at_level(logging.WARNING):
        for start in (0, 100, 200):
            buffer.add(
                TensorDataset(torch.arange(start, start + 50), torch.arange(50) % 6),
                origin=str(start),
            )
    assert list(class_counts(buffer).values()) == [1, 1, 1, 1]
    assert [record.message for record in caplog.records] == [
        "the buffer has room for 4 samples and there are 6 classes: as many classes as fit keep "
        "one sample each, chosen at random"
    ]


def test_which_classes_keep_a_sample_is_a_fair_choice() -> None:
    counts: Counter[int] = Counter()
    for seed in range(300):
        buffer = ClassBalancedBuffer(3, seed=seed)
        for start in (0, 4, 6, 8):  # four classes, then two, two and two
            labels = torch.arange(start, start + (4 if start == 0 else 2)).repeat(5)
            buffer.add(TensorDataset(labels, labels), origin=str(start))
        counts.update(class_counts(buffer).keys())
    expected = 300 * 3 / 10
    squares = sum((counts[label] - expected) ** 2 for label in range(10))
    assert stats.chi2.sf(squares / (expected * 0.7) * 9 / 10, 9) > ALPHA


@given(
    n=st.integers(3, 12),  # of two, both are equally far from their mean
    share=st.floats(0.01, 1.0),
    width=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_herding_is_icarls(n: int, share: float, width: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(n, width + 1))
    count = max(1, round(share * n))
    assert herd(torch.from_numpy(features), count).tolist() == icarl(features, count)


def test_reducing_drops_the_exemplars_chosen_last() -> None:
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    first = TensorDataset(points, torch.zeros(40, dtype=torch.int64))
    order = icarl(points.numpy(), 12)
    buffer = HerdingBuffer(12)
    buffer.add(first, origin="first")

    def exemplars() -> list[int]:
        dataset = buffer.select(lambda origin: origin == "first")
        return [
            int((points == dataset[place][0]).all(dim=1).nonzero()) for place in range(len(dataset))
        ]

    assert exemplars() == order
    buffer.add(TensorDataset(points, torch.ones(40, dtype=torch.int64)), origin="second")
    assert exemplars() == order[:6]
    buffer.add(TensorDataset(points, torch.full((40,), 2)), origin="third")
    assert exemplars() == order[:4]


def test_features_may_be_assigned_later_and_what_was_foreseen_holds() -> None:
    inputs = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    dataset = TensorDataset(inputs, torch.zeros(30, dtype=torch.int64))
    chosen = []
    for features in (None, lambda batch: batch[:, :2], lambda batch: batch[:, 2:]):
        buffer = HerdingBuffer(5)
        buffer.features = features
        foreseen = buffer.after(dataset, origin="first")
        buffer.features = None  # the model has been trained since
        buffer.add(dataset, origin="first")
        kept = [buffer.select(lambda origin: True)[place][0] for place in range(5)]
        assert [repr(foreseen[place][0]) for place in range(5)] == list(map(repr, kept))
        chosen.append(repr(kept))
    assert len(set(chosen)) == 3


def test_a_class_that_comes_again_shares_its_places() -> None:
    buffer = HerdingBuffer(8)
    for start in (0, 100):
        buffer.add(labelled(start, 40, classes=2), origin=str(start))
    for origin in ("0", "100"):
        of_one = buffer.select(lambda name, origin=origin: name == origin)
        assert Counter(int(of_one[place][1]) for place in range(len(of_one))) == {0: 2, 1: 2}


@pytest.mark.parametrize(
    "features", [lambda batch: batch.sum(), lambda batch: batch[:2], lambda batch: 3]
)
def test_features_of_the_wrong_shape_are_refused(features: Any) -> None:
    buffer = HerdingBuffer(5, features=features)
    with pytest.raises(ConfigurationError, match="for 9 inputs; they are a tensor"):
        buffer.add(TensorDataset(torch.rand(9, 4), torch.zeros(9, dtype=torch.int64)), origin="a")
    assert len(buffer) == 0


def test_dicts_are_herded_by_what_is_not_their_label() -> None:
    samples = [{"x": torch.rand(3), "label": number % 2} for number in range(10)]
    buffer = HerdingBuffer(4)
    buffer.add(SampleList(samples), origin="first")
    assert len(buffer) == 4
    with pytest.raises(ConfigurationError, match="say with features="):
        HerdingBuffer(4).add(SampleList([{**samples[0], "y": torch.rand(3)}]), origin="first")


@pytest.mark.parametrize(
    "label",
    [
        0.5,
        None,
        torch.tensor(1.0),
        torch.tensor([1, 2]),
        np.array([1, 2]),
        np.float32(1),
        (1,),
        torch.tensor(1j),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [ClassBalancedBuffer, HerdingBuffer])
def test_labels_that_name_no_class_are_refused(kind: Any, label: Any) -> None:
    buffer = kind(4)
    with pytest.raises(ConfigurationError, match=r"a label is .* a class is one whole number"):
        buffer.add(SampleList([(torch.rand(2), label)]), origin="first")
    assert (len(buffer), buffer.max_size) == (0, 4)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (3, 3),
        (True, 1),
        ("cat", "cat"),
        (np.int8(4), 4),
        (np.array([5]), 5),
        (torch.tensor([6]), 6),
    ],
)
def test_labels_are_whole_numbers_or_texts(label: Any, expected: Any) -> None:
    found = plain(label)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("sample", [torch.rand(3), (1,), {"x": 1}, 5])
def test_a_sample_without_a_label_is_refused(sample: Any) -> None:
    with pytest.raises(ConfigurationError, match="say with label="):
        ClassBalancedBuffer(3).add(SampleList([sample]), origin="first")


def test_a_callable_may_say_what_the_label_is() -> None:
    buffer = ClassBalancedBuffer(4, label=lambda sample: int(sample[0]) % 2)
    buffer.add(TensorDataset(torch.arange(40)), origin="first")
    assert Counter(number % 2 for number in everything(buffer)) == {0: 2, 1: 2}


LABELS = torch.tensor([7, 3, 3, 7, 5, 3])
PAIRS = TensorDataset(torch.arange(6), LABELS)


@pytest.mark.parametrize(
    "dataset",
    [
        PAIRS,
        SampleList([PAIRS[place] for place in range(6)]),
        Subset(TensorDataset(torch.arange(12), LABELS.repeat(2)), range(6)),
        concat([Subset(PAIRS, range(2)), Subset(PAIRS, range(2, 6))]),
        TensorDataset(torch.arange(6), LABELS[:, None]),
        TensorDataset(torch.arange(6), LABELS.to(torch.uint8)),
    ],
    ids=["tensors", "list", "subset", "joined", "column", "bytes"],
)
def test_labels_are_read_alike_whatever_holds_them(dataset: Dataset[Any]) -> None:
    classes, places = read_labels(dataset)
    assert classes == [7, 3, 5]
    assert places.tolist() == [0, 1, 1, 0, 2, 1]
    assert held(dataset) == [0, 1, 2, 3, 4, 5]
