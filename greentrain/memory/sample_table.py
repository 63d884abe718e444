"""The origin, group and rank of each sample in a bounded buffer, without the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Label = int | str
Key = tuple[Label | None, str | None]
"""Name of a group: a class and, where experiences count separately, an experience."""

_COLUMNS = ("seen", "origin", "group", "owner")


def _empty() -> Indices:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """Positions of the samples that a buffer keeps and inserts.

    Args:
        keep: Positions of the stored samples that stay, ascending.
        insert: Positions of the new samples that are inserted, in the order of insertion.
    """

    keep: Indices
    insert: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """The stored samples of all ranks and the counts of earlier ones; the same on each rank.

    Args:
        origins: Names of the experiences that brought the stored samples.
        keys: Names of the groups, in the order of their first arrival.
        seen: Samples of each group so far, stored or not, ``(groups,)``.
        groups_seen: Number of groups so far, including those that the buffer has forgotten.
        adds: Number of additions so far.
        origin: Position in ``origins`` of each stored sample, ``(stored,)``.
        group: Position in ``keys`` of each stored sample, ``(stored,)``.
        owner: Rank that stores each sample, ``(stored,)``.
    """

    origins: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    seen: Indices = field(default_factory=_empty)
    groups_seen: int = 0
    adds: int = 0
    origin: Indices = field(default_factory=_empty)
    group: Indices = field(default_factory=_empty)
    owner: Indices = field(default_factory=_empty)

    def __len__(self) -> int:
        return len(self.owner)

    def with_groups(self, keys: Sequence[Key]) -> tuple[SampleTable, Indices]:
        """Return a table that includes the given groups, and the position of each in it."""
        places = {key: place for place, key in enumerate(self.keys)}
        found = [places.setdefault(key, len(places)) for key in keys]
        seen = np.concatenate([self.seen, np.zeros(len(places) - len(self.keys), dtype=np.int64)])
        return replace(self, keys=tuple(places), seen=seen), np.array(found, dtype=np.int64)

    def applied(
        self, plan: RetentionPlan, new: Indices, origin: str, world_size: int
    ) -> SampleTable:
        """Return the table after a plan: first the samples that stay, then the inserted ones.

        Args:
            plan: The plan.
            new: Group of each new sample, ``(new,)``.
            origin: Name of the experience that brings them.
            world_size: Number of ranks to distribute them to.
        """
        n, keep = len(plan.insert), plan.keep
        owner = self.owner[keep]
        new_owner = assign_ranks(np.bincount(owner, minlength=world_size), n)
        new_origin = np.full(n, len(self.origins), dtype=np.int64)
        return replace(
            self,
            origins=(*self.origins, origin),
            seen=self.seen + np.bincount(new, minlength=len(self.seen)),
            groups_seen=self.groups_seen + int(np.count_nonzero(self.seen == 0)),
            adds=self.adds + 1,
            origin=np.concatenate([self.origin[keep], new_origin]),
            group=np.concatenate([self.group[keep], new[plan.insert]]),
            owner=np.concatenate([owner, new_owner]),
        )._pruned()

    def state_dict(self) -> dict[str, Any]:
        """Return numbers, texts, lists and tensors."""
        return {
            "origins": list(self.origins),
            "keys": [list(key) for key in self.keys],
            "groups_seen": self.groups_seen,
            "adds": self.adds,
            **{name: torch.from_numpy(getattr(self, name).copy()) for name in _COLUMNS},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SampleTable:
        """Return the table that :meth:`state_dict` describes."""
        return cls(
            origins=tuple(state["origins"]),
            keys=tuple((label, origin) for label, origin in state["keys"]),
            groups_seen=state["groups_seen"],
            adds=state["adds"],
            **{name: state[name].numpy().copy() for name in _COLUMNS},
        )

    def _pruned(self) -> SampleTable:
        # Drop what would grow with the stream: origins without stored samples, and groups of one
        # origin, which never come again. Counts of a class are needed if the class comes again.
        origins, origin = np.unique(self.origin, return_inverse=True)
        stored = np.bincount(self.group, minlength=len(self.keys)) > 0
        needed = stored | np.array([key[1] is None for key in self.keys], dtype=bool)
        return replace(
            self,
            origins=tuple(self.origins[place] for place in origins),
            origin=origin,
            keys=tuple(key for key, kept in zip(self.keys, needed, strict=True) if kept),
            seen=self.seen[needed],
            group=(np.cumsum(needed) - 1)[self.group],
        )


def assign_ranks(counts: Indices, n: int) -> Indices:
    """Assign ``n`` samples one by one to the rank with the fewest samples.

    Args:
        counts: Samples of each rank so far, ``(ranks,)``.
        n: Number of samples to assign.

    Returns:
        The rank of each sample, ``(n,)``.

    Example:
        >>> assign_ranks(np.array([3, 1]), 4).tolist()
        [1, 1, 0, 1]
    """
    levels = counts[:, None] + np.arange(n)
    ranks = np.repeat(np.arange(len(counts)), n)
    return ranks[np.lexsort((ranks, levels.reshape(-1)))][:n]
