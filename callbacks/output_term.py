"""Base of the callbacks that add a term on the model's outputs to the loss."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from greentrain.callbacks.base import Callback
from greentrain.callbacks.batch_parts import Outputs, Unpack, call, pair
from greentrain.callbacks.step_layers import loss_of, with_loss, wrap_training_step


class OutputTerm(Callback, abc.ABC):
    """Add a term to the loss: one subclass for each method.

    ``training_step`` of the module is wrapped during a fit, and is its own again afterwards. Each
    step costs one forward pass more, because what ``training_step`` computes cannot be seen.

    Args:
        unpack: Returns inputs and targets of a batch; batches are ``(inputs, targets)`` unless
            given.
        outputs: Returns the outputs of a module for inputs; ``module(inputs)`` unless given.
    """

    def __init__(self, *, unpack: Unpack | None = None, outputs: Outputs | None = None) -> None:
        self.unpack = unpack or pair
        self.outputs = outputs or call
        self._remove: Callable[[], None] | None = None

    @abc.abstractmethod
    def combined_loss(self, pl_module: Any, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss with the term, for a batch and the loss of ``training_step``."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Wrap the training step."""
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"the module has manual optimization, and {type(self).__name__} adds to the loss "
                "that training_step returns; use automatic optimization, or leave it out"
            )

        self._close()
        self._remove = self.wrapped(pl_module, functools.partial(self.layer, pl_module))

    def wrapped(self, pl_module: Any, layer: Callable[..., Any]) -> Callable[[], None]:
        """Wrap the training step; return a function that removes the layer again."""
        return wrap_training_step(pl_module, layer)

    def layer(self, pl_module: Any, step: Any, batch: Any, *rest: Any, **named: Any) -> Any:
        """Return the output of a training step, with the term added to its loss."""
        output = step(batch, *rest, **named)
        if output is None:
            return None
        return with_loss(output, self.combined_loss(pl_module, batch, loss_of(output)))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Unwrap the training step."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Unwrap the training step."""
        self._close()

    def _close(self) -> None:
        if self._remove is not None:
            self._remove()
            self._remove = None
