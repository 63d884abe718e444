"""Replay through feedback: the model itself generates the past that it rehearses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.der import check_tensors
from greentrain.callbacks.lwf import LwF
from greentrain.errors import ConfigurationError
from greentrain.memory import FeedbackNet
from greentrain.memory.pairs import check_pixels
from greentrain.methods import distillation_loss
from greentrain.methods.nearest_mean import check_classes


class ReplayThroughFeedback(LwF):
    """Rehearse the past on samples that the model itself generates: replay through feedback.

    van de Ven & Tolias 2018. The model contains a :class:`~greentrain.memory.FeedbackNet`, which
    classifies and generates, so no generator is trained apart from it. One ``fit`` is one
    experience. Each step also trains the net to generate the inputs of the batch. From the second
    fit on, the last model generates as many inputs as the batch has. They are learned in the same
    way, with its softened probabilities as targets. In the ``n``-th fit, the loss is ``loss / n +
    (1 - 1 / n) * replayed``. No past sample is stored.

    It is a callback and no buffer, as the generator is the model, which only a training step can
    train. It also works in the updates of a ``StreamTrainer``, which measure it.

    Args:
        make_model: Returns a module of the same architecture, for the teacher.
        net: Returns the ``FeedbackNet`` of a module; its attribute ``net`` unless given.
        temperature: Softness of the teacher's probabilities.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        experiences: Fits that ended.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if the net cannot learn a
            batch: targets are no classes, or inputs are not from 0 to 1.

    Example:
        >>> ReplayThroughFeedback(lambda: nn.Linear(2, 3)).experiences
        0
    """

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        *,
        net: Callable[[Any], nn.Module] | None = None,
        temperature: float = 2.0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(make_model, temperature=temperature, unpack=unpack, outputs=outputs)
        self.net = net

    def combined_loss(self, pl_module: Any, batch: Any, loss: Tensor) -> Tensor:
        """Return the loss with that of generation, and with that of generated samples.

        Raises:
            ConfigurationError: If the net cannot learn the samples of the batch.
        """
        inputs, labels = self.unpack(batch)
        net = self._feedback(pl_module)
        check_tensors(inputs, labels)
        check_classes(labels, net.classes)
        check_pixels(inputs, net.shape)
        loss = loss + net.losses(inputs).mean()
        if self._teacher is None:
            return loss
        generated = self._feedback(self._teacher).generate(len(inputs)).to(inputs)
        with torch.no_grad():
            target = self.outputs(self._teacher, generated).float()
        found = self.outputs(pl_module, generated).float()
        replayed = distillation_loss(found, target, temperature=self.temperature)
        replayed = replayed + net.losses(generated).mean()
        share = 1 / (self.experiences + 1)
        return share * loss + (1 - share) * replayed

    def _feedback(self, module: nn.Module) -> FeedbackNet:
        found = getattr(module, "net", None) if self.net is None else self.net(module)
        if not isinstance(found, FeedbackNet):
            raise ConfigurationError(
                f"the net of {type(module).__name__} is a {type(found).__name__}, and replay "
                "through feedback needs a model that generates; build the module on a "
                "greentrain.memory.FeedbackNet, as its attribute net or by net=lambda module: ..."
            )
        return found
