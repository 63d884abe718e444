"""iCaRL: herded exemplars, distillation by sigmoids, and the nearest mean as classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset, default_collate

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.der import check_tensors
from greentrain.callbacks.output_term import OutputTerm
from greentrain.callbacks.parameter_anchor import measuring
from greentrain.callbacks.replaced_training import (
    check_factory,
    experience_tensors,
    refuse_together,
)
from greentrain.callbacks.step_layers import wrap_training_step
from greentrain.errors import ConfigurationError
from greentrain.memory import HerdingBuffer
from greentrain.methods.nearest_mean import check_classes, class_means, icarl_loss, mean_scores
from greentrain.units import is_whole, whole_seed


class ICaRL(OutputTerm):
    """Train by iCaRL's loss, and classify by the nearest mean of exemplars.

    Rebuffi et al. 2017. One ``fit`` is one experience. Its loss *replaces* that of
    ``training_step``, which is not called: binary cross-entropy of the new classes, and
    distillation of the last model's sigmoids for the old ones. Exemplars join each batch. The paper
    trains on the union of new data and exemplars instead, so its share of exemplars is smaller.

    At the end of a fit, exemplars are chosen by herding, and the mean feature of each class is
    computed. In ``trainer.validate``, ``test`` and ``predict``, ``module(inputs)`` returns minus
    the squared distances to these means, so its largest output is iCaRL's class. During a fit, it
    returns the outputs of the net.

    A class is new in a fit if its batches bring it. An old class whose samples come again counts
    as new. The end of a fit holds the data of the experience in memory once.

    Args:
        make_model: Returns a module of the same architecture, for the teacher.
        features: Returns the features of inputs, ``(batch, features)``, given the module and
            inputs: usually the module without its last layer.
        capacity: Most exemplars, shared equally among the classes.
        batch_size: Exemplars in a step; as many as the batch has unless given.
        seed: Seed of the exemplars in a step.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        buffer: The exemplars, of this process.
        experiences: Fits that ended.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if targets are no classes.

    Example:
        >>> icarl = ICaRL(lambda: nn.Linear(2, 3), lambda module, inputs: inputs, capacity=100)
        >>> icarl.buffer.max_size, icarl.experiences
        (100, 0)
    """

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        features: Outputs,
        *,
        capacity: int = 2000,
        batch_size: int | None = None,
        seed: int = 0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(unpack=unpack, outputs=outputs)
        self.make_model = check_factory(make_model)
        if not callable(features):
            raise ConfigurationError(
                f"features is {features!r}; it must be a function of a module and inputs, such as "
                "lambda module, inputs: module.backbone(inputs)"
            )
        if batch_size is not None and not is_whole(batch_size, 1):
            raise ConfigurationError(
                f"batch_size is {batch_size!r}; it must be a whole number from 1 on"
            )
        self.features, self.batch_size = features, batch_size
        self.buffer = HerdingBuffer(capacity, seed=seed)
        self.experiences = 0
        self._generator = torch.Generator().manual_seed(whole_seed(seed) % 2**63)
        self._weights: dict[str, Tensor] | None = None
        self._means: tuple[Tensor, Tensor] | None = None
        self._exemplars: tuple[Tensor, Tensor] | None = None
        self._teacher: nn.Module | None = None
        self._new: Tensor | None = None
        self._restore: Callable[[], None] | None = None
        self._own_outputs = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Replace the training step in a fit, and the outputs in other stages."""
        if stage != "fit":
            self._replace_outputs(pl_module)
            return
        refuse_together(self, trainer, (ICaRL,), "each replaces the loss")
        super().setup(trainer, pl_module, stage)

    def wrapped(self, pl_module: Any, layer: Callable[..., Any]) -> Callable[[], None]:
        """Replace the step itself: other callbacks add to iCaRL's loss."""
        return wrap_training_step(pl_module, layer, innermost=True)

    def layer(self, pl_module: Any, step: Any, batch: Any, *rest: Any, **named: Any) -> Tensor:
        """Return iCaRL's loss of a batch instead of that of the training step."""
        return self.combined_loss(pl_module, batch, torch.zeros(()))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the teacher, a fresh module with the weights after the last fit."""
        self._new = None
        if self._weights is not None:
            with torch.random.fork_rng(devices=[]):
                teacher = self.make_model()
            teacher.load_state_dict(self._weights)
            self._teacher = teacher.to(pl_module.device).eval().requires_grad_(False)

    def combined_loss(self, pl_module: Any, batch: Any, loss: Tensor) -> Tensor:
        """Return iCaRL's loss of a batch and of some exemplars; ``loss`` is not used."""
        inputs, labels = self.unpack(batch)
        check_tensors(inputs, labels)
        arrived = labels
        if self._exemplars is not None:
            stored, classes = self._exemplars
            size = min(self.batch_size or len(inputs), len(classes))
            chosen = torch.randperm(len(classes), generator=self._generator)[:size]
            inputs = torch.cat([inputs, stored[chosen].to(inputs)])
            labels = torch.cat([labels, classes[chosen].to(labels)])
        logits = self.outputs(pl_module, inputs).float()
        check_classes(labels, logits.shape[1])
        new, old = self._classes(arrived, logits)
        target = None
        if self._teacher is not None:
            with torch.no_grad():
                target = self.outputs(self._teacher, inputs).float()
        return icarl_loss(logits, labels, new=new, old=old, teacher=target)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Choose exemplars, compute the means, and keep the weights for the next teacher."""
        if self._new is None:
            return  # no step was trained
        inputs, labels = experience_tensors(trainer, self.unpack)

        def features(part: Tensor) -> Tensor:
            return self.features(pl_module, part.to(pl_module.device)).detach()

        with measuring(pl_module):
            self.buffer.features = features
            origin = f"experience {self.experiences}"
            self.buffer.add(TensorDataset(inputs, labels), origin=origin)
            self.buffer.features = None
            self._read_exemplars()
            stored, classes = self._exemplars or (inputs, labels)
            with torch.no_grad():
                found = torch.cat([features(part).cpu() for part in torch.split(stored, 256)])
        self._means = class_means(found, classes, len(self._new))
        state = pl_module.state_dict()
        self._weights = {name: each.detach().cpu().clone() for name, each in state.items()}
        self.experiences += 1

    def scores(self, pl_module: Any, inputs: Tensor) -> Tensor:
        """Return minus the squared distance to the mean of each class, ``(batch, classes)``.

        Raises:
            ConfigurationError: If no fit has ended yet.
        """
        if self._means is None:
            raise ConfigurationError(
                "iCaRL has no exemplars yet, so it cannot classify; train one experience first"
            )
        means, known = (each.to(inputs.device) for each in self._means)
        return mean_scores(self.features(pl_module, inputs), means, known)

    def state_dict(self) -> dict[str, Any]:
        """Return exemplars, means, and the weights of the teacher."""
        return {
            "experiences": self.experiences,
            "weights": self._weights,
            "means": None if self._means is None else list(self._means),
            "buffer": self.buffer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint, also of the middle of a fit."""
        self.experiences, self._weights = state_dict["experiences"], state_dict["weights"]
        means = state_dict["means"]
        self._means = None if means is None else (means[0], means[1])
        self.buffer.load_state_dict(state_dict["buffer"])
        self._generator.set_state(state_dict["generator"])
        self._read_exemplars()

    def _classes(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether each class is new in this fit, and whether it is distilled."""
        if self._new is None:
            self._new = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        self._new[labels] = True
        old = torch.zeros_like(self._new)
        if self._means is not None:
            old = self._means[1].to(old.device) & ~self._new
        return self._new, old

    def _read_exemplars(self) -> None:
        stored = self.buffer.select(lambda origin: True)
        if len(self.buffer):
            rows = default_collate([stored[index] for index in range(len(self.buffer))])
            self._exemplars = (rows[0], rows[1])

    def _replace_outputs(self, pl_module: Any) -> None:
        if self._means is None or self._restore is not None:
            return
        own, before = pl_module.forward, vars(pl_module).get("forward")

        def forward(inputs: Tensor) -> Tensor:
            if self._own_outputs:  # called by the user's features
                return own(inputs)  # type: ignore[no-any-return]
            self._own_outputs = True
            try:
                return self.scores(pl_module, inputs)
            finally:
                self._own_outputs = False

        def restore() -> None:
            del pl_module.forward
            if before is not None:
                pl_module.forward = before

        pl_module.forward, self._restore = forward, restore

    def _close(self) -> None:
        self._teacher = None
        if self._restore is not None:
            self._restore()
            self._restore = None
        super()._close()
