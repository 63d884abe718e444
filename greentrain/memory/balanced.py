"""A buffer that keeps equally many samples of each class."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.bounded import BoundedBuffer
from greentrain.memory.labels import read_labels
from greentrain.memory.plans import Indices, Key, Offer, Plan, balanced
from greentrain.memory.protocol import Sample

_log = logging.getLogger(__name__)


class ClassBalancedBuffer(BoundedBuffer):
    """Keep equally many samples of each class, and of each class a uniform sample of what came.

    Places are freed as new classes come. What a small class does not need goes to the others, so
    the buffer is full as soon as enough came. Class counts are those of GDumb's greedy sampler
    (Prabhu et al. 2020, Algorithm 1), up to one sample; that one keeps mostly the first samples
    of a class, this one all of them with equal chances.

    With fewer places than classes, as many classes as fit keep one sample each, chosen at random
    among all that came; a warning is logged once.

    Args:
        max_size: As of :class:`ReservoirBuffer`, and so are ``seed``, ``folder``, ``rank`` and
            ``world_size``.
        per_class: Samples of a class that are kept at most, from the start on.
        per_experience: Count each class of each experience as a class of its own: where the same
            classes come again and again from another domain.
        label: Gives the label of a sample; by default the second item of a sequence, or
            ``sample["label"]``.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> buffer = ClassBalancedBuffer(9)
        >>> for label, count in [(0, 100), (1, 2), (2, 100)]:
        ...     labels = torch.full((count,), label)
        ...     buffer.add(TensorDataset(torch.zeros(count), labels), origin=f"class {label}")
        >>> [len(buffer.select(lambda origin: origin == f"class {n}")) for n in range(3)]
        [4, 2, 3]
    """

    def __init__(
        self,
        max_size: int | str,
        *,
        per_class: int | None = None,
        per_experience: bool = False,
        label: Callable[[Sample], Any] | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(max_size, seed=seed, folder=folder, rank=rank, world_size=world_size)
        whole = isinstance(per_class, int) and not isinstance(per_class, bool)
        if per_class is not None and (not whole or per_class < 1):
            raise ConfigurationError(
                f"per_class is {per_class!r}; it is the number of samples of a class that may be "
                "kept, 1 or more, or None"
            )
        self._per_class = per_class
        self._per_experience = per_experience
        self._label = label
        self._warned = False

    def settings(self) -> dict[str, Any]:
        """Return the arguments that have to be the same when a state is loaded."""
        own = {"per_class": self._per_class, "per_experience": self._per_experience}
        return {**super().settings(), **own}

    def groups(self, dataset: Dataset[Sample], origin: str) -> tuple[list[Key], Indices]:
        """Return the classes of the samples."""
        labels, places = read_labels(dataset, self._label)
        return [(label, origin if self._per_experience else None) for label in labels], places

    def plan(self, offer: Offer, dataset: Dataset[Sample], random: np.random.Generator) -> Plan:
        """See :func:`~greentrain.memory.plans.balanced`."""
        self._warned = warn_if_crowded(len(offer.keys), offer.room, self._warned)
        return balanced(offer, random, per_group=self._per_class)


def warn_if_crowded(classes: int, room: int, warned: bool) -> bool:
    """Log once that there are more classes than places, and return whether that was done."""
    if classes > room and not warned:
        _log.warning(
            "memory has room for %d samples and there are %d classes: as many classes as fit keep "
            "one sample each, chosen at random",
            room,
            classes,
        )
    return warned or classes > room
