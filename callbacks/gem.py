"""GEM: project the gradient so that the loss on no stored experience rises."""

from __future__ import annotations

from typing import Any

import torch

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.gradient_projection import GradientProjection
from greentrain.callbacks.parameter_anchor import number_from
from greentrain.methods import project_from_all


class GEM(GradientProjection):
    """Project the gradient so that the loss on no stored experience rises: GEM.

    Lopez-Paz & Ranzato 2017. The nearest gradient that goes against none of the past experiences is
    found by a quadratic program with one variable for each. A step costs one training pass on
    ``batch_size`` stored samples, and the bytes of one gradient, for each past experience.

    Args:
        per_experience: Samples that are stored of each experience, on each process.
        margin: Least weight of each past experience, 0 or more; the paper's gamma.
        batch_size: Stored samples that a gradient is computed with.
        seed: Seed of what is stored and sampled.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> GEM(200, margin=0.5).margin
        0.5
    """

    def __init__(
        self,
        per_experience: int,
        *,
        margin: float = 0.0,
        batch_size: int = 128,
        seed: int = 0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(
            per_experience, batch_size=batch_size, seed=seed, unpack=unpack, outputs=outputs
        )
        self.margin = number_from(margin, "margin", lowest=0.0)

    def references(self, pl_module: Any, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradient of each past experience."""
        samples = (each.sample(self.batch_size, pl_module.device) for each in self.memories)
        return [self.gradient_of(pl_module, parameters, stored) for stored in samples]

    def projected(self, gradient: torch.Tensor, references: list[torch.Tensor]) -> torch.Tensor:
        """Return the nearest gradient that goes against no past experience."""
        return project_from_all(gradient, references, margin=self.margin)
