"""Synaptic intelligence: anchor parameters by what they contributed to learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from greentrain.callbacks.parameter_anchor import (
    ParameterAnchor,
    detached,
    loss_scale,
    number_from,
    trainable,
)
from greentrain.methods import Anchor, add_contributions, path_importance
from greentrain.methods.anchors import Tensors, accumulate


class SI(ParameterAnchor):
    """Anchor parameters by the path integral of their contributions: synaptic intelligence.

    Zenke et al. 2017. During a fit, each step adds ``-gradient * change`` of each parameter. The
    gradient is that of the loss without the penalty, unscaled and not clipped. At the end, the sum
    over the squared change plus ``damping`` is added to the importance. There is no pass over the
    data, but each step costs three passes over the parameters.

    The strength is twice the ``c`` of the paper, as every anchor here has the factor 1/2.

    Args:
        strength: Weight of the penalty.
        damping: Bounds the importance of parameters that hardly moved, above 0; the paper's xi.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> SI(0.2).damping
        0.1
    """

    def __init__(self, strength: float, *, damping: float = 0.1) -> None:
        super().__init__(strength)
        self.damping = number_from(damping, "damping", lowest=0.0, above=True)
        self._path: Tensors = {}
        self._start: Tensors = {}
        self._before: dict[int, tuple[Tensors, Tensors]] = {}  # gradients and values, by optimizer
        self._handles: list[Any] = []

    def begin(self, parameters: Mapping[str, Tensor]) -> None:
        """Begin the path integral of an experience."""
        self._start = detached(parameters)
        self._path = {name: torch.zeros_like(each) for name, each in self._start.items()}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Choose the anchor, and hook the steps of the optimizers."""
        super().on_train_start(trainer, pl_module)
        device = pl_module.device
        self._path = {name: each.to(device) for name, each in self._path.items()}
        self._handles = [
            optimizer.register_step_post_hook(self._after_step) for optimizer in trainer.optimizers
        ]

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Keep the gradients of the loss and the values, then add the gradient of the penalty."""
        scale = loss_scale(trainer, optimizer)
        named = self.parameters_of(optimizer)
        gradients = {
            name: each.grad.detach().to_dense() / scale
            for name, each in named.items()
            if each.grad is not None and name in self._path
        }
        values = detached({name: named[name] for name in gradients})
        self._before[id(optimizer)] = gradients, values
        super().on_before_optimizer_step(trainer, pl_module, optimizer)

    def consolidate(self, trainer: Any, pl_module: Any) -> Anchor:
        """Add the importance of the experience to the anchor."""
        known = {n: each for n, each in trainable(pl_module).items() if n in self._path}
        reference = detached(known)
        moved = {name: each - self._start[name].to(each) for name, each in reference.items()}
        path = {name: self._path[name] for name in reference}
        importance = path_importance(path, moved, damping=self.damping)
        return accumulate(self.anchor, Anchor(reference=reference, importance=importance))

    def state_dict(self) -> dict[str, Any]:
        """Return the anchors and the path integral so far."""
        return {**super().state_dict(), "path": dict(self._path), "start": dict(self._start)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint, also of the middle of a fit."""
        super().load_state_dict(state_dict)
        self._path, self._start = dict(state_dict["path"]), dict(state_dict["start"])

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        gradients, before = self._before.pop(id(optimizer), ({}, {}))
        named = self.parameters_of(optimizer)
        changes = {name: named[name].detach() - each for name, each in before.items()}
        add_contributions(self._path, gradients, changes)

    def _close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._before = [], {}
        super()._close()
