"""Losses that layers add to the loss of their task."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class AuxiliaryLoss(nn.Module):
    """Base of layers that compute a loss in each forward pass of training.

    The loss belongs to the last forward pass. Copies and pickles of the layer have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loss: torch.Tensor | None = None

    def take_loss(self) -> torch.Tensor | None:
        """Return the loss of the last forward pass once; ``None`` if there was none since."""
        loss, self._loss = self._loss, None
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loss": None}  # a part of a graph cannot be copied


def auxiliary_loss(module: nn.Module) -> torch.Tensor:
    """Return the sum of the losses of a module's layers of gates and experts; 0 without any.

    Each is returned once: call it once after each forward pass of a training step.

    Args:
        module: A module with :class:`SkipBlocks` or :class:`MixtureOfExperts` in it.

    Example:
        >>> auxiliary_loss(nn.Linear(1, 1))
        tensor(0.)
    """
    layers = [each for each in module.modules() if isinstance(each, AuxiliaryLoss)]
    losses = [loss for each in layers if (loss := each.take_loss()) is not None]
    return torch.stack(losses).sum() if losses else torch.zeros(())
