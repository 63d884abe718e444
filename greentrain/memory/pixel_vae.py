"""A small variational autoencoder that generates inputs like those of each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot


class PixelVae(nn.Module):
    """Generate inputs between 0 and 1, conditional on their class.

    Kingma & Welling 2014, with the layers of van de Ven & Tolias 2018: one or two hidden layers of
    ReLU units on each side. The decoder also gets the class, so a sample has a label without a
    classifier.

    Args:
        shape: Shape of an input.
        classes: Number of classes.
        hidden: Units of each of two hidden layers.
        latent: Values of the latent code.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, hidden: int, latent: int) -> None:
        super().__init__()
        self.shape, self.classes, self.latent = tuple(shape), classes, latent
        values = math.prod(shape)
        self.encoder = nn.Sequential(
            *(nn.Linear(values + classes, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(latent + classes, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, values)),
        )

    def losses(self, inputs: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        """Return minus the evidence lower bound of each sample, ``(batch,)``.

        Args:
            inputs: Values between 0 and 1, ``(batch, ...)``.
            labels: Classes, ``(batch,)``.
            noise: Standard normal values, ``(batch, latent)``.
        """
        flat, classes = inputs.flatten(1), one_hot(labels, self.classes).to(inputs)
        mean, log_variance = self.encoder(torch.cat([flat, classes], dim=1)).chunk(2, dim=1)
        code = mean + (log_variance / 2).exp() * noise
        logits = self.decoder(torch.cat([code, classes], dim=1))
        wrong = binary_cross_entropy_with_logits(logits, flat, reduction="none").sum(dim=1)
        far = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        total: Tensor = wrong + far
        return total

    @torch.no_grad()
    def generate(self, labels: Tensor, noise: Tensor) -> Tensor:
        """Return one input for each label, ``(labels, ...)``."""
        classes = one_hot(labels, self.classes).to(noise)
        values = self.decoder(torch.cat([noise, classes], dim=1)).sigmoid()
        return values.view(-1, *self.shape)  # type: ignore[no-any-return]
