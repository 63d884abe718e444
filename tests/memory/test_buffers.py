from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory import (
    Buffer,
    ClassBalancedBuffer,
    FullBuffer,
    HerdingBuffer,
    RandomReplacementBuffer,
    ReservoirBuffer,
    SampleList,
    concat,
    size,
)
from tests.memory.samples import BOUNDED, arrivals, everything, held, labelled, numbers

SEEDS = 400
# The 99.9 % quantile of chi-square with 19 degrees of freedom.
CHI_SQUARE_19 = 43.82


def filled(buffer: Buffer) -> Buffer:
    buffer.add(numbers(0, 10), origin="first")
    buffer.add(numbers(10, 30), origin="second")
    buffer.add(numbers(30, 35), origin="third")
    return buffer


@pytest.fixture(
    params=[FullBuffer, partial(ReservoirBuffer, 1000), partial(RandomReplacementBuffer, 1000)],
    ids=["full", "reservoir", "replacement"],
)
def buffer(request: pytest.FixtureRequest) -> Buffer:
    """An empty buffer with room for everything."""
    empty: Buffer = request.param()
    return empty


def unfairness(counts: Counter[int], cells: int, chosen: int) -> float:
    """Chi-square of how often each of ``cells`` was among ``chosen`` without replacement.

    The counts of one choice add up to ``chosen``, which makes the variance of each, relative to
    that of independent cells, larger by cells / (cells - 1).
    """
    share = chosen / cells
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
    sampled = [int(sample[0]) for sample in filled(buffer).sample(n)]
    assert len(sampled) == len(set(sampled)) == n


def test_each_draw_is_another(buffer: Buffer) -> None:
    filled(buffer)
    assert [int(sample[0]) for sample in buffer.sample(10)] != [
        int(sample[0]) for sample in buffer.sample(10)
    ]


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


def test_places_that_are_freed_are_used_again() -> None:
    buffer = ReservoirBuffer(20)
    for number in range(10):
        buffer.add(numbers(50 * number, 50 * number + 50), origin=str(number))
    (column,) = buffer.select(lambda origin: True).columns
    assert column.untyped_storage().nbytes() == 20 * 8


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


@pytest.mark.parametrize("max_size", [0, -1, 1.5, True, "10", None, "0 MiB", "ten MiB"])
def test_a_size_is_a_positive_whole_number_or_bytes(max_size: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_size is"):
        ReservoirBuffer(max_size)


def test_joined_datasets_follow_each_other() -> None:
    joined = concat([numbers(0, 2), SampleList([]), numbers(5, 7)])
    assert held(joined) == [0, 1, 5, 6]
    assert size(concat([])) == size(concat([SampleList([])])) == 0


@pytest.mark.parametrize("kind", BOUNDED)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5), max_size=st.integers(1, 25))
@settings(max_examples=25)
def test_a_bounded_buffer_holds_only_what_came_and_no_more_than_it_may(
    kind: Any, sizes: list[int], max_size: int
) -> None:
    buffer, came = kind(max_size), 0
    for origin, dataset in arrivals(sizes):
        foreseen = held(buffer.after(dataset, origin=origin))
        before = everything(buffer)
        assert everything(buffer) == before  # looking ahead has changed nothing
        buffer.add(dataset, origin=origin)
        now = everything(buffer)
        assert now == foreseen
        assert len(now) == len(buffer) <= max_size
        assert len(set(now)) == len(now)
        assert set(now) <= set(before) | set(range(came, came + size(dataset)))
        came += size(dataset)
        assert len(buffer) == min(max_size, came) or kind is HerdingBuffer
        assert sorted(held(buffer.select(lambda name, last=origin: name == last))) == sorted(
            number for number in now if number >= came - size(dataset)
        )


@pytest.mark.parametrize("kind", BOUNDED)
def test_an_experience_without_samples_changes_nothing(kind: Any) -> None:
    with_it, without = kind(5, seed=1), kind(5, seed=1)
    for number, (origin, dataset) in enumerate(arrivals([20, 20])):
        with_it.add(labelled(number, 0), origin="nothing")
        assert held(with_it.after(labelled(number, 0), origin="nothing")) == everything(with_it)
        with_it.add(dataset, origin=origin)
        without.add(dataset, origin=origin)
    assert everything(with_it) == everything(without)


@pytest.mark.parametrize("kind", BOUNDED)
def test_what_was_handed_out_stays_as_it_is(kind: Any) -> None:
    buffer = kind(5)
    (_, first), *others = arrivals([20] * 10)
    buffer.add(first, origin="first")
    shown = buffer.select(lambda origin: True)
    before = held(shown)
    for origin, dataset in others:
        buffer.add(dataset, origin=origin)
    assert held(shown) == before
    assert set(before) - set(everything(buffer))  # some of its places were freed since


def test_a_sample_that_is_changed_does_not_change_the_buffer() -> None:
    buffer = ReservoirBuffer(4)
    buffer.add(TensorDataset(torch.zeros(4, 3)), origin="first")
    shown = buffer.select(lambda origin: True)
    for sample in [*buffer.sample(4), shown[0], *shown.__getitems__([1, 2])]:
        sample[0].fill_(7.0)
    assert all(bool((shown[index][0] == 0).all()) for index in range(4))


SAMPLES = [
    (torch.zeros(3), torch.tensor(1)),
    {"image": torch.zeros(2, 2, dtype=torch.uint8), "label": 3, 7: None},
    [{"a": torch.zeros(1, dtype=torch.bfloat16)}, (True, 0.5, "text")],
    (np.zeros((2, 3), dtype=">f4"), np.int64(4), torch.zeros(0), torch.zeros(2, dtype=torch.bool)),
    torch.tensor(3.5),
    -7,
    (),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=repr)
@pytest.mark.parametrize("on_disk", [False, True])
def test_samples_come_back_as_they_were(sample: Any, on_disk: bool, tmp_path: Any) -> None:
    buffer = ReservoirBuffer(5, folder=tmp_path if on_disk else None)
    buffer.add(SampleList([sample] * 7), origin="first")
    returned = [*buffer.sample(2), buffer.select(lambda origin: True)[4]]
    assert len(returned) == 3
    for each in returned:
        assert repr(each) == repr(sample)


LIKE = "a sample is .* where those before it are "


@pytest.mark.parametrize("kind", BOUNDED)
@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (
            (torch.zeros(4), torch.tensor(0)),
            r"\(float32\[4\], int64\[\]\) .* \(float32\[3\], int64\[\]",
        ),
        ((torch.zeros(3).double(), torch.tensor(0)), r"\(float64\[3\], .* \(float32\[3\], "),
        ((torch.zeros(3), torch.tensor(0), 1), LIKE),
        ((torch.zeros(3), 0), LIKE),
        ([torch.zeros(3), torch.tensor(0)], LIKE),
        ((object(), torch.tensor(0)), "a sample holds a object"),
    ],
    ids=["shape", "dtype", "length", "number", "list", "object"],
)
def test_samples_that_change_are_refused_before_anything_changes(
    kind: Any, other: Any, complaint: str
) -> None:
    usual = (torch.zeros(3), torch.tensor(0))
    buffer = kind(6)
    buffer.add(SampleList([usual] * 4), origin="first")
    before = repr(buffer.state_dict())
    for samples in ([other] * 4, [usual, other, usual]):
        with pytest.raises(ConfigurationError, match=complaint):
            buffer.add(SampleList(samples), origin="second")
        assert repr(buffer.state_dict()) == before
        assert len(buffer) == 4


def test_a_tensor_dataset_of_another_shape_is_refused() -> None:
    buffer = ReservoirBuffer(4)
    buffer.add(TensorDataset(torch.zeros(4, 3)), origin="first")
    with pytest.raises(ConfigurationError, match=r"\(float32\[2\]\) where .* \(float32\[3\]\)"):
        buffer.add(TensorDataset(torch.zeros(4, 2)), origin="second")


def test_a_number_beyond_64_bits_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="64 bits"):
        ReservoirBuffer(4).add(SampleList([2**70]), origin="first")


def test_a_size_in_bytes_goes_by_the_first_sample() -> None:
    # A sample has 3 * 4 + 8 = 20 bytes: 51 of them in 1 KiB.
    buffer = ReservoirBuffer("1 KiB")
    assert buffer.max_size is None
    buffer.add(TensorDataset(torch.zeros(100, 3), torch.zeros(100, dtype=torch.int64)), origin="a")
    assert (buffer.max_size, len(buffer), buffer.nbytes) == (51, 51, 1020)


@pytest.mark.parametrize("sample", [(torch.zeros(100),), ("text", 3)])
def test_a_size_in_bytes_has_to_hold_a_sample(sample: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_size is 64 bytes"):
        ReservoirBuffer("64 B").add(SampleList([sample]), origin="first")


@pytest.mark.parametrize(
    "arguments",
    [{"rank": 1}, {"rank": -1}, {"world_size": 0}, {"rank": 0.0}, {"seed": -1}, {"seed": 1.5}],
)
def test_arguments_out_of_range_are_refused(arguments: Any) -> None:
    with pytest.raises(ConfigurationError, match="whole number"):
        ReservoirBuffer(5, **arguments)


def test_only_what_is_taken_is_read() -> None:
    read: list[int] = []

    class Watched(Dataset[Any]):
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return (torch.tensor(index),)

    buffer, dataset = ReservoirBuffer(10), Watched()
    buffer.after(dataset, origin="first")
    assert read == [0]  # how samples are built
    buffer.add(dataset, origin="first")
    assert sorted(read[1:]) == sorted(everything(buffer))


def test_loaders_read_batches_of_what_is_held_and_what_is_new() -> None:
    buffer = ReservoirBuffer(50)
    buffer.add(numbers(0, 50), origin="first")
    joined = concat([numbers(100, 120), Subset(numbers(50, 100), range(5)), buffer.select(bool)])
    expected = [*range(100, 120), *range(50, 55), *range(50)]
    batches = DataLoader(joined, batch_size=8, shuffle=True)
    assert sorted(int(number) for (batch,) in batches for number in batch) == sorted(expected)
    assert [int(joined.__getitems__([place])[0][0]) for place in range(75)] == expected
    assert held(joined) == expected
    assert isinstance(joined, ConcatDataset)


def test_replacement_takes_the_papers_share_of_each_experience() -> None:
    # Pellegrini et al. 2020, Algorithm 1, with room for 60: all, 60 / 2, 60 / 3, 60 / 4.
    buffer = RandomReplacementBuffer(60)
    for number, share in enumerate([60, 30, 20, 15]):
        buffer.add(numbers(100 * number, 100 * number + 100), origin=str(number))
        assert len(buffer.select(lambda origin, name=str(number): origin == name)) == share
        assert len(buffer) == 60


def test_replacement_meets_a_fraction_on_average() -> None:
    taken = []
    for seed in range(200):
        buffer = RandomReplacementBuffer(5, seed=seed)
        for origin, dataset in [("first", numbers(0, 9)), ("second", numbers(9, 18))]:
            buffer.add(dataset, origin=origin)
        taken.append(len(buffer.select(lambda origin: origin == "second")))
    assert set(taken) == {2, 3}
    assert np.mean(taken) == pytest.approx(2.5, abs=4 * 0.5 / 200**0.5)


def test_replacement_fills_what_is_free_first() -> None:
    buffer = RandomReplacementBuffer(10)
    buffer.add(numbers(0, 2), origin="first")
    buffer.add(numbers(2, 30), origin="second")
    assert len(buffer) == 10
    assert everything(buffer)[:2] == [0, 1]


def test_replaced_samples_are_chosen_fairly() -> None:
    counts: Counter[int] = Counter()
    for seed in range(SEEDS):
        buffer = RandomReplacementBuffer(20, seed=seed)
        buffer.add(numbers(0, 20), origin="first")
        buffer.add(numbers(20, 40), origin="second")
        counts.update(number for number in everything(buffer) if number < 20)
    assert unfairness(counts, 20, 10) < CHI_SQUARE_19


def test_a_stream_leaves_no_trace_that_grows_with_it() -> None:
    def nbytes(buffer: Any) -> int:
        return len(repr(buffer.state_dict()["table"]))

    for buffer in (ClassBalancedBuffer(6, per_experience=True), HerdingBuffer(6)):
        sizes = []
        for number in range(30):
            buffer.add(labelled(number, 8), origin=f"experience {number + 100}")
            sizes.append(nbytes(buffer))
        assert sizes[-1] <= sizes[6] * 1.5
