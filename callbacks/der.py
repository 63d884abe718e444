"""Dark experience replay: replay stored samples with the outputs that the model had for them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy, mse_loss

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.parameter_anchor import number_from
from greentrain.callbacks.reservoir_term import ReservoirTerm
from greentrain.errors import ConfigurationError
from greentrain.methods import output_loss
from greentrain.units import is_whole


class DER(ReservoirTerm):
    """Replay stored samples with the outputs that the model had for them: DER and DER++.

    Buzzega et al. 2020, algorithms 1 and 2. The loss becomes ``loss + alpha * mse(outputs, stored
    outputs) + beta * loss(outputs, stored targets)``. Each term has other stored samples,
    chosen at random. Samples of each batch enter a reservoir with the outputs of that moment, so no
    border between experiences is needed. DER has ``beta=0``, DER++ a positive one.

    A step costs one forward pass more for the outputs, and one or two training passes on stored
    samples. The reservoir takes the bytes of ``capacity`` samples. Each process has a reservoir for
    its samples; a resumed run continues with that of the first process.

    Args:
        capacity: Most stored samples.
        alpha: Weight of the stored outputs, 0 or more.
        beta: Weight of the stored targets, 0 or more: whole numbers are classes, others a
            regression.
        batch_size: Stored samples in a term; as many as the batch has unless given.
        seed: Seed of the reservoir.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        reservoir: The stored inputs, targets and outputs.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if inputs, targets or outputs
            are no tensors.

    Example:
        >>> der = DER(200, beta=0.5)
        >>> len(der.reservoir), der.alpha, der.beta
        (0, 0.5, 0.5)
    """

    def __init__(
        self,
        capacity: int,
        *,
        alpha: float = 0.5,
        beta: float = 0.0,
        batch_size: int | None = None,
        seed: int = 0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(capacity, seed=seed, unpack=unpack, outputs=outputs)
        self.alpha = number_from(alpha, "alpha", lowest=0.0)
        self.beta = number_from(beta, "beta", lowest=0.0)
        if batch_size is not None and not is_whole(batch_size, 1):
            raise ConfigurationError(
                f"batch_size is {batch_size!r}; it must be a whole number from 1 on"
            )
        self.batch_size = batch_size

    def combined_loss(self, pl_module: Any, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss with the terms of stored samples, and store the batch."""
        inputs, targets = self.unpack(batch)
        check_tensors(inputs, targets)
        size = self.batch_size or len(inputs)
        with torch.no_grad():
            now = self.outputs(pl_module, inputs).float()
        if len(self.reservoir):
            if self.alpha:
                stored, _, logits = self.reservoir.sample(size, inputs.device)
                loss = loss + self.alpha * output_loss(
                    self.outputs(pl_module, stored).float(), logits
                )
            if self.beta:
                stored, labels, _ = self.reservoir.sample(size, inputs.device)
                term = target_loss(self.outputs(pl_module, stored).float(), labels)
                loss = loss + self.beta * term
        self.reservoir.add(inputs, targets, now)
        return loss


def target_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of classes, or the mean squared error of a regression."""
    if targets.is_floating_point():
        return mse_loss(outputs, targets.to(outputs))
    return cross_entropy(outputs, targets)


def check_tensors(inputs: object, targets: object) -> None:
    """Refuse a batch whose inputs or targets are no tensors.

    Raises:
        ConfigurationError: If one of them is none.
    """
    for name, each in (("inputs", inputs), ("targets", targets)):
        if not isinstance(each, torch.Tensor) or not each.ndim:
            raise ConfigurationError(
                f"the {name} of a batch are a {type(each).__name__}, and only tensors of samples "
                "can be stored; give unpack=lambda batch: (inputs, targets)"
            )
