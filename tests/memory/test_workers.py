"""Datasets of buffers in the worker processes of a DataLoader."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from greentrain.memory import Buffer, FullBuffer, ReservoirBuffer, concat
from tests.memory.samples import everything, labelled


def read_by_workers(dataset, method: str) -> list[int]:
    loader = DataLoader(dataset, batch_size=8, num_workers=1, multiprocessing_context=method)
    return [int(number) for numbers, _ in loader for number in numbers]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_mapped_buffer_is_read_by_workers_of_any_kind(tmp_path: Path, method: str) -> None:
    buffer = ReservoirBuffer(12, folder=tmp_path)
    buffer.add(labelled(0, 20), origin="first")
    again = ReservoirBuffer(12, folder=tmp_path)
    again.load_state_dict(buffer.state_dict())
    new = labelled(100, 4)
    joined = concat([again.select(lambda origin: True), new])
    assert read_by_workers(joined, method) == [*everything(buffer), 100, 101, 102, 103]


@pytest.mark.parametrize("make", [ReservoirBuffer, lambda size, folder: FullBuffer(folder=folder)])
def test_other_buffers_are_read_by_spawned_workers(tmp_path: Path, make) -> None:
    buffer: Buffer = make(12, folder=None)
    buffer.add(labelled(0, 12), origin="first")
    shown = buffer.select(lambda origin: True)
    assert sorted(read_by_workers(shown, "spawn")) == list(range(12))
