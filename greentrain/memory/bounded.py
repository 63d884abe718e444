"""The base of all buffers of bounded size, which differ only in the choice of samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.launch import find_launch
from greentrain.memory.datasets import check_layout, concat, fetch, gather, size
from greentrain.memory.layout import (
    Layout,
    format_layout,
    from_text,
    layout_of,
    sample_bytes,
    to_text,
)
from greentrain.memory.protocol import Sample
from greentrain.memory.retention import RetentionInput
from greentrain.memory.sample_table import Indices, Key, RetentionPlan, SampleTable
from greentrain.memory.slot_storage import SlotStorage
from greentrain.units import is_whole, parse_bytes, whole_seed

Rank = int | Literal["auto"]
"""Number of a rank, or that of ``torchrun`` or ``srun``."""
_PLAN_STREAM, _SAMPLE_STREAM = 0, 1
"""Second part of the seeds, so that plans and samples have independent random numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlannedAdd:
    """The outcome of an ``add``: the table after it, and the new samples of this rank."""

    layout: Layout
    capacity: int
    table: SampleTable
    keep: Indices
    insert: Indices


class BoundedBuffer(ABC):
    """Keep a bounded number of samples, chosen by a subclass.

    A subclass decides in :meth:`plan` which samples stay and which are inserted, from groups,
    counts and a random generator. Its :meth:`groups` divides samples into groups.

    With several ranks, all are given the same data and make the same plan. Each rank stores a
    part of the planned samples, and together they store what a single process would.

    Args:
        max_size: Number of samples that all ranks together may store, or their size as a text
            such as ``"64 MiB"``. The size of the first sample then decides how many fit.
        seed: Seed of the choice of samples to keep and to return.
        folder: Folder of memory-mapped files for the samples, in place of RAM.
        rank: Number of this rank, or ``"auto"`` for that of ``torchrun`` or ``srun``; a process
            without them is rank 0 of 1.
        world_size: Number of ranks, unless the rank is ``"auto"``.

    Attributes:
        rank: Number of this rank.
        world_size: Number of ranks.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    def __init__(
        self,
        max_size: int | str,
        *,
        seed: int = 0,
        folder: str | Path | None = None,
        rank: Rank = 0,
        world_size: int = 1,
    ) -> None:
        if isinstance(rank, str) and rank == "auto" and world_size == 1:
            launch = find_launch()
            rank, world_size = (0, 1) if launch is None else (launch.rank, launch.size)
        self._samples, self._bytes = _limits(max_size)
        if not (is_whole(rank) and is_whole(world_size) and int(rank) < world_size):
            raise ConfigurationError(
                f"rank and world_size are {rank!r} and {world_size!r}; a rank is a whole number "
                "from 0 to world_size - 1, or 'auto' without a world_size"
            )
        self._seed = whole_seed(seed)
        self._folder = None if folder is None else Path(folder)
        self.rank, self.world_size = int(rank), int(world_size)
        self._layout: Layout | None = None
        self._table = SampleTable()
        self._storage = SlotStorage(self._folder)
        self._own = torch.zeros(0, dtype=torch.int64)  # slots of this rank's samples, in order
        self._n_sampled = 0
        self._planned: tuple[Dataset[Sample], str, _PlannedAdd] | None = None

    @abstractmethod
    def plan(self, given: RetentionInput) -> RetentionPlan:
        """Decide which stored samples stay and which new ones are inserted.

        At most ``given.capacity`` samples may be stored. Every rank makes the plan, and so does
        :meth:`after`, so it must depend on its input only.
        """

    def groups(self, dataset: Dataset[Sample], origin: str) -> tuple[list[Key], Indices]:
        """Return the groups of new samples, and the position of each sample's group among them.

        By default all samples are one group.
        """
        return [(None, None)], np.zeros(size(dataset), dtype=np.int64)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that have to be the same when a state is loaded."""
        return {
            "kind": type(self).__name__,
            "samples": self._samples,
            "bytes": self._bytes,
            "rank": self.rank,
            "world_size": self.world_size,
        }

    @property
    def max_size(self) -> int | None:
        """Number of samples that all ranks together may store.

        A limit in bytes gives ``None`` before the first sample.
        """
        return self._samples if self._layout is None else self._capacity(self._layout)

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Copy the planned part of an experience's data; an empty dataset changes nothing.

        Args:
            dataset: A map-style dataset.
            origin: Name of the experience.

        Raises:
            ConfigurationError: If a sample has another structure than earlier ones or cannot be
                stored. The buffer is unchanged then.
        """
        if not size(dataset):
            return
        planned = self._plan_add(dataset, origin)
        rows = gather(dataset, planned.insert.tolist(), planned.layout)
        kept = self._kept_slots(planned)
        new = self._storage.write(rows, kept, planned.capacity)
        self._layout, self._table = planned.layout, planned.table
        self._own = torch.cat([kept, new])
        self._planned = None

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return this rank's content after an :meth:`add`, without changing anything.

        New samples are read from ``dataset`` when they are needed.
        """
        if not size(dataset):
            return self.select(lambda origin: True)
        planned = self._plan_add(dataset, origin)
        kept = self._storage.rows(self._kept_slots(planned))
        return concat([kept, Subset(dataset, planned.insert.tolist())])

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return this rank's samples whose origin ``keep`` accepts."""
        wanted = np.array([keep(origin) for origin in self._table.origins], dtype=bool)
        origin = self._table.origin[self._table.owner == self.rank]
        return self._storage.rows(self._own[torch.from_numpy(wanted[origin])])

    def count(self, keep: Callable[[str], bool]) -> int:
        """Return the number of samples of all ranks whose origin ``keep`` accepts."""
        wanted = np.array([keep(origin) for origin in self._table.origins], dtype=bool)
        return int(wanted[self._table.origin].sum())

    def count_after(self, dataset: Dataset[Sample], *, origin: str) -> int:
        """Return the number of samples of all ranks after an :meth:`add` of the same data."""
        return len(self._plan_add(dataset, origin).table if size(dataset) else self._table)

    def sample(self, n: int) -> list[Sample]:
        """Return up to ``n`` different samples of this rank, chosen uniformly."""
        seed = [self._seed, _SAMPLE_STREAM, self._n_sampled, self.rank]
        chosen = sample_positions(len(self), n, seed)
        self._n_sampled += 1
        rows = self._storage.rows(self._own)
        return [rows[index] for index in chosen]  # one by one: each has its own memory

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's tensors and arrays."""
        return 0 if self._layout is None else len(self) * sample_bytes(self._layout)

    def __len__(self) -> int:
        return len(self._own)

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state, with the samples or their place on disk.

        Files that this state names stay unchanged until the next call.
        """
        return {
            **self.settings(),
            "seed": self._seed,
            "n_sampled": self._n_sampled,
            "layout": None if self._layout is None else to_text(self._layout),
            "table": self._table.state_dict(),
            "held": self._storage.state_dict(self._own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ConfigurationError: If the state is of a buffer with other arguments, or its files are
                missing. The buffer is unchanged then.
        """
        for name, value in self.settings().items():
            if state.get(name) != value:
                hint = "; reshard makes states for another number of ranks"
                raise ConfigurationError(
                    f"the state is of a buffer with {name} {state.get(name)!r}, and this one has "
                    f"{value!r}{hint if name in ('rank', 'world_size') else ''}"
                )
        layout = None if state["layout"] is None else from_text(state["layout"])
        table = SampleTable.from_state(state["table"])
        storage, own = SlotStorage.from_state(state["held"], layout, self._folder)
        self._layout, self._table, self._storage, self._own = layout, table, storage, own
        self._seed, self._n_sampled, self._planned = state["seed"], state["n_sampled"], None

    def _plan_add(self, dataset: Dataset[Sample], origin: str) -> _PlannedAdd:
        """Plan an ``add``, or return the plan that :meth:`after` made for the same data."""
        if self._planned and self._planned[0] is dataset and self._planned[1] == origin:
            return self._planned[2]
        layout = layout_of(fetch(dataset, [0])[0])
        if self._layout is not None:
            check_layout(layout, self._layout)
        capacity = self._capacity(layout)
        keys, places = self.groups(dataset, origin)
        table, numbers = self._table.with_groups(keys)
        random = np.random.default_rng([self._seed, _PLAN_STREAM, table.adds])
        new = numbers[places]
        plan = self.plan(
            RetentionInput(table=table, new=new, dataset=dataset, capacity=capacity, random=random)
        )
        table = table.applied(plan, new, origin, self.world_size)
        planned = _PlannedAdd(
            layout=layout,
            capacity=capacity,
            table=table,
            keep=plan.keep,
            insert=plan.insert[table.owner[len(plan.keep) :] == self.rank],
        )
        self._planned = (dataset, origin, planned)
        return planned

    def _kept_slots(self, planned: _PlannedAdd) -> torch.Tensor:
        """Return the slots of this rank's samples that stay."""
        kept = np.zeros(len(self._table), dtype=bool)
        kept[planned.keep] = True
        return self._own[torch.from_numpy(np.flatnonzero(kept[self._table.owner == self.rank]))]

    def _capacity(self, layout: Layout) -> int:
        if self._samples is not None:
            return self._samples
        each, limit = sample_bytes(layout), self._bytes or 0
        if not 0 < each <= limit:
            raise ConfigurationError(
                f"max_size is {limit} bytes, and a sample {format_layout(layout)} has {each} bytes "
                "of tensors and arrays; give a size that fits one sample, or a number of samples"
            )
        return limit // each


def sample_positions(total: int, n: int, seed: list[int]) -> list[int]:
    """Choose up to ``n`` different positions out of ``total``.

    Raises:
        ConfigurationError: If ``n`` is negative.
    """
    if n < 0:
        raise ConfigurationError(f"cannot sample {n} samples; give a number of 0 or more")
    chosen = np.random.default_rng(seed).choice(total, min(n, total), replace=False)
    return chosen.tolist()  # type: ignore[no-any-return]


def _limits(max_size: object) -> tuple[int | None, int | None]:
    """Return the limit in samples and the limit in bytes, one of them ``None``."""
    if is_whole(max_size, 1):
        return int(max_size), None
    if isinstance(max_size, str):
        try:
            nbytes = parse_bytes(max_size)
        except ConfigurationError as error:
            raise ConfigurationError(f"max_size is {max_size!r}: {error}") from None
        if nbytes >= 1:
            return None, nbytes
    raise ConfigurationError(
        f"max_size is {max_size!r}; it must be the number of samples to store, 1 or more, or their "
        "size, such as '64 MiB'"
    )
