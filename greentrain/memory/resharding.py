"""Redistribute the samples of a buffer to another number of ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import ColumnDataset
from greentrain.memory.layout import Column, from_text
from greentrain.memory.sample_table import SampleTable, assign_ranks
from greentrain.memory.slot_storage import SlotStorage
from greentrain.units import is_whole

_RANK_KEYS = ("rank", "n_sampled", "held", "table")
"""Keys of a state that differ between ranks, or are compared separately."""


def reshard(states: Sequence[dict[str, Any]], world_size: int) -> list[dict[str, Any]]:
    """Redistribute the samples of a buffer's ranks to another number of ranks.

    All ranks together store the same samples as before, so later additions keep exactly what they
    would keep with any other number of ranks. Samples on disk are read. They are written again,
    to separate files, when the new states are loaded.

    Args:
        states: The state of each rank, in any order.
        world_size: The new number of ranks.

    Returns:
        A state for each new rank, in order.

    Raises:
        ConfigurationError: If the states are not those of all ranks after the same data.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from greentrain.memory import ReservoirBuffer
        >>> two = [ReservoirBuffer(5, rank=rank, world_size=2) for rank in range(2)]
        >>> for buffer in two:
        ...     buffer.add(TensorDataset(torch.arange(100)), origin="first")
        >>> one = ReservoirBuffer(5)
        >>> one.load_state_dict(reshard([buffer.state_dict() for buffer in two], 1)[0])
        >>> [len(buffer) for buffer in two], len(one)
        ([3, 2], 5)
    """
    if not is_whole(world_size, 1):
        raise ConfigurationError(
            f"world_size is {world_size!r}; it must be the number of ranks, 1 or more"
        )
    world_size = int(world_size)
    states = sorted(states, key=lambda state: int(state.get("rank", -1)))
    _check_complete(states)
    if len(states) == world_size:
        return list(states)
    table = SampleTable.from_state(states[0]["table"])
    owner = assign_ranks(np.zeros(world_size, dtype=np.int64), len(table))
    merged = _merged(states, table)
    shared = {
        **states[0],
        "world_size": world_size,
        "table": dataclasses.replace(table, owner=owner).state_dict(),
        "n_sampled": max(state["n_sampled"] for state in states),
    }
    resharded = []
    for rank in range(world_size):
        rows = np.flatnonzero(owner == rank).tolist()
        held = {"size": len(rows), "columns": merged.copied(rows) if merged else []}
        resharded.append({**shared, "rank": rank, "held": held})
    return resharded


def _merged(states: Sequence[dict[str, Any]], table: SampleTable) -> ColumnDataset | None:
    """Return the samples of all ranks in the order of the table."""
    if states[0]["layout"] is None:
        return None
    layout = from_text(states[0]["layout"])
    parts = []
    for state in states:
        folder = state["held"].get("folder")
        storage, slots = SlotStorage.from_state(state["held"], layout, folder and Path(folder))
        parts.append(storage.rows(slots).copied(range(len(slots))))
    columns: list[Column] = []
    for column in zip(*(part for part in parts if part), strict=True):
        if isinstance(column[0], torch.Tensor):
            columns.append(torch.cat([part for part in column if isinstance(part, torch.Tensor)]))
        else:
            columns.append([text for part in column for text in part])
    # The columns are sorted by owner, and the samples of an owner are in the table's order.
    places = np.argsort(np.argsort(table.owner, kind="stable"), kind="stable")
    return ColumnDataset(layout, columns, torch.from_numpy(places))


def _check_complete(states: Sequence[dict[str, Any]]) -> None:
    ranks = [state.get("rank") for state in states]
    sizes = sorted({state.get("world_size", 0) for state in states})
    if not states or sizes != [len(states)] or ranks != list(range(len(states))):
        raise ConfigurationError(
            f"the states are of ranks {ranks} of {sizes}; give the state of each rank once"
        )
    if len({_shared_part(state) for state in states}) > 1:
        raise ConfigurationError(
            "the states are not of the same buffer after the same data; save the states of all "
            "ranks at the same moment"
        )


def _shared_part(state: dict[str, Any]) -> str:
    """Return the part of a state that is the same on all ranks, as text."""
    table = {
        key: value.tolist() if isinstance(value, torch.Tensor) else value
        for key, value in state["table"].items()
    }
    return repr([table, {key: value for key, value in state.items() if key not in _RANK_KEYS}])
