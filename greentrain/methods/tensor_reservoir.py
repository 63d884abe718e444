"""A bounded, uniform sample of the batches seen so far, with anything that was computed on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from greentrain.errors import ConfigurationError
from greentrain.units import is_whole, whole_seed


class TensorReservoir:
    """Keep each sample seen so far with the same probability (Vitter 1985, algorithm R).

    Unlike the buffers of ``greentrain.memory``, it takes batches during training, so that logits
    and other results can be stored with the samples.

    Args:
        capacity: Most samples, 1 or more.
        seed: Seed of what is replaced and sampled.

    Attributes:
        seen: Samples that were added.

    Raises:
        ConfigurationError: If the capacity is no whole number of 1 or more.

    Example:
        >>> reservoir = TensorReservoir(3)
        >>> reservoir.add(torch.arange(10.0), torch.arange(10))
        >>> len(reservoir), reservoir.seen, reservoir.nbytes  # 3 times 4 and 8 bytes
        (3, 10, 36)
        >>> values, labels = reservoir.sample(2)
        >>> torch.equal(values, labels.float())
        True
    """

    def __init__(self, capacity: int, *, seed: int = 0) -> None:
        if not is_whole(capacity, 1):
            raise ConfigurationError(
                f"a reservoir of {capacity!r} samples cannot be kept; give a whole number from 1 on"
            )
        self.capacity = int(capacity)
        self.seen = 0
        self._stored: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(whole_seed(seed) % 2**63)

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored samples."""
        return sum(each[: len(self)].numel() * each.element_size() for each in self._stored)

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """All stored samples, ``(samples, ...)`` for each part."""
        return tuple(each[: len(self)] for each in self._stored)

    def add(self, *parts: Tensor) -> None:
        """Add a batch.

        Args:
            parts: Tensors with the same number of samples; as many, and of the same shapes and
                types, in each call.

        Raises:
            ConfigurationError: If the parts differ from those of earlier calls.
        """
        if not self._stored:
            self._stored = [each.new_zeros(self.capacity, *each.shape[1:]) for each in parts]
            self._stored = [each.detach().cpu() for each in self._stored]
        known = [each.shape[1:] for each in self._stored]
        if [each.shape[1:] for each in parts] != known or len({len(each) for each in parts}) != 1:
            raise ConfigurationError(
                f"a batch has parts of {[tuple(each.shape) for each in parts]}, and the stored "
                f"samples of {[tuple(shape) for shape in known]}; give samples of one shape"
            )
        places = self._places(len(parts[0]))
        kept = {place: index for index, place in enumerate(places) if place is not None}
        if not kept:
            return
        slots, indices = torch.tensor(list(kept)), torch.tensor(list(kept.values()))
        for stored, part in zip(self._stored, parts, strict=True):
            stored[slots] = part.detach()[indices.to(part.device)].to(stored)

    def sample(self, size: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Return some stored samples without repetition, all if there are fewer.

        Args:
            size: Number of samples.
            device: Device of the result.
        """
        chosen = torch.randperm(len(self), generator=self._generator)[:size]
        return tuple(each[chosen].to(device) for each in self._stored)

    def state_dict(self) -> dict[str, Any]:
        """Return the samples and the random state, for a checkpoint."""
        return {
            "seen": self.seen,
            "stored": [each.clone() for each in self.stored],
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a reservoir with the same capacity."""
        self.seen = state_dict["seen"]
        self._stored = []
        for each in state_dict["stored"]:
            whole = each.new_zeros(self.capacity, *each.shape[1:])
            whole[: len(self)] = each
            self._stored.append(whole)
        self._generator.set_state(state_dict["generator"])

    def _places(self, count: int) -> list[int | None]:
        """Return where each new sample goes; ``None`` if it is not kept."""
        drawn = torch.rand(count, generator=self._generator, dtype=torch.float64).tolist()
        places: list[int | None] = []
        for share in drawn:
            self.seen += 1
            place = self.seen - 1 if self.seen <= self.capacity else int(share * self.seen)
            places.append(place if place < self.capacity else None)
        return places
