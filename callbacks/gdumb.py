"""GDumb: train from scratch on a greedily balanced memory only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset, default_collate

from greentrain.callbacks.base import Callback
from greentrain.callbacks.batch_parts import pair
from greentrain.callbacks.gradient_projection import GradientProjection
from greentrain.callbacks.output_term import OutputTerm
from greentrain.callbacks.parameter_anchor import ParameterAnchor
from greentrain.callbacks.replaced_training import (
    check_factory,
    experience_tensors,
    refuse_together,
)
from greentrain.callbacks.step_layers import wrap_training_step
from greentrain.errors import ConfigurationError
from greentrain.memory import ClassBalancedBuffer
from greentrain.units import whole_seed


class GDumb(Callback):
    """Train fresh weights on a balanced memory only: the control that every method must beat.

    Prabhu et al. 2020. One ``fit`` is one experience. At its start, samples of the experience enter
    a :class:`~greentrain.memory.ClassBalancedBuffer`, and the model gets fresh weights. Then each
    batch of the loader is replaced by as many stored samples. So the steps of the fit are spent on
    the memory, in shuffled passes. The paper trains once, when a prediction is wanted: train the
    last fit long, and the others for one step, to spend as little.

    Batches are ``(inputs, targets)``, each one tensor, and targets are classes. Optimizers start
    without moments in each fit. Each process stores a part of the samples that it sees. Those of a
    fit that fails stay stored.

    Args:
        make_model: Returns a module of the same architecture, with fresh weights.
        capacity: Most stored samples, shared equally among the classes.
        seed: Seed of the memory, of fresh weights and of the order of samples.

    Attributes:
        buffer: The stored samples, of this process.
        experiences: Fits that began.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if targets are no classes.

    Example:
        >>> GDumb(lambda: nn.Linear(2, 3), 500).buffer.max_size
        500
    """

    def __init__(
        self, make_model: Callable[[], nn.Module], capacity: int, *, seed: int = 0
    ) -> None:
        self.make_model = check_factory(make_model)
        self.seed = whole_seed(seed)
        self.buffer = ClassBalancedBuffer(capacity, seed=self.seed)
        self.experiences = 0
        self._in_fit = False
        self._stored: tuple[Tensor, Tensor] | None = None
        self._order = torch.zeros(0, dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(self.seed % 2**63)
        self._remove: Callable[[], None] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Replace the batches of training."""
        if stage != "fit":
            return
        kinds = (ParameterAnchor, OutputTerm, GradientProjection, GDumb)
        refuse_together(self, trainer, kinds, "GDumb starts each fit from fresh weights")
        self._close()
        self._remove = wrap_training_step(pl_module, self.layer, innermost=True)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Store the experience, and load fresh weights; a resumed fit does neither again."""
        if not self._in_fit:
            inputs, labels = experience_tensors(trainer, pair)
            if labels.is_floating_point():
                raise ConfigurationError(
                    f"targets are {labels.dtype}, and GDumb balances classes: it is not defined "
                    "for a regression; use a ReservoirBuffer and FULL_RETRAIN instead"
                )
            data = TensorDataset(inputs, labels)
            self.buffer.add(data, origin=f"experience {self.experiences}")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + self.experiences)
                fresh = self.make_model().state_dict()
            pl_module.load_state_dict(fresh)
            self.experiences += 1
            self._in_fit, self._order = True, self._order[:0]
        self._read_stored()

    def layer(self, step: Any, batch: Any, *rest: Any, **named: Any) -> Any:
        """Return the output of the training step for stored samples instead of the batch."""
        inputs, labels = pair(batch)
        assert self._stored is not None  # since the start of the fit
        stored, classes = self._stored
        while len(self._order) < min(len(inputs), len(classes)):
            further = torch.randperm(len(classes), generator=self._generator)
            self._order = torch.cat([self._order, further])
        chosen, self._order = self._order[: len(inputs)], self._order[len(inputs) :]
        replaced = [stored[chosen].to(inputs), classes[chosen].to(labels)]
        return step(replaced, *rest, **named)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the experience."""
        self._in_fit = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Restore the training step, and end the experience."""
        self._in_fit = False
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Restore the training step."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the stored samples, and where the pass over them is."""
        return {
            "in_fit": self._in_fit,
            "experiences": self.experiences,
            "buffer": self.buffer.state_dict(),
            "order": self._order,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint, also of the middle of a fit."""
        self._in_fit, self.experiences = state_dict["in_fit"], state_dict["experiences"]
        self.buffer.load_state_dict(state_dict["buffer"])
        self._order = state_dict["order"]
        self._generator.set_state(state_dict["generator"])

    def _read_stored(self) -> None:
        stored = self.buffer.select(lambda origin: True)
        rows = default_collate([stored[index] for index in range(len(self.buffer))])
        self._stored = (rows[0], rows[1])

    def _close(self) -> None:
        self._stored = None
        if self._remove is not None:
            self._remove()
            self._remove = None
