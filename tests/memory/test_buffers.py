from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory import Buffer, FullBuffer, ReservoirBuffer, SampleList, concat, size

SEEDS = 2000
# The 99.9 % quantile of chi-square with 19 degrees of freedom.
CHI_SQUARE_19 = 43.82


def numbers(start: int, stop: int) -> TensorDataset:
    return TensorDataset(torch.arange(start, stop))


def held(dataset: Dataset[Any]) -> list[int]:
    return [int(dataset[index][0]) for index in range(size(dataset))]


def everything(buffer: Buffer) -> list[int]:
    return held(buffer.select(lambda origin: True))


def filled(buffer: Buffer) -> Buffer:
    buffer.add(numbers(0, 10), origin="first")
    buffer.add(numbers(10, 30), origin="second")
    buffer.add(numbers(30, 35), origin="third")
    return buffer


@pytest.fixture(params=[FullBuffer, partial(ReservoirBuffer, 1000)], ids=["full", "reservoir"])
def buffer(request: pytest.FixtureRequest) -> Buffer:
    """An empty buffer with room for everything."""
    empty: Buffer = request.param()
    return empty


def unfairness(counts: Counter[int], cells: int, drawn: int) -> float:
    """Chi-square of how often each of ``cells`` was among ``drawn`` without replacement.

    The counts of one draw add up to ``drawn``, which makes the variance of each, relative to that
    of independent cells, larger by cells / (cells - 1).
    """
    share = drawn / cells
    expected, variance = SEEDS * share, SEEDS * share * (1 - share)
    squares = sum((counts[cell] - expected) ** 2 for cell in range(cells))
    return squares / variance * (cells - 1) / cells


def test_what_there_is_room_for_is_all_kept(buffer: Buffer) -> None:
    assert len(buffer) == 0
    assert everything(buffer) == []
    filled(buffer)
    assert len(buffer) == 35
    assert everything(buffer) == list(range(35))


def test_samples_are_selected_by_where_they_came_from(buffer: Buffer) -> None:
    filled(buffer)
    assert held(buffer.select(lambda origin: origin == "second")) == list(range(10, 30))
    assert held(buffer.select(lambda origin: origin != "second")) == [
        *range(10),
        *range(30, 35),
    ]
    assert held(buffer.select(lambda origin: False)) == []


@pytest.mark.parametrize("n", [0, 1, 10, 35])
def test_a_sample_has_no_duplicates(buffer: Buffer, n: int) -> None:
    drawn = [int(sample[0]) for sample in filled(buffer).sample(n)]
    assert len(drawn) == len(set(drawn)) == n


def test_a_sample_is_no_larger_than_what_is_there(buffer: Buffer) -> None:
    assert buffer.sample(5) == []
    assert len(filled(buffer).sample(100)) == 35


def test_a_sample_of_a_negative_size_is_refused(buffer: Buffer) -> None:
    with pytest.raises(ConfigurationError, match="-1"):
        filled(buffer).sample(-1)


@pytest.mark.parametrize("kind", [FullBuffer, lambda seed: ReservoirBuffer(20, seed=seed)])
def test_samples_are_drawn_fairly(kind: Any) -> None:
    counts: Counter[int] = Counter()
    for seed in range(SEEDS):
        buffer = kind(seed=seed)
        buffer.add(numbers(0, 20), origin="first")
        counts.update(int(sample[0]) for sample in buffer.sample(5))
    assert unfairness(counts, 20, 5) < CHI_SQUARE_19


@pytest.mark.parametrize("cuts", [[0, 20], [0, 3, 4, 15, 20]])
def test_a_reservoir_keeps_a_fair_sample_of_all_that_came(cuts: list[int]) -> None:
    counts: Counter[int] = Counter()
    for seed in range(SEEDS):
        buffer = ReservoirBuffer(5, seed=seed)
        for start, stop in pairwise(cuts):
            buffer.add(numbers(start, stop), origin=str(start))
        counts.update(everything(buffer))
    assert counts.total() == 5 * SEEDS
    assert unfairness(counts, 20, 5) < CHI_SQUARE_19


def test_a_reservoir_keeps_its_size_and_each_samples_origin() -> None:
    buffer = ReservoirBuffer(8, seed=3)
    origins = {"first": range(10), "second": range(10, 30), "third": range(30, 35)}
    filled(buffer)
    assert len(buffer) == 8
    for name, came in origins.items():
        assert set(held(buffer.select(lambda origin, name=name: origin == name))) <= set(came)
    assert len(set(everything(buffer))) == 8


@pytest.mark.parametrize("kind", [FullBuffer, lambda seed: ReservoirBuffer(8, seed=seed)])
def test_the_seed_decides_what_is_kept_and_drawn(kind: Any) -> None:
    def story(seed: int) -> tuple[list[int], list[int]]:
        buffer = filled(kind(seed=seed))
        return everything(buffer), [int(sample[0]) for sample in buffer.sample(4)]

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_a_full_buffer_copies_nothing() -> None:
    buffer, dataset = FullBuffer(), numbers(0, 10)
    buffer.add(dataset, origin="first")
    assert buffer.select(lambda origin: True) is dataset


def test_a_reservoir_holds_no_more_memory_than_it_says() -> None:
    buffer = ReservoirBuffer(2)
    buffer.add(TensorDataset(torch.zeros(1000, 64)), origin="first")
    kept = buffer.sample(2)
    assert buffer.nbytes == 2 * 64 * 4
    assert sum(sample[0].untyped_storage().nbytes() for sample in kept) == buffer.nbytes


def test_what_a_reservoir_keeps_does_not_change_with_its_source() -> None:
    pixels = torch.zeros(4, 3)
    buffer = ReservoirBuffer(4)
    buffer.add(TensorDataset(pixels), origin="first")
    pixels.fill_(7.0)
    assert all(bool((sample[0] == 0).all()) for sample in buffer.sample(4))


PAIRS = TensorDataset(torch.zeros(10, 3), torch.zeros(10, dtype=torch.int64))


@pytest.mark.parametrize(
    ("dataset", "nbytes"),
    [
        (PAIRS, 10 * (3 * 4 + 8)),
        (Subset(PAIRS, range(4)), 4 * (3 * 4 + 8)),
        (Subset(Subset(PAIRS, range(4)), [1, 2]), 2 * (3 * 4 + 8)),
        (SampleList([1, 2, 3]), None),
    ],
)
def test_a_full_buffer_tells_its_bytes_where_they_can_be_told(
    dataset: Dataset[Any], nbytes: int | None
) -> None:
    buffer = FullBuffer()
    assert buffer.nbytes == 0
    buffer.add(dataset, origin="first")
    assert buffer.nbytes == nbytes
    buffer.add(PAIRS, origin="second")
    assert buffer.nbytes == (None if nbytes is None else nbytes + 200)


@pytest.mark.parametrize(
    ("sample", "nbytes"),
    [
        (torch.zeros(3), 12),
        ((torch.zeros(3), torch.tensor(1)), 20),
        ({"image": torch.zeros(2, 2, dtype=torch.uint8), "label": 3}, 4),
        ([{"a": torch.zeros(1)}, (torch.zeros(1),)], 8),
    ],
)
def test_a_reservoir_counts_the_tensors_of_any_sample(sample: Any, nbytes: int) -> None:
    buffer = ReservoirBuffer(5)
    buffer.add(SampleList([sample, sample]), origin="first")
    assert buffer.nbytes == 2 * nbytes


@pytest.mark.parametrize("max_size", [0, -1, 1.5, True, "10", None])
def test_a_size_is_a_positive_whole_number(max_size: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_size is"):
        ReservoirBuffer(max_size)


def test_joined_datasets_follow_each_other() -> None:
    joined = concat([numbers(0, 2), SampleList([]), numbers(5, 7)])
    assert held(joined) == [0, 1, 5, 6]
    assert size(concat([])) == size(concat([SampleList([])])) == 0
