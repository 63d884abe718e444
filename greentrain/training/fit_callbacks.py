"""What ends an update early: an optimizer that is missing, a loss that is no number any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.nn.parameter import is_lazy

from greentrain.callbacks.base import Callback
from greentrain.errors import ConfigurationError

EVERY = 25
"""Batches between two checks: each makes the processor wait for the GPU."""
_MOCK = "_MockOptimizer"


def healthy(model: nn.Module) -> bool:
    """Tell whether all parameters are finite.

    Buffers are not looked at: an attention mask may well hold an infinity.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> healthy(model)
        True
        >>> _ = nn.init.constant_(model.bias, float("inf"))
        >>> healthy(model)
        False
    """
    finite = [
        torch.isfinite(each.detach()).all() for each in model.parameters() if not is_lazy(each)
    ]
    return not finite or bool(torch.stack([each.to(finite[0].device) for each in finite]).all())


class StopOnNan(Callback):
    """Stop a fit whose loss, or where it returns none whose weights, are not finite any more.

    It looks at every 25th batch, on all ranks alike: a loss that is not finite makes the weights
    so, and these all losses after it. Whoever trains fewer batches asks :func:`healthy` at the end.

    Attributes:
        tripped: Whether it stopped the fit.
    """

    def __init__(self) -> None:
        self.tripped = False
        self._batches = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Look, if it is time to."""
        self._batches += 1
        if self._batches % EVERY:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            bad = not bool(torch.isfinite(loss.detach()).all())
        else:
            bad = not healthy(pl_module)
        if trainer.strategy.reduce_boolean_decision(bad, all=False):
            self.tripped = True
            trainer.should_stop = True


class Begin(Callback):
    """Refuse a fit that would train nothing, and let one by hand train all of its batches.

    Args:
        batches: Batches to train on.
    """

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the optimizers.

        Raises:
            ConfigurationError: If there is none.
        """
        optimizers = trainer.optimizers
        if all(type(each).__name__ == _MOCK for each in optimizers):
            raise ConfigurationError(
                f"configure_optimizers of {type(pl_module).__name__} returned no optimizer, so "
                "nothing would be trained; it has to return one"
            )
        if not pl_module.automatic_optimization:
            # Lightning counts the step of each optimizer, and a batch takes one of each.
            trainer.fit_loop.epoch_loop.max_steps = self._batches * len(optimizers)
