"""Layers and losses of networks that encode inputs between 0 and 1, or generate them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


def perceptron(into: int, hidden: int, out: int) -> nn.Sequential:
    """Return a network with two hidden layers of ReLU units."""
    return nn.Sequential(
        *(nn.Linear(into, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, out),
    )


def noisy_code(encoded: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes, and how far their distribution is from the standard normal one.

    Kingma & Welling 2014, equation 10.

    Args:
        encoded: Means and logarithms of variances, ``(batch, 2 * latent)``.
        noise: Standard normal values, ``(batch, latent)``.

    Returns:
        Codes ``(batch, latent)``, and the divergence of each sample ``(batch,)``.
    """
    mean, log_variance = encoded.chunk(2, dim=1)
    far = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
    return mean + (log_variance / 2).exp() * noise, far


def pixel_losses(logits: Tensor, inputs: Tensor) -> Tensor:
    """Return the binary cross-entropy of each sample, summed over its values, ``(batch,)``.

    Args:
        logits: One for each value, ``(batch, values)``.
        inputs: Values between 0 and 1, ``(batch, ...)``.
    """
    return binary_cross_entropy_with_logits(logits, inputs.flatten(1), reduction="none").sum(dim=1)


def with_classes(values: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return values ``(batch, n)`` with their classes, as ``(batch, n + count)``."""
    return torch.cat([values, nn.functional.one_hot(classes, count).to(values)], dim=1)
