"""A-GEM: project the gradient so that the mean loss on stored samples does not rise."""

from __future__ import annotations

from typing import Any

import torch

from greentrain.callbacks.gradient_projection import GradientProjection
from greentrain.methods import project_from


class AGEM(GradientProjection):
    """Project the gradient so that the mean loss on stored samples does not rise: A-GEM.

    Chaudhry et al. 2019. If the gradient goes against that of ``batch_size`` stored samples, that
    part is removed. The samples are chosen at random over all past experiences. A step costs one
    training pass more.

    Arguments, attributes and errors are those of :class:`GradientProjection`.

    Example:
        >>> AGEM(200, batch_size=64).batch_size
        64
    """

    def references(self, pl_module: Any, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradient of stored samples of all experiences."""
        held = sum(len(each) for each in self.memories)
        parts = [
            each.sample(-(-self.batch_size * len(each) // held), pl_module.device)
            for each in self.memories
        ]
        stored = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return [self.gradient_of(pl_module, parameters, stored)]

    def projected(self, gradient: torch.Tensor, references: list[torch.Tensor]) -> torch.Tensor:
        """Return the gradient without its part against the stored samples."""
        return project_from(gradient, references[0].to(gradient))
