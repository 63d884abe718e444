"""The data of a stream: what is new, what is stored, what still waits for an update."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory import Buffer, SampleList, concat, size
from greentrain.streams import Experience


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateData:
    """What an update may train on.

    Args:
        new: New samples: those that have arrived, and those that still wait for an update.
        stored: Samples that are kept of what updates have trained on.
        held: What will be kept of all of them; the new ones where nothing is.
        n_pending: How many of the new samples have been waiting.
        n_past: Samples that there have been before the new ones; the stored ones are left of them.
    """

    new: Dataset[Any]
    stored: Dataset[Any]
    held: Dataset[Any]
    n_pending: int = 0
    n_past: int = 0

    @property
    def n_new(self) -> int:
        """Number of new samples."""
        return size(self.new)

    @property
    def n_stored(self) -> int:
        """Number of stored samples."""
        return size(self.stored)

    @property
    def n_held(self) -> int:
        """Number of samples that will be kept."""
        return size(self.held)

    @property
    def share_new(self) -> float:
        """Share of the new samples among all that there have been."""
        return self.n_new / max(1, self.n_new + max(self.n_past, self.n_stored))


class StreamData:
    """Keep track of which stored experiences no update has trained on yet.

    Args:
        memory: What may be kept; ``None`` for nothing, so that what is skipped is lost.
    """

    def __init__(self, memory: Buffer | None) -> None:
        self.memory = memory
        self.pending: list[str] = []
        self._known: dict[str, int] = {}

    @property
    def known(self) -> Collection[str]:
        """The experiences that there have been, in order."""
        return self._known.keys()

    def gather(self, experience: Experience) -> UpdateData:
        """Return an experience's data with what is pending, and what else is stored.

        Raises:
            ConfigurationError: If there was an experience of this name, or memory cannot take its
                data up; nothing has changed then.
        """
        if not isinstance(experience, Experience):
            raise ConfigurationError(
                f"update got a {type(experience).__name__}; it takes an Experience(id, train, val)"
            )
        if experience.id in self._known:
            raise ConfigurationError(
                f"the stream has had an experience {experience.id!r}; give each a name of its own, "
                "or use run, which passes over those that it has had"
            )
        if self.memory is None:
            return UpdateData(new=experience.train, stored=SampleList([]), held=experience.train)
        held = self.memory.after(experience.train, origin=experience.id)
        waiting = set(self.pending)
        pending = self.memory.select(lambda origin: origin in waiting)
        stored = self.memory.select(lambda origin: origin not in waiting)
        return UpdateData(
            new=concat([experience.train, pending]),
            stored=stored,
            held=held,
            n_pending=size(pending),
            n_past=sum(count for name, count in self._known.items() if name not in waiting),
        )

    def store(self, experience: Experience, *, trained: bool) -> None:
        """Put an experience into memory: as pending, or with all that was pending as trained on."""
        self._known[experience.id] = size(experience.train)
        if self.memory is not None:
            self.memory.add(experience.train, origin=experience.id)
        self.pending = [] if trained else [*self.pending, experience.id]

    def state_dict(self) -> dict[str, Any]:
        """Return what is stored, what of it waits, and what there has been."""
        memory = None if self.memory is None else self.memory.state_dict()
        return {"memory": memory, "pending": list(self.pending), "known": dict(self._known)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        self.pending = list(state["pending"])
        self._known = dict(state["known"])
