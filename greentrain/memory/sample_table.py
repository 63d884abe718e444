"""What is known of a bounded buffer's samples, apart from the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from greentrain.memory.plans import Indices, Key, Plan


def _none() -> Indices:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The held samples of all ranks, alike on each of them, and what came before.

    Args:
        origins: Names of the experiences that held samples came with.
        keys: The groups.
        seen: Samples of each group that were offered, ``(groups,)``.
        groups_seen: Groups that there ever were.
        adds: How often samples were offered.
        origin: Position in ``origins`` of each held sample, ``(held,)``.
        group: Position in ``keys`` of each, ``(held,)``.
        owner: Rank that holds each, ``(held,)``.
    """

    origins: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    seen: Indices = field(default_factory=_none)
    groups_seen: int = 0
    adds: int = 0
    origin: Indices = field(default_factory=_none)
    group: Indices = field(default_factory=_none)
    owner: Indices = field(default_factory=_none)

    def __len__(self) -> int:
        return len(self.owner)

    def with_groups(self, keys: Sequence[Key]) -> tuple[Table, Indices]:
        """Make groups known, and return also the position of each among all."""
        places = {key: place for place, key in enumerate(self.keys)}
        found = [places.setdefault(key, len(places)) for key in keys]
        seen = np.concatenate([self.seen, np.zeros(len(places) - len(self.keys), dtype=np.int64)])
        return replace(self, keys=tuple(places), seen=seen), np.array(found, dtype=np.int64)

    def after(self, plan: Plan, offered: Indices, origin: str, world_size: int) -> Table:
        """Carry a plan out: those that stay come first, then those that are taken.

        Args:
            plan: The plan.
            offered: Group of each offered sample, ``(offered,)``.
            origin: Experience that they came with.
            world_size: Number of ranks to share them out to.
        """
        n, keep = len(plan.take), plan.keep
        owner = self.owner[keep]
        new_owner = deal(np.bincount(owner, minlength=world_size), n)
        news = np.full(n, len(self.origins), dtype=np.int64)
        return replace(
            self,
            origins=(*self.origins, origin),
            seen=self.seen + np.bincount(offered, minlength=len(self.seen)),
            groups_seen=self.groups_seen + int(np.count_nonzero(self.seen == 0)),
            adds=self.adds + 1,
            origin=np.concatenate([self.origin[keep], news]),
            group=np.concatenate([self.group[keep], offered[plan.take]]),
            owner=np.concatenate([owner, new_owner]),
        )._without_the_forgotten()

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
    def from_state(cls, state: dict[str, Any]) -> Table:
        """Return what :meth:`state_dict` told of."""
        return cls(
            origins=tuple(state["origins"]),
            keys=tuple((label, origin) for label, origin in state["keys"]),
            groups_seen=state["groups_seen"],
            adds=state["adds"],
            **{name: state[name].numpy().copy() for name in _COLUMNS},
        )

    def _without_the_forgotten(self) -> Table:
        # What grows with the stream is dropped: origins of which nothing is held, and groups of
        # one origin, which do not come again. Counts of a class are needed if it comes again.
        origins, origin = np.unique(self.origin, return_inverse=True)
        held = np.bincount(self.group, minlength=len(self.keys)) > 0
        known = held | np.array([key[1] is None for key in self.keys], dtype=bool)
        return replace(
            self,
            origins=tuple(self.origins[place] for place in origins),
            origin=origin,
            keys=tuple(key for key, kept in zip(self.keys, known, strict=True) if kept),
            seen=self.seen[known],
            group=(np.cumsum(known) - 1)[self.group],
        )


_COLUMNS = ("seen", "origin", "group", "owner")


def deal(counts: Indices, n: int) -> Indices:
    """Give ``n`` samples one by one to the rank that has the fewest.

    Args:
        counts: Samples that each rank has, ``(ranks,)``.
        n: Samples to give.

    Returns:
        The rank that each goes to, ``(n,)``.

    Example:
        >>> deal(np.array([3, 1]), 4).tolist()
        [1, 1, 0, 1]
    """
    levels = counts[:, None] + np.arange(n)
    ranks = np.repeat(np.arange(len(counts)), n)
    return ranks[np.lexsort((ranks, levels.reshape(-1)))][:n]
