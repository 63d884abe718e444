"""Keep the held-out data that models are evaluated on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.memory import SampleList, concat, owned, pack, size, unpack
from greentrain.streams import Experience

Indices = NDArray[np.int64]
EvalOn = Literal["seen", "current", "window"]

KEPT = 2000
"""Largest number of held-out samples of past experiences, a uniform sample of them."""
WINDOW = 5
"""Experiences that ``"window"`` evaluates on, the current one included."""


class HeldOut:
    """Keep held-out data of past experiences, as much as ``eval_on`` needs.

    Samples may be of any kind and differ in shape, as texts do. They are kept in columns where they
    can be: thousands of small objects, scattered over the memory, take longer and longer to read.

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
        self._arrived = 0
        self._samples: Dataset[Any] = SampleList([])  # in the order of arrival
        self._ranks = np.zeros(0)  # a random number of each sample
        self._origins: list[tuple[str, int]] = []  # the experiences, and their samples' number

    @property
    def forgets(self) -> bool:
        """``True`` if old data no longer matter: models are evaluated on the current data alone."""
        return self._eval_on == "current"

    @property
    def past(self) -> Dataset[Any]:
        """The samples kept of past experiences."""
        return self._samples

    def with_current(self, experience: Experience) -> Dataset[Any]:
        """Return the samples kept of past experiences, then those of the current one."""
        return concat([self.past, experience.val])

    def of(self, name: str) -> Dataset[Any]:
        """Return the samples kept of one past experience; an empty dataset if there are none."""
        first = 0
        for origin, count in self._origins:
            if origin == name:
                return Subset(self._samples, range(first, first + count))
            first += count
        return SampleList([])

    def add(self, experience: Experience) -> None:
        """Add an experience's held-out data to those of past experiences."""
        n_new = size(experience.val)
        random = np.random.default_rng([self._seed, self._arrived])
        ranks = np.concatenate([self._ranks, random.random(n_new)])
        origins = [*self._origins, (experience.id, n_new)]
        origin = np.repeat(np.arange(len(origins)), [count for _, count in origins])
        keep = self._chosen(ranks, len(origins) - 1 - origin)
        self._samples = owned(Subset(concat([self._samples, experience.val]), keep.tolist()))
        self._ranks = ranks[keep]
        left = np.bincount(origin[keep], minlength=len(origins)).tolist()
        named = zip(origins, left, strict=True)
        self._origins = [(name, count) for (name, _), count in named if count]
        self._arrived += n_new

    def state_dict(self) -> dict[str, Any]:
        """Return the samples and their origins.

        Raises:
            ConfigurationError: If a sample holds a value that cannot be saved.
        """
        return {
            "arrived": self._arrived,
            "ranks": torch.from_numpy(self._ranks.copy()),
            "origins": json.dumps(self._origins),
            "samples": pack(self._samples),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._arrived = state["arrived"]
        self._ranks = state["ranks"].numpy().copy()
        self._origins = [(name, count) for name, count in json.loads(state["origins"])]
        self._samples = unpack(state["samples"])

    def _chosen(self, ranks: NDArray[np.float64], age: Indices) -> Indices:
        """Return the positions of the samples to keep, in order.

        The samples with the lowest random ranks are a uniform sample of all that have arrived.

        Args:
            ranks: Random rank of each sample, ``(samples,)``.
            age: Experiences since the one of each sample, 0 for the new one, ``(samples,)``.
        """
        if self.forgets:
            return np.zeros(0, dtype=np.int64)
        if self._eval_on == "window":
            earlier, new = (age > 0) & (age < WINDOW - 1), age == 0
            some = _lowest(ranks, np.flatnonzero(new), KEPT // WINDOW)
            return np.concatenate([np.flatnonzero(earlier), some])
        return _lowest(ranks, np.arange(len(ranks)), KEPT)


def _lowest(ranks: NDArray[np.float64], places: Indices, most: int) -> Indices:
    """Return those of some places that have the lowest ranks, in order."""
    return np.sort(places[np.argsort(ranks[places], kind="stable")[:most]])
