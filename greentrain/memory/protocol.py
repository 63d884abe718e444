"""The interface of every buffer of past samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch.utils.data import Dataset

Sample = Any


class Buffer(Protocol):
    """Stored past samples, each with the name of the experience that brought it.

    A buffer need not return samples exactly as they were added: it may compress samples, or
    generate new ones like them.
    """

    @property
    def max_size(self) -> int | None:
        """Number of samples that may be stored; ``None`` without a limit or before it is known."""
        ...

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Add an experience's data, or the part of it that may be stored."""
        ...

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return the content after an :meth:`add` of the same data, without changing anything."""
        ...

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return, as a map-style dataset, the samples whose origin ``keep`` accepts.

        Later additions do not change the dataset.
        """
        ...

    def sample(self, n: int) -> list[Sample]:
        """Return up to ``n`` different stored samples, chosen uniformly."""
        ...

    @property
    def nbytes(self) -> int | None:
        """Bytes of the stored tensors; ``None`` where they cannot be counted."""
        ...

    def __len__(self) -> int: ...

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state: numbers, texts, lists, dicts and tensors only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        ...
