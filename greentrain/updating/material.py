"""The data of a stream: what is new, what is stored, what still waits for an update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory import Buffer, SampleList, concat, size
from greentrain.streams import Experience


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What an update may train on: new samples, and stored ones that an update has seen."""

    new: Dataset[Any]
    stored: Dataset[Any]

    @property
    def n_new(self) -> int:
        """Number of new samples."""
        return size(self.new)

    @property
    def n_stored(self) -> int:
        """Number of stored samples."""
        return size(self.stored)


class Material:
    """Keep track of which stored experiences no update has trained on yet.

    Args:
        memory: What may be kept; ``None`` for nothing, so that what is skipped is lost.
    """

    def __init__(self, memory: Buffer | None) -> None:
        self.memory = memory
        self.pending: list[str] = []
        self._known: set[str] = set()

    def gather(self, experience: Experience) -> Batch:
        """Return an experience's data with what is pending, and what else is stored.

        Raises:
            ConfigurationError: If there was an experience of this name.
        """
        if not isinstance(experience, Experience):
            raise ConfigurationError(
                f"update got a {type(experience).__name__}; it takes an Experience(id, train, val)"
            )
        if experience.id in self._known:
            raise ConfigurationError(
                f"the stream has had an experience {experience.id!r}; give each a name of its own"
            )
        if self.memory is None:
            return Batch(new=experience.train, stored=SampleList([]))
        waiting = set(self.pending)
        pending = self.memory.select(lambda origin: origin in waiting)
        stored = self.memory.select(lambda origin: origin not in waiting)
        return Batch(new=concat([experience.train, pending]), stored=stored)

    def store(self, experience: Experience, *, trained: bool) -> None:
        """Put an experience into memory: as pending, or with all that was pending as trained on."""
        self._known.add(experience.id)
        if self.memory is not None:
            self.memory.add(experience.train, origin=experience.id)
        self.pending = [] if trained else [*self.pending, experience.id]
