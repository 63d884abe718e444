"""Keep the held-out data that models are evaluated on."""

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
"""Largest number of held-out samples of past experiences, a uniform sample of them."""
WINDOW = 5
"""Experiences that ``"window"`` evaluates on, the current one included."""


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    origin: str
    sample: Any


class HeldOut:
    """Keep held-out data of past experiences, as much as ``eval_on`` needs.

    Samples may be of any kind and differ in shape, as texts do.

    Args:
        eval_on: ``"seen"`` evaluates on all experiences so far, ``"window"`` on the last five, and
            ``"current"`` on the current one, for streams whose old data no longer matter.
        seed: Seed of the choice of samples.

    Raises:
        ConfigurationError: If ``eval_on`` has another value.
    """

    def __init__(self, eval_on: EvalOn, *, seed: int) -> None:
        if eval_on not in get_args(EvalOn):
            raise ConfigurationError(
                f"eval_on is {eval_on!r}; allowed are 'seen', 'current' and 'window'"
            )
        self._eval_on = eval_on
        self._seed = seed
        self._kept: list[_Kept] = []
        self._count = 0
        # It keeps the numbers of samples, so that samples may be of any kind.
        self._numbers = ReservoirBuffer(KEPT, seed=seed)

    @property
    def past(self) -> Dataset[Any]:
        """The samples kept of past experiences."""
        return SampleList([kept.sample for kept in self._kept])

    def with_current(self, experience: Experience) -> Dataset[Any]:
        """Return the samples kept of past experiences, then those of the current one."""
        return concat([self.past, experience.val])

    def of(self, name: str) -> Dataset[Any]:
        """Return the samples kept of one past experience; an empty dataset if there are none."""
        return SampleList([kept.sample for kept in self._kept if kept.origin == name])

    def add(self, experience: Experience) -> None:
        """Add an experience's held-out data to those of past experiences."""
        first, self._count = self._count, self._count + size(experience.val)
        numbers = self._choose(torch.arange(first, self._count), experience.id)
        new = [number - first for number in sorted(numbers) if number >= first]
        samples = owned(Subset(experience.val, new))
        stay = [kept for kept in self._kept if kept.number in numbers]
        news = zip(new, samples, strict=True)
        self._kept = stay + [_Kept(first + index, experience.id, sample) for index, sample in news]

    def state_dict(self) -> dict[str, Any]:
        """Return the samples and their origins.

        Raises:
            ConfigurationError: If a sample holds a value that cannot be saved.
        """
        return {
            "count": self._count,
            "numbers": self._numbers.state_dict(),
            "kept": [[kept.number, kept.origin] for kept in self._kept],
            "samples": pack(SampleList([kept.sample for kept in self._kept])),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._count = state["count"]
        self._numbers.load_state_dict(state["numbers"])
        samples = unpack(state["samples"])
        self._kept = [
            _Kept(number, origin, samples[place])
            for place, (number, origin) in enumerate(state["kept"])
        ]

    def _choose(self, offered: torch.Tensor, origin: str) -> set[int]:
        """Return the numbers of all samples to keep."""
        if self._eval_on == "current":
            return set()
        if self._eval_on == "window":
            origins = list(dict.fromkeys(kept.origin for kept in self._kept))[2 - WINDOW :]
            random = torch.Generator().manual_seed(self._seed + int(offered[0]))
            some = offered[torch.randperm(len(offered), generator=random)[: KEPT // WINDOW]]
            last = {kept.number for kept in self._kept if kept.origin in origins}
            return last | set(some.tolist())
        self._numbers.add(TensorDataset(offered), origin=origin)
        held = self._numbers.select(lambda origin: True)
        return {int(number) for (number,) in fetch(held, range(size(held)))}
