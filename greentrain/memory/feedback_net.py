"""A classifier that generates its own past inputs, for replay through feedback."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from greentrain.memory.pixel_layers import noisy_code, perceptron, pixel_losses


class FeedbackNet(nn.Module):
    """Classify inputs between 0 and 1, and generate such inputs.

    van de Ven & Tolias 2018: a variational autoencoder whose encoder is also the classifier. The
    logits are a linear layer on the encoder's last hidden layer. Its decoder is the feedback.

    Args:
        shape: Shape of an input.
        classes: Number of classes.
        hidden: Units of each of two hidden layers.
        latent: Values of the latent code.

    Example:
        >>> net = FeedbackNet((1, 4, 4), 3, hidden=8, latent=2)
        >>> tuple(net(torch.rand(5, 1, 4, 4)).shape), tuple(net.generate(7).shape)
        ((5, 3), (7, 1, 4, 4))
    """

    def __init__(
        self, shape: tuple[int, ...], classes: int, *, hidden: int = 400, latent: int = 100
    ) -> None:
        super().__init__()
        self.shape, self.classes, self.latent = tuple(shape), classes, latent
        values = math.prod(shape)
        self.encoder = nn.Sequential(
            *(nn.Linear(values, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        )
        self.head = nn.Linear(hidden, classes)
        self.to_code = nn.Linear(hidden, 2 * latent)
        self.decoder = perceptron(latent, hidden, values)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of the classes, ``(batch, classes)``."""
        logits: Tensor = self.head(self.encoder(inputs.flatten(1)))
        return logits

    def losses(self, inputs: Tensor) -> Tensor:
        """Return minus the evidence lower bound of each sample, for each of its values.

        Args:
            inputs: Values between 0 and 1, ``(batch, ...)``.
        """
        encoded = self.to_code(self.encoder(inputs.flatten(1)))
        code, far = noisy_code(encoded, torch.randn_like(encoded[:, : self.latent]))
        return (pixel_losses(self.decoder(code), inputs) + far) / inputs[0].numel()

    @torch.no_grad()
    def generate(self, count: int) -> Tensor:
        """Return inputs like those of the past, ``(count, ...)``."""
        noise = torch.randn(count, self.latent, device=self.head.weight.device)
        values: Tensor = self.decoder(noise.to(self.head.weight)).sigmoid()
        return values.view(count, *self.shape)
