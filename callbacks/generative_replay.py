"""Deep generative replay: rehearse the past on samples of a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from greentrain.callbacks.base import Callback
from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.der import check_tensors
from greentrain.callbacks.lwf import LwF
from greentrain.callbacks.replaced_training import experience_tensors
from greentrain.errors import ConfigurationError
from greentrain.memory import LearnedBuffer
from greentrain.methods import distillation_loss
from greentrain.methods.nearest_mean import check_classes


class GenerativeReplay(LwF):
    """Rehearse the past on samples of a generator: deep generative replay, and with distillation.

    Shin et al. 2017; van de Ven & Tolias 2018. One ``fit`` is one experience. From the second on,
    each step also trains on generated inputs, as many as the batch has. The last model labels them:
    by its class, or with ``distill`` by its softened probabilities. In the ``n``-th fit, the loss
    is ``loss / n + (1 - 1 / n) * replayed``. At the end of a fit, the generator learns the
    experience, next to its own samples of the past. This is a part of the fit and of its energy,
    and often its larger part. No past sample is stored.

    Args:
        make_model: Returns a module of the same architecture, for the teacher.
        buffer: The generator; another one for each process.
        distill: Whether generated inputs have the last model's probabilities as targets.
        temperature: Softness of these probabilities.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        experiences: Fits that ended.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if the generator cannot learn a
            batch: targets are no classes, or inputs are not from 0 to 1.

    Example:
        >>> from greentrain.memory import GenerativeBuffer
        >>> buffer = GenerativeBuffer(1000, classes=3, steps=10)
        >>> GenerativeReplay(lambda: nn.Linear(2, 3), buffer, distill=True).experiences
        0
    """

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        buffer: LearnedBuffer,
        *,
        distill: bool = False,
        temperature: float = 2.0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(make_model, temperature=temperature, unpack=unpack, outputs=outputs)
        check_generative(buffer)
        self.buffer, self.distill = buffer, distill

    def combined_loss(self, pl_module: Any, batch: Any, loss: Tensor) -> Tensor:
        """Return the loss with that of generated samples; the loss itself in the first fit.

        Raises:
            ConfigurationError: If the generator cannot learn the samples of the batch.
        """
        inputs, labels = self.unpack(batch)
        check_tensors(inputs, labels)
        check_classes(labels, self.buffer.classes)
        self.buffer.check(inputs, labels)
        if self._teacher is None:
            return loss
        generated, _ = self.buffer.generate(len(labels))
        generated = generated.to(inputs)
        with torch.no_grad():
            target = self.outputs(self._teacher, generated).float()
        found = self.outputs(pl_module, generated).float()
        if self.distill:
            term = distillation_loss(found, target, temperature=self.temperature)
        else:
            term = torch.nn.functional.cross_entropy(found, target.argmax(dim=1))
        share = 1 / (self.experiences + 1)
        return share * loss + (1 - share) * term

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the weights for the next teacher, and train the generator."""
        super().on_train_end(trainer, pl_module)
        if self._stepped:
            inputs, labels = experience_tensors(trainer, self.unpack)
            origin = f"experience {self.experiences}"
            self.buffer.add(TensorDataset(inputs, labels), origin=origin)
            self.buffer.learn()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the teacher, and the generator."""
        return {**super().state_dict(), "buffer": self.buffer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore teacher and generator from a checkpoint."""
        super().load_state_dict(state_dict)
        self.buffer.load_state_dict(state_dict["buffer"])


class LearnBuffer(Callback):
    """Train a generator on the data that wait in its buffer, at the start of a fit.

    For a :class:`~greentrain.memory.LearnedBuffer` with ``learn_at_once=False`` as the buffer of a
    ``StreamTrainer``: the energy of its training is a part of the next update's.

    Args:
        buffer: The buffer.

    Attributes:
        steps: Training steps of the generator so far.

    Raises:
        ConfigurationError: If the buffer learns no generator.

    Example:
        >>> from greentrain.memory import GenerativeBuffer
        >>> LearnBuffer(GenerativeBuffer(100, learn_at_once=False)).steps
        0
    """

    def __init__(self, buffer: LearnedBuffer) -> None:
        self.buffer = check_generative(buffer)
        self.steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Train the generator."""
        self.steps += self.buffer.learn()


def check_generative(buffer: object) -> LearnedBuffer:
    """Return a buffer that generates.

    Raises:
        ConfigurationError: If it is another one.
    """
    if not isinstance(buffer, LearnedBuffer):
        raise ConfigurationError(
            f"buffer is a {type(buffer).__name__}; give a GenerativeBuffer, and another buffer to "
            "StreamTrainer(buffer=...) or to a method that stores samples"
        )
    return buffer
