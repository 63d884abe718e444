"""Learning without forgetting: keep the outputs of the last model on the new data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.output_term import OutputTerm
from greentrain.callbacks.parameter_anchor import number_from
from greentrain.errors import ConfigurationError
from greentrain.methods import heads_loss, output_loss
from greentrain.methods.distillation import distillation_loss

Distance = Literal["distillation", "squared"]


class LwF(OutputTerm):
    """Keep the outputs of the last model on the new data: learning without forgetting.

    Li & Hoiem 2016. One ``fit`` is one experience. At its end, the weights become the teacher of
    the next fit. The first fit has no teacher and stays as it is. In the ``n``-th fit, the loss
    becomes ``loss / n + (1 - 1 / n) * distillation``, so each experience counts alike (van de Ven &
    Tolias 2019, section 3); ``weight`` gives a fixed term instead. It needs no past data. A step
    costs two forward passes more.

    Args:
        make_model: Returns a module of the same architecture, for the teacher.
        temperature: Softness of the teacher's probabilities.
        weight: Fixed weight of the term: ``loss + weight * distillation``.
        distance: ``"distillation"`` for logits of classes, ``"squared"`` for a regression.
        heads: The outputs of each experience, in order; each past head is distilled alone. All
            outputs are one head unless given.
        unpack: Returns inputs and targets of a batch.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        experiences: Fits that ended.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if there are more experiences
            than heads.

    Example:
        >>> lwf = LwF(lambda: torch.nn.Linear(2, 3))
        >>> lwf.temperature, lwf.experiences
        (2.0, 0)
    """

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        *,
        temperature: float = 2.0,
        weight: float | None = None,
        distance: Distance = "distillation",
        heads: Sequence[Sequence[int]] | None = None,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(unpack=unpack, outputs=outputs)
        if not callable(make_model):
            raise ConfigurationError(
                f"make_model is {make_model!r}; it must be a function that returns a module of the "
                "same architecture"
            )
        if distance not in get_args(Distance):
            raise ConfigurationError(
                f"distance is {distance!r}; it must be one of {', '.join(get_args(Distance))}"
            )
        if heads is not None and distance == "squared":
            raise ConfigurationError(
                "heads are groups of classes, and distance='squared' is for a regression; leave "
                "one of them out"
            )
        self.make_model = make_model
        self.temperature = number_from(temperature, "temperature", lowest=0.0, above=True)
        self.weight = None if weight is None else number_from(weight, "weight", lowest=0.0)
        self.distance = distance
        self.heads = heads
        self.experiences = 0
        self._weights: dict[str, torch.Tensor] | None = None
        self._teacher: nn.Module | None = None
        self._stepped = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the teacher, a fresh module with the weights after the last fit."""
        self._stepped = False
        if self._weights is None:
            return
        if self.heads is not None and len(self.heads) < self.experiences:
            raise ConfigurationError(
                f"heads has {len(self.heads)} entries, and {self.experiences} experiences have "
                "ended; give the outputs of each experience"
            )
        with torch.random.fork_rng(devices=[]):
            teacher = self.make_model()
        teacher.load_state_dict(self._weights)
        self._teacher = teacher.to(pl_module.device).eval().requires_grad_(False)

    def combined_loss(self, pl_module: Any, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss with the distillation term; the loss itself in the first fit."""
        if self._teacher is None:
            return loss
        inputs, _ = self.unpack(batch)
        with torch.no_grad():
            target = self.outputs(self._teacher, inputs).float()
        term = self._distance(self.outputs(pl_module, inputs).float(), target)
        if self.weight is not None:
            return loss + self.weight * term
        share = 1 / (self.experiences + 1)
        return share * loss + (1 - share) * term

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note that the fit trains."""
        self._stepped = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the weights for the teacher of the next fit."""
        if self._stepped:
            state = pl_module.state_dict()
            self._weights = {name: each.detach().cpu().clone() for name, each in state.items()}
            self.experiences += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the teacher."""
        return {"experiences": self.experiences, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the teacher from a checkpoint."""
        self.experiences = state_dict["experiences"]
        self._weights = state_dict["weights"]

    def _distance(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.distance == "squared":
            return output_loss(outputs, target)
        if self.heads is None:
            return distillation_loss(outputs, target, temperature=self.temperature)
        past = list(self.heads[: self.experiences])
        return heads_loss(outputs, target, past, temperature=self.temperature)

    def _close(self) -> None:
        self._teacher = None
        super()._close()
