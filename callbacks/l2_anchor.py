"""Anchor all parameters alike to the values after the last experience."""

from __future__ import annotations

from typing import Any

import torch

from greentrain.callbacks.parameter_anchor import ParameterAnchor, detached, trainable
from greentrain.methods import Anchor


class L2Anchor(ParameterAnchor):
    """Anchor all parameters alike to the values after the last fit.

    The loss of an experience becomes ``loss + strength / 2 * sum((theta - theta_before) ** 2)``. It
    is the plainest anchor, and needs neither targets nor a pass over the data.

    Args:
        strength: Weight of the penalty, 0 or more.

    Raises:
        ConfigurationError: If the strength is no number of 0 or more.

    Example:
        >>> anchor = L2Anchor(0.1)  # Trainer(callbacks=[anchor]) for each experience
        >>> anchor.strength, anchor.anchor
        (0.1, None)
    """

    def __init__(self, strength: float) -> None:
        super().__init__(strength)

    def consolidate(self, trainer: Any, pl_module: Any) -> Anchor:
        """Return an anchor at the present values, with importance 1."""
        reference = detached(trainable(pl_module))
        ones = {name: torch.ones_like(each) for name, each in reference.items()}
        return Anchor(reference=reference, importance=ones)
