"""A buffer of one generator with a latent space for each experience: Multiband VAE."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from greentrain.errors import ConfigurationError
from greentrain.memory.binplay import binary_codes
from greentrain.memory.learned import LearnedBuffer
from greentrain.memory.pairs import positive
from greentrain.memory.pixel_layers import noisy_code, perceptron, pixel_losses, with_classes

_BITS = 16
"""Bits of the number of an experience."""
_WARM_UP = 5
"""The translator learns alone for one of so many steps."""


class BandDecoder(nn.Module):
    """Translate the latent spaces of experiences into one, and decode that.

    Args:
        shape: Shape of an input.
        classes: Number of classes.
        hidden: Units of each hidden layer.
        latent: Values of a latent code, and of the common space.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, hidden: int, latent: int) -> None:
        super().__init__()
        self.classes = classes
        self.translator = nn.Sequential(
            *(nn.Linear(latent + _BITS + classes, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        )
        self.decoder = perceptron(hidden, hidden, math.prod(shape))

    def common(self, codes: Tensor, bands: Tensor, labels: Tensor) -> Tensor:
        """Return points of the common space, ``(samples, hidden)``.

        Args:
            codes: Points of the experiences' own spaces, ``(samples, latent)``.
            bands: Numbers of the experiences, ``(samples,)``.
            labels: Classes, ``(samples,)``.
        """
        codes = torch.cat([codes, binary_codes(bands, _BITS)], dim=1)
        points: Tensor = self.translator(with_classes(codes, labels, self.classes))
        return points

    def forward(self, codes: Tensor, bands: Tensor, labels: Tensor) -> Tensor:
        """Return logits of the values, ``(samples, values)``."""
        logits: Tensor = self.decoder(self.common(codes, bands, labels))
        return logits


class MultibandBuffer(LearnedBuffer):
    """Learn a generator with a latent space for each experience: Multiband VAE.

    Deja et al. 2022. Each experience is learned in two parts, of half the steps each:

    1. A fresh encoder and a copy of the generator learn the new data only, as a variational
       autoencoder. So the new data have a separate latent space, a band.
    2. The generator learns to give the new inputs for their codes, and for codes of the earlier
       bands what its last state gives. Its translator, which maps all bands into one common space,
       learns alone at first; then the decoder learns with it.

    In the second part, forgetting is controlled. Where a new sample of the same class is close to a
    generated one in the common space, the new one replaces it: old knowledge is refreshed by better
    samples. In the first experience, there is nothing to align, and the first part has all steps.

    Only the generator is kept. The paper has no labels, so its method replaces samples of any
    class.

    Args:
        max_size: Most samples that :meth:`select` returns.
        similarity: Lowest cosine similarity of samples to be replaced; 1 replaces none.
        options: Those of :class:`LearnedBuffer`.

    Attributes:
        refreshed: Generated samples that new ones replaced.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> buffer = MultibandBuffer(100, classes=2, steps=5, hidden=8, latent=2)
        >>> data = TensorDataset(torch.rand(300, 1, 4, 4), torch.arange(300) % 2)
        >>> buffer.add(data, origin="first")
        >>> image, label = buffer.sample(1)[0]
        >>> len(buffer), tuple(image.shape), buffer.nbytes  # 528 weights
        (100, (1, 4, 4), 2112)
    """

    def __init__(self, max_size: int, *, similarity: float = 0.9, **options: Any) -> None:
        super().__init__(max_size, **options)
        self.similarity = positive(similarity, "similarity", above=True)
        if self.similarity > 1:
            raise ConfigurationError(
                f"similarity is {similarity!r}; it is a cosine, so give a number up to 1"
            )
        self.refreshed = 0

    def _make(self) -> BandDecoder:
        return BandDecoder(self._shape, self.classes, hidden=self.hidden, latent=self.latent)

    def _train(self, inputs: Tensor, labels: Tensor, origin: str) -> None:
        past = cast(BandDecoder, self._models[0]) if self._models else None
        local = cast(BandDecoder, copy.deepcopy(past) if past else self._made())
        local_steps = self.steps if past is None else (self.steps + 1) // 2
        encoder = self._band(local, inputs, labels, local_steps)
        if past is not None:
            model = copy.deepcopy(past)
            loss, left = self._aligned(model, past, encoder, inputs, labels), self.steps // 2
            self._descend(model.translator.parameters(), loss, left // _WARM_UP)
            self._descend(model.parameters(), loss, left - left // _WARM_UP)
        self._models = [local if past is None else model]
        counts = torch.bincount(labels, minlength=self.classes)
        self._counts = torch.cat([self._counts, counts[None]])

    def _band(
        self, local: BandDecoder, inputs: Tensor, labels: Tensor, steps: int
    ) -> nn.Sequential:
        """Train an encoder of the new data, with a copy of the generator, and return it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self._generator)))
            into = inputs[0].numel() + self.classes
            encoder = perceptron(into, self.hidden, 2 * self.latent)
        band = torch.full((self.batch_size,), self.experiences)

        def loss() -> Tensor:
            new, classes = self._batch(inputs, labels)
            encoded = encoder(with_classes(new.flatten(1), classes, self.classes))
            code, far = noisy_code(encoded, self._noise(self.batch_size))
            return (pixel_losses(local(code, band, classes), new) + far).mean()

        self._descend([*encoder.parameters(), *local.parameters()], loss, steps)
        return encoder

    def _aligned(
        self,
        model: BandDecoder,
        past: BandDecoder,
        encoder: nn.Sequential,
        inputs: Tensor,
        labels: Tensor,
    ) -> Callable[[], Tensor]:
        """Return the loss of new samples in their band and of generated ones in theirs."""
        share, band = 1 / (self.experiences + 1), torch.full((self.batch_size,), self.experiences)

        def loss() -> Tensor:
            new, classes = self._batch(inputs, labels)
            codes, noise = self._noise(self.batch_size), self._noise(self.batch_size)
            bands, old = self._parts(self.batch_size)
            with torch.no_grad():
                encoded = encoder(with_classes(new.flatten(1), classes, self.classes))
                own, _ = noisy_code(encoded, noise)
                target = past(codes, bands, old).sigmoid()
                close = normalize(model.common(codes, bands, old))
                close = close @ normalize(model.common(own, band, classes)).T
                close[old[:, None] != classes] = -1.0
                nearest, which = close.max(dim=1)
                refreshed = nearest > self.similarity
                target[refreshed] = new.flatten(1)[which[refreshed]]
                self.refreshed += int(refreshed.sum())
            fresh = pixel_losses(model(own, band, classes), new).mean()
            return (
                share * fresh + (1 - share) * pixel_losses(model(codes, bands, old), target).mean()
            )

        return loss

    @torch.no_grad()
    def _generated(self, count: int) -> tuple[Tensor, Tensor]:
        bands, labels = self._parts(count)
        logits: Tensor = self._models[0](self._noise(count), bands, labels)
        return logits.sigmoid().view(-1, *self._shape), labels

    def state_dict(self) -> dict[str, Any]:
        """Return the generator, and what is counted."""
        return {**super().state_dict(), "refreshed": self.refreshed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a buffer with the same arguments.

        Raises:
            ConfigurationError: If it is of another buffer, or of one with networks of another size.
        """
        super().load_state_dict(state)
        self.refreshed = state["refreshed"]
