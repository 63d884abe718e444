"""What a model is judged on: held-out data of the present, of a while, or of all that ever came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory import ReservoirBuffer, SampleList, concat, owned, pack, size, unpack
from greentrain.memory.datasets import fetch
from greentrain.streams import Experience

EvalOn = Literal["seen", "current", "window"]

KEPT = 2000
"""Held-out samples of the past that are kept at most, as a uniform sample."""
WINDOW = 5
"""Experiences that ``"window"`` is judged on, the present one included."""


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    origin: str
    sample: Any


class HeldOut:
    """Keep held-out data of past experiences, as many as the objective needs, and never more.

    Samples may be of any kind and differ in shape, as texts do.

    Args:
        objective: ``"seen"`` judges on all experiences so far, ``"window"`` on the last five, and
            ``"current"`` on the one at hand: to forget an old concept can be right.
        seed: Seed of what is kept.

    Raises:
        ConfigurationError: If there is no such objective.
    """

    def __init__(self, objective: EvalOn, *, seed: int) -> None:
        if objective not in get_args(EvalOn):
            raise ConfigurationError(
                f"objective is {objective!r}; allowed are 'seen', 'current' and 'window'"
            )
        self._objective = objective
        self._seed = seed
        self._kept: list[_Kept] = []
        self._count = 0
        # It keeps the numbers of samples, whatever these are.
        self._numbers = ReservoirBuffer(KEPT, seed=seed)

    @property
    def past(self) -> Dataset[Any]:
        """What is kept of past experiences."""
        return SampleList([kept.sample for kept in self._kept])

    def judged_on(self, experience: Experience) -> Dataset[Any]:
        """Return what a model is judged on while an experience is at hand: past, then present."""
        return concat([self.past, experience.val])

    def of(self, name: str) -> Dataset[Any]:
        """Return what is kept of one past experience; an empty dataset if nothing is."""
        return SampleList([kept.sample for kept in self._kept if kept.origin == name])

    def take(self, experience: Experience) -> None:
        """Take an experience's held-out data up: it is past now."""
        first, self._count = self._count, self._count + size(experience.val)
        numbers = self._choose(torch.arange(first, self._count), experience.id)
        new = [number - first for number in sorted(numbers) if number >= first]
        samples = owned(Subset(experience.val, new))
        stay = [kept for kept in self._kept if kept.number in numbers]
        news = zip(new, samples, strict=True)
        self._kept = stay + [_Kept(first + index, experience.id, sample) for index, sample in news]

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept.

        Raises:
            ConfigurationError: If a sample holds what cannot be saved.
        """
        return {
            "count": self._count,
            "numbers": self._numbers.state_dict(),
            "kept": [[kept.number, kept.origin] for kept in self._kept],
            "samples": pack(SampleList([kept.sample for kept in self._kept])),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._count = state["count"]
        self._numbers.load_state_dict(state["numbers"])
        samples = unpack(state["samples"])
        self._kept = [
            _Kept(number, origin, samples[place])
            for place, (number, origin) in enumerate(state["kept"])
        ]

    def _choose(self, offered: torch.Tensor, origin: str) -> set[int]:
        """Return the numbers of all samples that are kept from now on."""
        if self._objective == "current":
            return set()
        if self._objective == "window":
            origins = list(dict.fromkeys(kept.origin for kept in self._kept))[2 - WINDOW :]
            random = torch.Generator().manual_seed(self._seed + int(offered[0]))
            some = offered[torch.randperm(len(offered), generator=random)[: KEPT // WINDOW]]
            last = {kept.number for kept in self._kept if kept.origin in origins}
            return last | set(some.tolist())
        self._numbers.add(TensorDataset(offered), origin=origin)
        held = self._numbers.select(lambda origin: True)
        return {int(number) for (number,) in fetch(held, range(size(held)))}
