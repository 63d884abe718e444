"""A buffer that stores no sample: it learns to generate samples like those of the past."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor

from greentrain.memory.learned import LearnedBuffer
from greentrain.memory.pixel_vae import PixelVae


class GenerativeBuffer(LearnedBuffer):
    """Learn a generator of past samples: deep generative replay (Shin et al. 2017).

    A variational autoencoder is trained on each experience, together with samples that its last
    state generates, so it never sees past data again. In the ``n``-th experience, new samples have
    the weight ``1 / n`` (van de Ven & Tolias 2018). The decoder is conditional on the class;
    assign :attr:`label_with` to label by a classifier, as the papers do.

    Samples are ``(input, label)``: a tensor of values between 0 and 1, and a class. The generator
    covers all experiences, so :meth:`select` returns samples in proportion, and they may be like
    those of any of them. :meth:`after` returns generated samples and the new ones themselves.

    Args:
        max_size: Most samples that :meth:`select` returns.
        options: Those of :class:`LearnedBuffer`; as many samples are generated in a step as
            ``batch_size``.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> buffer = GenerativeBuffer(100, classes=2, steps=5, hidden=8, latent=2)
        >>> data = TensorDataset(torch.rand(300, 1, 4, 4), torch.arange(300) % 2)
        >>> buffer.add(data, origin="first")
        >>> image, label = buffer.sample(1)[0]
        >>> len(buffer), tuple(image.shape), buffer.nbytes  # 516 weights
        (100, (1, 4, 4), 2064)
    """

    def __init__(self, max_size: int, **options: Any) -> None:
        super().__init__(max_size, **options)
        self._held: list[int] = []  # experiences of each generator

    def _merged(self) -> int:
        """Return how many of the last generators the next one replaces."""
        return len(self._models)

    def _make(self) -> PixelVae:
        return PixelVae(self._shape, self.classes, hidden=self.hidden, latent=self.latent)

    def _train(self, inputs: Tensor, labels: Tensor, origin: str) -> None:
        first = len(self._models) - self._merged()
        again = self._models[first:]
        model = cast(PixelVae, copy.deepcopy(again[0]) if again else self._made())
        held = 1 + sum(self._held[first:])

        def loss() -> Tensor:
            batch, classes = self._batch(inputs, labels)
            new = model.losses(batch, classes, self._noise(self.batch_size)).mean()
            if not again:
                return new
            replayed = self._samples(self.batch_size, first)
            old = model.losses(*replayed, self._noise(self.batch_size)).mean()
            return new / held + (1 - 1 / held) * old

        self._descend(model.parameters(), loss, self.steps)
        counts = self._counts[first:].sum(0) + torch.bincount(labels, minlength=self.classes)
        self._counts = torch.cat([self._counts[:first], counts[None]])
        self._models[first:], self._held[first:] = [model], [held]

    def _generated(self, count: int) -> tuple[Tensor, Tensor]:
        return self._samples(count, 0)

    def _samples(self, count: int, first: int) -> tuple[Tensor, Tensor]:
        """Return samples of the generators from ``first`` on, and their labels."""
        parts, labels = self._parts(count, first)
        noise, inputs = self._noise(count), torch.empty(count, *self._shape)
        for number in sorted(set(parts.tolist())):
            rows, model = parts == number, cast(PixelVae, self._models[number])
            inputs[rows] = model.generate(labels[rows], noise[rows])
        return inputs, labels

    def state_dict(self) -> dict[str, Any]:
        """Return the generators, and what is counted."""
        return {**super().state_dict(), "held": list(self._held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a buffer with the same arguments.

        Raises:
            ConfigurationError: If it is of another buffer, or of one with networks of another size.
        """
        super().load_state_dict(state)
        self._held = list(state["held"])
