"""Base of the callbacks that project gradients so that the loss on stored samples does not rise."""

from __future__ import annotations

import abc
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from greentrain.callbacks.base import Callback
from greentrain.callbacks.batch_parts import Outputs, Unpack, call, pair
from greentrain.callbacks.der import check_tensors, target_loss
from greentrain.callbacks.parameter_anchor import check_whole_parameters
from greentrain.errors import ConfigurationError
from greentrain.methods import TensorReservoir
from greentrain.methods.projection import assign_gradients, flattened
from greentrain.units import is_whole, whole_seed


class GradientProjection(Callback, abc.ABC):
    """Project gradients before each optimizer step: one subclass for each method.

    One ``fit`` is one experience. A uniform sample of its batches is stored at its end, so memory
    grows by ``per_experience`` samples with each. The gradients of the stored samples are computed
    just before each optimizer step. So accumulated gradients, gradients over several processes and
    those with a loss scale are right.

    Args:
        per_experience: Samples that are stored of each experience, on each process.
        batch_size: Stored samples that a gradient is computed with.
        seed: Seed of what is stored and sampled.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        memories: The stored inputs and targets of each experience that ended.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """

    def __init__(
        self,
        per_experience: int,
        *,
        batch_size: int = 128,
        seed: int = 0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        for name, value in (("per_experience", per_experience), ("batch_size", batch_size)):
            if not is_whole(value, 1):
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a whole number from 1 on"
                )
        self.per_experience, self.batch_size = int(per_experience), int(batch_size)
        self.seed = whole_seed(seed)
        self.unpack = unpack or pair
        self.outputs = outputs or call
        self.memories: list[TensorReservoir] = []
        self._new: TensorReservoir | None = None

    @abc.abstractmethod
    def references(self, pl_module: Any, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradients of stored samples, ``(parameters,)`` each."""

    @abc.abstractmethod
    def projected(self, gradient: torch.Tensor, references: list[torch.Tensor]) -> torch.Tensor:
        """Return the projected gradient, ``(parameters,)``."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check the strategy."""
        if stage == "fit":
            check_whole_parameters(type(self).__name__, trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check the optimizers, and begin to store an experience."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, torch.optim.LBFGS):
                raise MisconfigurationException(
                    f"{type(self).__name__} projects one gradient per step, and LBFGS computes "
                    "several in each; use another optimizer, such as Adam"
                )
        if self._new is None:
            self._new = self._reservoir(trainer.global_rank)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Project the gradients of one optimizer."""
        if not self.memories:
            return
        parameters = [
            each
            for group in optimizer.param_groups
            for each in group["params"]
            if each.requires_grad
        ]
        found = self.references(pl_module, parameters)
        if trainer.world_size > 1:
            found = [trainer.strategy.reduce(each, reduce_op="mean") for each in found]
        gradient = flattened([each.grad for each in parameters], parameters)
        assign_gradients(self.projected(gradient, found), parameters)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Store some samples of the batch."""
        inputs, targets = self.unpack(batch)
        check_tensors(inputs, targets)
        if self._new is not None:
            self._new.add(inputs, targets)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Protect what the experience stored from now on."""
        if self._new is not None and len(self._new):
            self.memories.append(self._new)
        self._new = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the fit without a new memory."""
        self._new = None

    def state_dict(self) -> dict[str, Any]:
        """Return the stored samples."""
        return {
            "memories": [each.state_dict() for each in self.memories],
            "new": None if self._new is None else self._new.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the stored samples from a checkpoint, also of the middle of a fit."""
        self.memories = [self._reservoir(0, each) for each in state_dict["memories"]]
        new = state_dict["new"]
        self._new = None if new is None else self._reservoir(0, new)

    def gradient_of(
        self,
        pl_module: Any,
        parameters: list[torch.Tensor],
        stored: tuple[torch.Tensor, ...],
    ) -> torch.Tensor:
        """Return the gradient of the loss on stored samples, ``(parameters,)``."""
        inputs, targets = stored
        with torch.enable_grad():
            loss = target_loss(self.outputs(pl_module, inputs).float(), targets)
        return flattened(torch.autograd.grad(loss, parameters, allow_unused=True), parameters)

    def _reservoir(self, rank: int, state: dict[str, Any] | None = None) -> TensorReservoir:
        seed = self.seed + 1000 * len(self.memories) + rank
        reservoir = TensorReservoir(self.per_experience, seed=seed)
        if state is not None:
            reservoir.load_state_dict(state)
        return reservoir
