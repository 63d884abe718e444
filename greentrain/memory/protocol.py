"""What every memory of past samples can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch.utils.data import Dataset

Sample = Any


class Buffer(Protocol):
    """Stored past samples, each with the name of the experience that it came with.

    Nothing here says that a sample comes back as it was given: a memory may as well compress
    samples, or generate new ones like them.
    """

    @property
    def max_size(self) -> int | None:
        """Samples that may be kept; ``None`` where there is no limit, or none is known yet."""
        ...

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Take up an experience's data, or as much of it as may be kept."""
        ...

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return what would be held after :meth:`add`, and change nothing.

        An ``add`` of the same that follows leads to just that.
        """
        ...

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return, as a map-style dataset, the samples whose origin ``keep`` accepts.

        The dataset stays as it is, whatever is added later.
        """
        ...

    def sample(self, n: int) -> list[Sample]:
        """Draw up to ``n`` different samples uniformly from all that is stored."""
        ...

    @property
    def nbytes(self) -> int | None:
        """Bytes of the stored tensors; ``None`` where that cannot be told."""
        ...

    def __len__(self) -> int: ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on: numbers, texts, lists, dicts and tensors only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        ...
