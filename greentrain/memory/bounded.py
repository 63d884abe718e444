"""What all buffers of bounded size share: everything but the choice of what is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import Rows, check_layout, concat, fetch, gather, size
from greentrain.memory.layout import (
    Layout,
    from_text,
    layout_of,
    sample_bytes,
    to_text,
    written,
)
from greentrain.memory.plans import Indices, Key, Offer, Plan
from greentrain.memory.protocol import Sample
from greentrain.memory.sample_table import Table
from greentrain.memory.slots import Slots
from greentrain.units import parse_bytes

_PLAN, _DRAW = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What an ``add`` leads to: the table after it, and which samples this rank takes."""

    layout: Layout
    max_size: int
    table: Table
    keep: Indices
    mine: Indices


class BoundedBuffer(ABC):
    """Keep a bounded number of samples; which ones is the subclass's plan.

    A subclass says by :meth:`plan` what stays and what is taken, as a function of groups, counts
    and a random generator, and by :meth:`groups` in which groups samples fall.

    With several ranks all are offered the same data and make the same plan, and each holds a
    part of what the plan keeps: together just what one process would hold.

    Args:
        max_size: Samples that all ranks together may keep, or their bytes as a text such as
            ``"64 MiB"``: then the size of the first sample says how many fit.
        seed: Seed of what is kept and drawn.
        folder: Keep the samples in files there, mapped into memory, in place of RAM.
        rank: Which of the ranks this is.
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
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._samples, self._bytes = _limits(max_size)
        check_seed(seed)
        if not (_is_whole(rank) and _is_whole(world_size) and 0 <= rank < world_size):
            raise ConfigurationError(
                f"rank and world_size are {rank!r} and {world_size!r}; a rank is a whole number "
                "from 0 to world_size - 1"
            )
        self._seed = seed
        self._folder = None if folder is None else Path(folder)
        self._rank, self._world_size = rank, world_size
        self._layout: Layout | None = None
        self._table = Table()
        self._slots = Slots(self._folder)
        self._own = torch.zeros(0, dtype=torch.int64)  # slots of this rank's samples, in order
        self._draws = 0
        self._foreseen: tuple[Dataset[Sample], str, _Step] | None = None

    @abstractmethod
    def plan(self, offer: Offer, dataset: Dataset[Sample], random: np.random.Generator) -> Plan:
        """Say which held samples stay, and which offered ones are taken.

        Args:
            offer: Groups and counts; no more than ``offer.room`` samples may be held.
            dataset: The offered samples, for plans that look at them.
            random: Source of randomness, the same whenever the same is offered.
        """

    def groups(self, dataset: Dataset[Sample], origin: str) -> tuple[list[Key], Indices]:
        """Return the groups of offered samples, and the position among them of each sample's.

        Without another word all samples are of one group.
        """
        return [(None, None)], np.zeros(size(dataset), dtype=np.int64)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that have to be the same when a state is loaded."""
        return {
            "kind": type(self).__name__,
            "samples": self._samples,
            "bytes": self._bytes,
            "rank": self._rank,
            "world_size": self._world_size,
        }

    @property
    def max_size(self) -> int | None:
        """Samples that all ranks together may keep; of bytes ``None`` before the first sample."""
        return self._samples if self._layout is None else self._room(self._layout)

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Take up what the plan takes of an experience's data, and copy it.

        No samples change nothing.

        Args:
            dataset: A map-style dataset.
            origin: Name of the experience.

        Raises:
            ConfigurationError: If a sample is not built as those before it or cannot be kept;
                nothing has changed then.
        """
        if not size(dataset):
            return
        step = self._foresee(dataset, origin)
        rows = gather(dataset, step.mine.tolist(), step.layout)
        stay = self._own[self._stay(step)]
        new = self._slots.write(rows, stay, step.max_size)
        self._layout, self._table, self._own = step.layout, step.table, torch.cat([stay, new])
        self._foreseen = None

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return what this rank would hold after :meth:`add`, and change nothing.

        New samples are read from ``dataset`` when they are needed.
        """
        if not size(dataset):
            return self.select(lambda origin: True)
        step = self._foresee(dataset, origin)
        stay = self._slots.rows(self._own[self._stay(step)])
        return concat([stay, Subset(dataset, step.mine.tolist())])

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return this rank's samples whose origin ``keep`` accepts."""
        wanted = np.array([keep(origin) for origin in self._table.origins], dtype=bool)
        origin = self._table.origin[self._table.owner == self._rank]
        return self._slots.rows(self._own[torch.from_numpy(wanted[origin])])

    def sample(self, n: int) -> list[Sample]:
        """Draw up to ``n`` different ones of this rank's samples uniformly."""
        chosen = choose(len(self), n, [self._seed, _DRAW, self._draws, self._rank])
        self._draws += 1
        rows: Rows = self._slots.rows(self._own)
        return [rows[index] for index in chosen]  # one by one: each with memory of its own

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's tensors and arrays."""
        return 0 if self._layout is None else len(self) * sample_bytes(self._layout)

    def __len__(self) -> int:
        return len(self._own)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on; the samples too, or where on disk they are.

        On disk, what this state names stays as it is until the next one is asked for.
        """
        return {
            **self.settings(),
            "seed": self._seed,
            "draws": self._draws,
            "layout": None if self._layout is None else to_text(self._layout),
            "table": self._table.state_dict(),
            "held": self._slots.state_dict(self._own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ConfigurationError: If the state is of a buffer with other arguments, or its files are
                not there; nothing has changed then.
        """
        for name, value in self.settings().items():
            if state.get(name) != value:
                raise ConfigurationError(
                    f"the state is of a buffer with {name} {state.get(name)!r}, and this one has "
                    f"{value!r}"
                    + (
                        "; reshard makes states for another number of ranks"
                        if name in ("rank", "world_size")
                        else ""
                    )
                )
        layout = None if state["layout"] is None else from_text(state["layout"])
        table = Table.from_state(state["table"])
        if layout is None:
            slots, own = Slots(self._folder), torch.zeros(0, dtype=torch.int64)
        else:
            slots, own = Slots.opened(state["held"], layout, self._folder)
        self._layout, self._table, self._slots, self._own = layout, table, slots, own
        self._seed, self._draws, self._foreseen = state["seed"], state["draws"], None

    def _foresee(self, dataset: Dataset[Sample], origin: str) -> _Step:
        if self._foreseen and self._foreseen[0] is dataset and self._foreseen[1] == origin:
            return self._foreseen[2]
        first = layout_of(fetch(dataset, [0])[0])
        if self._layout is not None:
            check_layout(first, self._layout)
        room = self._room(first)
        keys, places = self.groups(dataset, origin)
        table, numbers = self._table.with_groups(keys)
        offered = numbers[places]
        offer = Offer(
            held=table.group,
            offered=offered,
            seen=table.seen,
            groups_seen=table.groups_seen,
            adds=table.adds,
            room=room,
            keys=table.keys,
        )
        plan = self.plan(offer, dataset, np.random.default_rng([self._seed, _PLAN, table.adds]))
        after = table.after(plan, offered, origin, self._world_size)
        mine = plan.take[after.owner[len(plan.keep) :] == self._rank]
        step = _Step(layout=first, max_size=room, table=after, keep=plan.keep, mine=mine)
        self._foreseen = (dataset, origin, step)
        return step

    def _stay(self, step: _Step) -> torch.Tensor:
        """Return which of this rank's samples stay, by position among them."""
        kept = np.zeros(len(self._table), dtype=bool)
        kept[step.keep] = True
        return torch.from_numpy(np.flatnonzero(kept[self._table.owner == self._rank]))

    def _room(self, layout: Layout) -> int:
        if self._samples is not None:
            return self._samples
        each, limit = sample_bytes(layout), self._bytes or 0
        if not 0 < each <= limit:
            raise ConfigurationError(
                f"max_size is {limit} bytes, and a sample {written(layout)} has {each} bytes of "
                "tensors and arrays; there has to be room for one, or a size in samples"
            )
        return limit // each


def choose(total: int, n: int, seed: list[int]) -> list[int]:
    """Draw up to ``n`` different positions.

    Raises:
        ConfigurationError: If ``n`` is negative.
    """
    if n < 0:
        raise ConfigurationError(f"cannot draw {n} samples; it is 0 or more")
    drawn = np.random.default_rng(seed).choice(total, min(n, total), replace=False)
    return drawn.tolist()  # type: ignore[no-any-return]


def check_seed(seed: object) -> None:
    """Refuse what cannot seed.

    Raises:
        ConfigurationError: If it is no whole number, 0 or more.
    """
    if not _is_whole(seed) or seed < 0:  # type: ignore[operator]
        raise ConfigurationError(f"seed is {seed!r}; it is a whole number, 0 or more")


def _limits(max_size: object) -> tuple[int | None, int | None]:
    if _is_whole(max_size) and max_size >= 1:  # type: ignore[operator]
        return max_size, None  # type: ignore[return-value]
    if isinstance(max_size, str):
        try:
            nbytes = parse_bytes(max_size)
        except ConfigurationError as error:
            raise ConfigurationError(f"max_size is {max_size!r}: {error}") from None
        if nbytes >= 1:
            return None, nbytes
    raise ConfigurationError(
        f"max_size is {max_size!r}; it is the number of samples that may be kept, 1 or more, or "
        "their bytes, such as '64 MiB'"
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
