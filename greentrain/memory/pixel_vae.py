"""A small variational autoencoder that generates inputs like those of each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from greentrain.memory.pixel_layers import noisy_code, perceptron, pixel_losses, with_classes


class PixelVae(nn.Module):
    """Generate inputs between 0 and 1, conditional on their class.

    Kingma & Welling 2014, with the layers of van de Ven & Tolias 2018: two hidden layers of ReLU
    units on each side. The decoder also gets the class, so a sample has a label without a
    classifier.

    Args:
        shape: Shape of an input.
        classes: Number of classes.
        hidden: Units of each of two hidden layers.
        latent: Values of the latent code.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, hidden: int, latent: int) -> None:
        super().__init__()
        self.shape, self.classes = tuple(shape), classes
        values = math.prod(shape)
        self.encoder = perceptron(values + classes, hidden, 2 * latent)
        self.decoder = perceptron(latent + classes, hidden, values)

    def losses(self, inputs: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        """Return minus the evidence lower bound of each sample, ``(batch,)``.

        Args:
            inputs: Values between 0 and 1, ``(batch, ...)``.
            labels: Classes, ``(batch,)``.
            noise: Standard normal values, ``(batch, latent)``.
        """
        encoded = self.encoder(with_classes(inputs.flatten(1), labels, self.classes))
        code, far = noisy_code(encoded, noise)
        logits = self.decoder(with_classes(code, labels, self.classes))
        return pixel_losses(logits, inputs) + far

    @torch.no_grad()
    def generate(self, labels: Tensor, noise: Tensor) -> Tensor:
        """Return one input for each label, ``(labels, ...)``."""
        values: Tensor = self.decoder(with_classes(noise, labels, self.classes)).sigmoid()
        return values.view(-1, *self.shape)
