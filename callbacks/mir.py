"""Maximally interfered retrieval: replay the stored samples that a step would harm most."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.der import check_tensors, target_loss
from greentrain.callbacks.parameter_anchor import trainable
from greentrain.callbacks.reservoir_term import ReservoirTerm
from greentrain.errors import ConfigurationError
from greentrain.methods import most_harmed
from greentrain.units import is_whole


class MIR(ReservoirTerm):
    """Replay the stored samples that the coming step would harm most: ER-MIR.

    Aljundi et al. 2019, "Online Continual Learning with Maximally Interfered Retrieval", algorithm
    1. For each batch, ``candidates`` stored samples are chosen at random. A trial step along the
    gradient of the batch alone shows how much the loss of each would rise. The ``batch_size``
    samples with the largest rise are replayed: ``loss + loss of the replayed samples``.

    A step costs a backward pass on the batch, two forward passes on the candidates, and a training
    pass on the replayed samples. The trial step takes the learning rate of the optimizer, without
    its moments. Each process has a reservoir; a resumed run continues with that of the first.

    Args:
        capacity: Most stored samples.
        candidates: Stored samples to choose from, at least ``batch_size``.
        batch_size: Stored samples to replay in a step.
        seed: Seed of the reservoir.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        reservoir: The stored inputs and targets.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> MIR(500).candidates
        50
    """

    def __init__(
        self,
        capacity: int,
        *,
        candidates: int = 50,
        batch_size: int = 10,
        seed: int = 0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(capacity, seed=seed, unpack=unpack, outputs=outputs)
        if not is_whole(batch_size, 1) or not is_whole(candidates, int(batch_size)):
            raise ConfigurationError(
                f"candidates is {candidates!r} and batch_size {batch_size!r}; both are whole "
                "numbers from 1 on, and there are at least as many candidates as are replayed"
            )
        self.candidates, self.batch_size = int(candidates), int(batch_size)
        self._rate = 0.0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the learning rate of the coming step."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def combined_loss(self, pl_module: Any, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss with that of the most harmed samples, and store the batch."""
        inputs, targets = self.unpack(batch)
        check_tensors(inputs, targets)
        if len(self.reservoir):
            stored, labels = self.reservoir.sample(self.candidates, inputs.device)
            chosen = most_harmed(
                loss,
                list(trainable(pl_module).values()),
                lambda: sample_losses(self.outputs(pl_module, stored).float(), labels),
                rate=self._rate,
                count=self.batch_size,
            )
            outputs = self.outputs(pl_module, stored[chosen]).float()
            loss = loss + target_loss(outputs, labels[chosen])
        self.reservoir.add(inputs, targets)
        return loss


def sample_losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each sample: of classes, or the squared error of a regression."""
    if targets.is_floating_point():
        return (outputs - targets.to(outputs)).square().flatten(1).mean(dim=1)
    return cross_entropy(outputs, targets, reduction="none")
