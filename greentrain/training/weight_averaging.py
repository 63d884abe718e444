"""The mean of the weights that an update passes through, in place of its last ones."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from greentrain.callbacks.base import Callback


class WeightAveraging(Callback):
    """Give a module the mean of its weights over the fit when that ends.

    After optimizer step ``t`` the mean moves towards the weights,
    ``mean += (theta - mean) * max(1 / t, 1 / num_experiences)``: a plain mean at first (Polyak & Juditsky
    1992), then an exponential one. A fit that a cap ends early has its mean all the same. Buffers
    of floating-point numbers, such as the running statistics of batch normalisation, are averaged
    alike, as they describe the activations under the weights that are averaged. Others, such as
    counters, stay the last ones.

    Args:
        horizon_steps: Steps over which the mean forgets.

    Attributes:
        last: The module's state when the fit ended, before the mean took its place: where the next
            update goes on; ``None`` before.
    """

    def __init__(self, horizon_steps: float) -> None:
        self.last: dict[str, torch.Tensor] | None = None
        self._horizon = max(1.0, horizon_steps)
        self._mean: list[torch.Tensor] = []
        self._taken = 0
        self._global_step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Take the weights into the mean, where an optimizer has made a step."""
        if trainer.global_step == self._global_step:
            return  # gradients are being accumulated
        self._global_step = trainer.global_step
        self._taken += 1
        if self._taken == 1:
            self._mean = [each.clone() for each in _averaged(pl_module)]
            return
        decay = 1.0 - max(1.0 / self._taken, 1.0 / self._horizon)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(self._mean, _averaged(pl_module), self._taken)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the mean in place of the last weights."""
        if self._mean:
            self.last = {name: each.clone() for name, each in pl_module.state_dict().items()}
            for mine, mean in zip(_averaged(pl_module), self._mean, strict=True):
                mine.copy_(mean)


def _averaged(module: LightningModule) -> list[torch.Tensor]:
    tensors = [*module.parameters(), *module.buffers()]
    return [each.detach() for each in tensors if each.is_floating_point()]
