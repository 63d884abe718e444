"""Going on with another number of ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import Rows
from greentrain.memory.layout import Column, from_text
from greentrain.memory.sample_table import Table, deal
from greentrain.memory.slots import Slots


def reshard(states: Sequence[dict[str, Any]], world_size: int) -> list[dict[str, Any]]:
    """Share the samples of a buffer's ranks out to another number of ranks.

    What all hold together stays the same, so later adds keep just what they would have kept with
    any other number of ranks. Samples that lie on disk are read, and written again, to files of
    their own, when the new states are loaded.

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
    if isinstance(world_size, bool) or not isinstance(world_size, int) or world_size < 1:
        raise ConfigurationError(
            f"world_size is {world_size!r}; it is the number of ranks, 1 or more"
        )
    states = sorted(states, key=lambda state: int(state.get("rank", -1)))
    _check_complete(states)
    if len(states) == world_size:
        return list(states)
    first = states[0]
    table = Table.from_state(first["table"])
    owner = deal(np.zeros(world_size, dtype=np.int64), len(table))
    everything = _merged(states, table)
    resharded = []
    for rank in range(world_size):
        mine = np.flatnonzero(owner == rank)
        held = {"size": len(mine), "columns": everything.taken(mine.tolist()) if everything else []}
        state = {**first, "rank": rank, "world_size": world_size, "held": held}
        state["table"] = dataclasses.replace(table, owner=owner).state_dict()
        state["draws"] = max(other["draws"] for other in states)
        resharded.append(state)
    return resharded


def _merged(states: Sequence[dict[str, Any]], table: Table) -> Rows | None:
    """Return the samples of all ranks in the order of the table."""
    if states[0]["layout"] is None:
        return None
    layout = from_text(states[0]["layout"])
    parts = []
    for state in states:
        folder = state["held"].get("folder")
        slots, own = Slots.opened(state["held"], layout, folder and Path(folder))
        parts.append(slots.rows(own).taken(range(len(own))))
    columns: list[Column] = []
    for column in zip(*(part for part in parts if part), strict=True):
        if isinstance(column[0], torch.Tensor):
            columns.append(torch.cat([part for part in column if isinstance(part, torch.Tensor)]))
        else:
            columns.append([text for part in column for text in part])
    # The columns hold the samples by owner, and those of an owner in the order of the table.
    places = np.argsort(np.argsort(table.owner, kind="stable"), kind="stable")
    return Rows(layout, columns, torch.from_numpy(places))


def _check_complete(states: Sequence[dict[str, Any]]) -> None:
    ranks = [state.get("rank") for state in states]
    sizes = sorted({state.get("world_size", 0) for state in states})
    if not states or sizes != [len(states)] or ranks != list(range(len(states))):
        raise ConfigurationError(
            f"the states are of ranks {ranks} of {sizes}; give the state of each rank once"
        )
    if len({_what_came(state) for state in states}) > 1:
        raise ConfigurationError(
            "the states are not of the same buffer after the same data; save the states of all "
            "ranks at the same moment"
        )


def _what_came(state: dict[str, Any]) -> str:
    """Everything that is the same on all ranks."""
    table = {
        key: value.tolist() if isinstance(value, torch.Tensor) else value
        for key, value in state["table"].items()
    }
    of_a_rank = ("rank", "draws", "held", "table")
    return repr([table, {key: value for key, value in state.items() if key not in of_a_rank}])
