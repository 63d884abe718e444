"""Several ranks: together they hold what one process would, also when their number changes."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from greentrain.errors import ConfigurationError
from greentrain.memory import ReservoirBuffer, SampleList, reshard
from greentrain.memory.sample_table import assign_ranks
from tests.memory.samples import BOUNDED, arrivals, everything, held, numbers

SEEDS, ALPHA = 400, 0.001


def ranks(kind: Any, max_size: int, world_size: int, **rest: Any) -> list[Any]:
    return [kind(max_size, rank=rank, world_size=world_size, **rest) for rank in range(world_size)]


def resharded(kind: Any, max_size: int, buffers: list[Any], world_size: int, **rest: Any) -> Any:
    states = reshard([buffer.state_dict() for buffer in buffers], world_size)
    news = ranks(kind, max_size, world_size, **rest)
    for buffer, state in zip(news, states, strict=True):
        buffer.load_state_dict(state)
    return news


def add(buffers: list[Any], dataset: Any, origin: str) -> None:
    for buffer in buffers:
        buffer.add(dataset, origin=origin)


def union(buffers: list[Any]) -> list[int]:
    return [number for buffer in buffers for number in everything(buffer)]


@pytest.mark.parametrize("kind", BOUNDED)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=3, max_size=5),
    max_size=st.integers(1, 12),
    worlds=st.lists(st.integers(1, 4), min_size=3, max_size=3),
)
@settings(max_examples=15)
def test_ranks_together_hold_what_one_process_would(
    kind: Any, sizes: list[int], max_size: int, worlds: list[int]
) -> None:
    one, buffers = kind(max_size, seed=5), ranks(kind, max_size, worlds[0], seed=5)
    for place, (origin, dataset) in enumerate(arrivals(sizes)):
        if place < 3:
            buffers = resharded(kind, max_size, buffers, worlds[place], seed=5)
        foreseen = [held(buffer.after(dataset, origin=origin)) for buffer in buffers]
        add([one, *buffers], dataset, origin)
        assert [everything(buffer) for buffer in buffers] == foreseen
        assert sorted(union(buffers)) == sorted(everything(one))
        assert max(map(len, buffers)) <= -(-max_size // len(buffers))
        of_origin = [held(b.select(lambda name, o=origin: name == o)) for b in [one, *buffers]]
        assert sorted(chain(*of_origin[1:])) == sorted(of_origin[0])


def test_the_union_is_a_fair_sample_also_after_restarts_with_other_numbers_of_ranks() -> None:
    counts: Counter[int] = Counter()
    for seed in range(SEEDS):
        buffers = ranks(ReservoirBuffer, 5, 2, seed=seed)
        add(buffers, numbers(0, 8), "first")
        buffers = resharded(ReservoirBuffer, 5, buffers, 3)
        add(buffers, numbers(8, 13), "second")
        buffers = resharded(ReservoirBuffer, 5, buffers, 1)
        add(buffers, numbers(13, 20), "third")
        counts.update(union(buffers))
    # Five of twenty each time: the variance of a cell is that of 400 trials with chance 1 / 4.
    # As the cells of one trial sum to five, 19 / 20 of the squares are chi-square with 19 degrees.
    expected, variance = SEEDS / 4, SEEDS * 3 / 16
    statistic = sum((counts[n] - expected) ** 2 for n in range(20)) / variance * 19 / 20
    assert counts.total() == 5 * SEEDS
    assert stats.chi2.sf(statistic, 19) > ALPHA


def test_each_ranks_part_is_as_large_as_the_others() -> None:
    buffers = ranks(ReservoirBuffer, 11, 3)
    for origin, dataset in arrivals([20, 30, 10]):
        add(buffers, dataset, origin)
    assert sorted(map(len, buffers)) == [3, 4, 4]
    assert len(set(union(buffers))) == 11


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 20))
def test_samples_go_to_who_has_the_fewest(counts: list[int], n: int) -> None:
    now = list(counts)
    for rank in assign_ranks(np.array(counts), n).tolist():
        assert now[rank] == min(now)
        now[rank] += 1
    assert sum(now) == sum(counts) + n


def test_what_lies_on_disk_is_shared_out_too(tmp_path: Path) -> None:
    kind: Any = ReservoirBuffer
    buffers = ranks(kind, 9, 2, folder=tmp_path)
    samples = SampleList([(torch.tensor(n), f"text {n}") for n in range(40)])
    add(buffers, samples, "first")
    before = [buffer.state_dict() for buffer in buffers]
    was = [everything(buffer) for buffer in buffers]
    three = resharded(kind, 9, buffers, 3, folder=tmp_path)
    assert sorted(union(three)) == sorted(chain(*was))
    for buffer in three:
        shown = buffer.select(lambda origin: True)
        assert [shown[place][1] for place in range(len(shown))] == [
            f"text {n}" for n in held(shown)
        ]
        buffer.add(samples, origin="second")
    # The states of the two ranks are unchanged: the three ranks write separate files.
    again = ranks(kind, 9, 2, folder=tmp_path)
    for buffer, state in zip(again, before, strict=True):
        buffer.load_state_dict(state)
    assert [everything(buffer) for buffer in again] == was


def test_a_rank_that_holds_nothing_can_be_saved(tmp_path: Path) -> None:
    buffers = ranks(ReservoirBuffer, 1, 2, folder=tmp_path)
    add(buffers, numbers(0, 9), "first")
    assert list(map(len, buffers)) == [1, 0]
    buffers[1].load_state_dict(buffers[1].state_dict())
    assert len(buffers[1]) == 0
    assert union(resharded(ReservoirBuffer, 1, buffers, 1)) == everything(buffers[0])


def test_buffers_of_which_nothing_came_yet_can_be_resharded() -> None:
    assert union(resharded(ReservoirBuffer, 4, ranks(ReservoirBuffer, 4, 2), 3)) == []


def test_states_that_do_not_belong_together_are_refused() -> None:
    buffers = ranks(ReservoirBuffer, 4, 2)
    add(buffers, numbers(0, 9), "first")
    one, two = (buffer.state_dict() for buffer in buffers)
    for states in ([], [one], [one, one], [one, two, two]):
        with pytest.raises(ConfigurationError, match="give the state of each rank once"):
            reshard(states, 3)
    with pytest.raises(ConfigurationError, match="world_size is 0"):
        reshard([one, two], 0)
    buffers[1].add(numbers(9, 12), origin="second")
    with pytest.raises(ConfigurationError, match="after the same data"):
        reshard([one, buffers[1].state_dict()], 3)
    assert reshard([two, one], 2) == [one, two]


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    kept = {}
    for kind in BOUNDED:
        buffer = kind(7, rank=dist.get_rank(), world_size=dist.get_world_size())
        for origin, dataset in arrivals([20, 11, 30]):
            buffer.add(dataset, origin=origin)
        parts: list[Any] = [None, None]
        dist.all_gather_object(parts, everything(buffer))
        kept[kind.__name__] = parts
    if rank == 0:
        torch.save(kept, f"{folder}/kept.pt")
    dist.destroy_process_group()


def test_two_processes_hold_disjoint_parts_of_one_sample(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    kept = torch.load(tmp_path / "kept.pt", weights_only=True)
    for kind in BOUNDED:
        one = kind(7)
        for origin, dataset in arrivals([20, 11, 30]):
            one.add(dataset, origin=origin)
        first, second = kept[kind.__name__]
        assert not set(first) & set(second)
        assert sorted(first + second) == sorted(everything(one))
        assert sorted(map(len, (first, second))) == [3, 4]
