"""Collect the data of an update: new, pending and stored samples."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.memory import BoundedBuffer, Buffer, SampleList, concat, reshard, size
from greentrain.streams import Experience
from greentrain.texts import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The samples of all ranks, where each rank holds a part of the past ones.

    Args:
        rank: Number of this rank.
        ranks: Number of ranks.
        new: Number of new samples; the pending ones of all ranks are among them.
        held: Number of samples that the buffers of all ranks will keep.
        stored: Number of stored samples of all ranks.
    """

    rank: int
    ranks: int
    new: int
    held: int
    stored: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateData:
    """The data that an update may train on.

    All numbers are those of all ranks.

    Args:
        new: New samples: those that have arrived, and those that are pending.
        stored: Stored samples that updates have trained on.
        held: Samples that the buffer will keep of all of them; the new ones without a buffer.
        n_pending: Number of pending samples among the new ones.
        n_labels: Number of new samples that have a label; ``None`` if all have one.
        n_past: Number of samples that arrived before the new ones; the stored ones are a part.
        parts: The samples of all ranks, if pending, stored and held ones are those of this rank;
            ``None`` if they are all.
    """

    new: Dataset[Any]
    stored: Dataset[Any]
    held: Dataset[Any]
    n_pending: int = 0
    n_past: int = 0
    n_labels: int | None = None
    parts: Parts | None = None

    @property
    def n_new(self) -> int:
        """Number of new samples."""
        return size(self.new) if self.parts is None else self.parts.new

    @property
    def labels(self) -> int:
        """Number of new samples that have a label."""
        return self.n_new if self.n_labels is None else self.n_labels

    @property
    def n_stored(self) -> int:
        """Number of stored samples."""
        return size(self.stored) if self.parts is None else self.parts.stored

    @property
    def n_held(self) -> int:
        """Number of samples that the buffer will keep."""
        return size(self.held) if self.parts is None else self.parts.held

    @property
    def share_new(self) -> float:
        """Share of the new samples among all that have arrived."""
        return self.n_new / max(1, self.n_new + max(self.n_past, self.n_stored))

    @property
    def counts(self) -> dict[str, Any]:
        """The numbers of new, stored and held samples, by argument name."""
        return {"n_new": self.n_new, "n_stored": self.n_stored, "n_held": self.n_held}

    def of_rank(self) -> UpdateData:
        """Return what this rank trains on: its share of the new samples, and its part of the past.

        If the new samples cannot be shared evenly, the first ones are in two shares. A rank that
        holds none of the stored or held samples has new ones in their place.
        """
        if self.parts is None:
            return self
        arrived, ranks = self.n_new - self.n_pending, self.parts.ranks
        even = range(self.parts.rank, math.ceil(arrived / ranks) * ranks, ranks)
        pending = range(arrived, size(self.new))
        new = Subset(self.new, [*(place % arrived for place in even), *pending])
        return replace(
            self,
            new=new,
            stored=self.stored if size(self.stored) or not self.n_stored else new,
            held=self.held if size(self.held) else new,
        )


class StreamData:
    """Track the experiences of a stream, and those that no update has trained on yet.

    Args:
        buffer: Keeps past samples; ``None`` keeps none, so the data of a skipped experience are
            lost.
    """

    def __init__(self, buffer: Buffer | None) -> None:
        self.buffer = buffer
        self.pending: list[str] = []
        self._known: dict[str, int] = {}
        self._known_json: list[str] = []  # of each, so that only new ones have to be written
        self._arrived = 0  # samples of all known experiences

    @property
    def in_parts(self) -> BoundedBuffer | None:
        """The buffer, if each rank holds a part of the past data; ``None`` otherwise."""
        buffer = self.buffer
        return buffer if isinstance(buffer, BoundedBuffer) and buffer.world_size > 1 else None

    @property
    def known(self) -> Collection[str]:
        """The ids of the experiences so far, in order."""
        return self._known.keys()

    def gather(self, experience: Experience, *, labelled: bool = True) -> UpdateData:
        """Return an experience's data with the pending and the stored data.

        Args:
            experience: The experience.
            labelled: Whether it has labels; without them no buffer takes its data yet.

        Raises:
            ConfigurationError: If the stream has an experience with this id, or the buffer cannot
                store its data. Nothing has changed then.
        """
        if not isinstance(experience, Experience):
            raise ConfigurationError(
                f"update got a {type(experience).__name__}; it takes an Experience(id, train, val)"
            )
        if experience.id in self._known:
            raise ConfigurationError(
                f"the stream has already had an experience {experience.id!r}; give each one its "
                "own id, or call run, which skips experiences with a known id"
            )
        if self.buffer is None:
            return UpdateData(new=experience.train, stored=SampleList([]), held=experience.train)
        if labelled:
            held = self.buffer.after(experience.train, origin=experience.id)
        else:  # only their number counts
            every = len(self.buffer) + size(experience.train)
            most = self.buffer.max_size
            held = SampleList([None] * (every if most is None else min(every, most)))
        waiting = set(self.pending)
        pending: Dataset[Any] = SampleList([])
        if waiting:
            pending = self.buffer.select(waiting.__contains__)
        stored = self.buffer.select(lambda origin: origin not in waiting)
        parts, n_pending = None, size(pending)
        if (buffer := self.in_parts) is not None:
            n_pending = buffer.count(waiting.__contains__)
            parts = Parts(
                rank=buffer.rank,
                ranks=buffer.world_size,
                new=size(experience.train) + n_pending,
                held=buffer.count_after(experience.train, origin=experience.id),
                stored=buffer.count(lambda origin: origin not in waiting),
            )
        return UpdateData(
            new=concat([experience.train, pending]),
            stored=stored,
            held=held,
            n_pending=n_pending,
            n_past=self._arrived - sum(self._known[name] for name in waiting),
            parts=parts,
        )

    def everything(self, experience: Experience) -> UpdateData | None:
        """Return all data that the stream holds after an experience, as new data.

        ``None`` if it holds none.
        """
        held = experience.train if self.buffer is None else self.buffer.select(lambda origin: True)
        parts, every, n_pending = None, size(held), 0
        if (buffer := self.in_parts) is not None:
            held = held if every else experience.train  # another rank may hold some
            every = n_pending = buffer.count(lambda origin: True)
            parts = Parts(rank=buffer.rank, ranks=buffer.world_size, new=every, held=every)
        if not every:
            return None
        return UpdateData(
            new=held, stored=SampleList([]), held=held, n_pending=n_pending, parts=parts
        )

    def store(self, experience: Experience, *, trained: bool, copies: bool = False) -> bool:
        """Store an experience in the buffer: as pending, or as trained on with all pending data.

        Args:
            experience: The experience.
            trained: Whether an update has trained on it and on the pending data.
            copies: Whether it only has copies of samples that were trained on; then it never
                becomes pending.

        Returns:
            ``False``, after a warning, if the disk took no more: the experience is then not known
            to the stream, and can be given again.
        """
        try:
            if self.buffer is not None:
                self.buffer.add(experience.train, origin=experience.id)
        except OSError as error:  # a full disk must not lose a model that was paid for
            _log.warning(
                "the data of experience %s could not be stored, because %s; the model is kept, and "
                "the stream takes the experience again",
                *(experience.id, error),
            )
            self.pending = [] if trained else self.pending
            return False
        self._know(experience.id, size(experience.train))
        if trained:
            self.pending = []
        elif not copies:
            self.pending = [*self.pending, experience.id]
        return True

    def set_aside(self, experience: Experience) -> None:
        """Count an experience as known without keeping its data."""
        self._know(experience.id, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer's state, and the pending and known experiences as JSON.

        A text of thousands of names is saved in no time, and a list of them is not. It is joined
        from parts that were written once.
        """
        buffer = None if self.buffer is None else self.buffer.state_dict()
        return {
            "buffer": buffer,
            "pending": json.dumps(self.pending),
            "known": f"{{{', '.join(self._known_json)}}}",
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`.

        The buffer may be the state of one rank, or a list of those of all ranks, as many as then.
        """
        found = state["buffer"]
        if isinstance(self.buffer, BoundedBuffer):
            states = found if isinstance(found, list) else [found]
            found = reshard(states, self.buffer.world_size)[self.buffer.rank]
        if self.buffer is not None:
            self.buffer.load_state_dict(found)
        self.pending = json.loads(state["pending"])
        self._known, self._known_json, self._arrived = {}, [], 0
        for name, samples in json.loads(state["known"]).items():
            self._know(name, samples)

    def _know(self, name: str, samples: int) -> None:
        self._known[name] = samples
        self._known_json.append(f"{json.dumps(name)}: {samples}")
        self._arrived += samples
