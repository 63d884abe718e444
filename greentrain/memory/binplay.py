"""A buffer whose network memorises samples: each is the answer to a code that is a number."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from greentrain.errors import ConfigurationError
from greentrain.memory.learned import LearnedBuffer
from greentrain.memory.pixel_layers import perceptron, pixel_losses, with_classes
from greentrain.memory.retention import reservoir_slots

_FACTOR = 13**9
"""``p ** const`` for an odd prime ``p``: an odd number, so codes are different."""
_MOST_BITS = 62


def binary_codes(indices: Tensor, bits: int) -> Tensor:
    """Return ``C(i) = i * p^const mod 2^k`` as ``k`` values of -1 or 1 (Deja et al. 2021).

    As ``p`` is odd, all ``i`` below ``2^k`` have different codes, and neighbours differ in many
    bits.

    Args:
        indices: Whole numbers from 0 to ``2^k - 1``, ``(samples,)``.
        bits: ``k``, from 1 to 62.

    Returns:
        The codes, ``(samples, bits)``.

    Example:
        >>> binary_codes(torch.tensor([0, 1, 2]), 3)  # 13**9 is 5 modulo 8, and 10 is 2
        tensor([[-1., -1., -1.],
                [ 1., -1.,  1.],
                [-1.,  1., -1.]])
    """
    factor = np.uint64(_FACTOR % 2**bits)
    product = indices.numpy().astype(np.uint64) * factor  # modulo 2^64, so 2^k divides it
    ones = product[:, None] >> np.arange(bits, dtype=np.uint64) & np.uint64(1)
    return torch.from_numpy(ones.astype(np.float32)) * 2 - 1


class CodeDecoder(nn.Module):
    """Decode binary codes and classes to inputs between 0 and 1.

    Args:
        shape: Shape of an input.
        classes: Number of classes.
        hidden: Units of each of two hidden layers.
        bits: Bits of a code.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, hidden: int, bits: int) -> None:
        super().__init__()
        self.classes = classes
        self.decoder = perceptron(bits + classes, hidden, math.prod(shape))

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Return logits of the values, ``(samples, values)``."""
        logits: Tensor = self.decoder(with_classes(codes, labels, self.classes))
        return logits


class BinPlayBuffer(LearnedBuffer):
    """Memorise a uniform sample of the past in a network with binary codes: BinPlay.

    Deja et al. 2021. A variational autoencoder generates samples that are typical, and loses
    details of the single ones. Here the sample in place ``i`` has the code ``C(i)`` of
    :func:`binary_codes`, which needs no memory, and a decoder is trained to return that sample for
    its code. It learns new samples together with what its last state returns for the codes of old
    ones. Which samples have a place is Vitter's algorithm R (1985).

    The paper also trains an encoder to the codes. Replay needs the decoder only, so there is no
    encoder here, and its energy is saved.

    Args:
        max_size: Most memorised samples, at most ``2^latent``.
        latent: Bits of a code, ``k``, at most 62.
        options: Those of :class:`LearnedBuffer`.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> buffer = BinPlayBuffer(50, classes=2, steps=5, hidden=8, latent=6)
        >>> data = TensorDataset(torch.rand(300, 1, 4, 4), torch.arange(300) % 2)
        >>> buffer.add(data, origin="first")
        >>> image, label = buffer.sample(1)[0]
        >>> len(buffer), tuple(image.shape), buffer.nbytes  # 288 weights, 50 labels
        (50, (1, 4, 4), 1552)
    """

    def __init__(self, max_size: int, *, latent: int = 32, **options: Any) -> None:
        super().__init__(max_size, latent=latent, **options)
        if self.latent > _MOST_BITS or self._max_size > 2**self.latent:
            raise ConfigurationError(
                f"max_size is {max_size!r} and latent is {latent!r}; a code has at most "
                f"{_MOST_BITS} bits, and there are 2^latent codes: choose latent from "
                f"{min(self._max_size.bit_length(), _MOST_BITS)} to {_MOST_BITS}"
            )
        self._labels = torch.zeros(0, dtype=torch.int64)
        self._origin_of: list[str] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the decoder, of the memorised samples' labels, and of data that wait."""
        return super().nbytes + self._labels.numel() * 8

    def _make(self) -> CodeDecoder:
        return CodeDecoder(self._shape, self.classes, hidden=self.hidden, bits=self.latent)

    def _train(self, inputs: Tensor, labels: Tensor, origin: str) -> None:
        seen = sum(self._origins.values())
        places = reservoir_slots(len(labels), seen, self._max_size, self._generator)
        slots, chosen = torch.tensor(list(places.items()), dtype=torch.int64).view(-1, 2).T
        old = len(self._labels)
        kept = max(old, int(slots.max()) + 1) if len(slots) else old
        targets, classes = inputs.new_zeros(kept, *self._shape), labels.new_zeros(kept)
        if old:
            targets[:old], classes[:old] = self._decoded(torch.arange(old)), self._labels
        targets[slots], classes[slots] = inputs[chosen], labels[chosen]
        model = cast(CodeDecoder, copy.deepcopy(self._models[0]) if old else self._made())
        codes = binary_codes(torch.arange(kept), self.latent)

        def loss() -> Tensor:
            code, label, target = self._batch(codes, classes, targets)
            return pixel_losses(model(code, label), target).mean()

        self._descend(model.parameters(), loss, self.steps)
        names = [*self._origin_of, *[""] * (kept - old)]
        for slot in slots.tolist():
            names[slot] = origin
        self._models, self._labels, self._origin_of = [model], classes, names

    def _generated(self, count: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(self._labels), (count,), generator=self._generator)
        return self._decoded(rows), self._labels[rows]

    def _past(self, keep: Callable[[str], bool]) -> tuple[Tensor, Tensor]:
        """Return all memorised samples of the accepted origins."""
        found = [row for row, origin in enumerate(self._origin_of) if keep(origin)]
        rows = torch.tensor(found, dtype=torch.int64)
        return self._labelled(self._decoded(rows), self._labels[rows])

    @torch.no_grad()
    def _decoded(self, rows: Tensor) -> Tensor:
        codes = binary_codes(rows, self.latent)
        logits: Tensor = self._models[0](codes, self._labels[rows])
        return logits.sigmoid().view(-1, *self._shape)

    def state_dict(self) -> dict[str, Any]:
        """Return the decoder, and what is counted."""
        state = {"labels": self._labels.clone(), "origin_of": list(self._origin_of)}
        return {**super().state_dict(), **state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a buffer with the same arguments.

        Raises:
            ConfigurationError: If it is of another buffer, or of one with other arguments.
        """
        super().load_state_dict(state)
        self._labels, self._origin_of = state["labels"].clone(), list(state["origin_of"])

    def _sizes(self) -> str:
        return f"{super()._sizes()}, for {self._max_size} samples"
