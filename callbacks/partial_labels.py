"""Train on the samples of a batch that have no labels, by pseudo-labels and consistency."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from greentrain.callbacks.base import Callback
from greentrain.callbacks.step_layers import wrap_training_step
from greentrain.errors import ConfigurationError
from greentrain.methods import (
    calibrated_threshold,
    consistency_loss,
    has_label,
    pseudo_labels,
    strongly_augmented,
    weakly_augmented,
)
from greentrain.units import is_number, is_whole

_DEFAULT = 0.95
"""Threshold before a calibration; the value of FixMatch's authors."""
_CALIBRATED_ON = 2048
"""Most validation samples that a threshold is calibrated on."""


class PartialLabels(Callback):
    """Train on samples with and without labels in the same batches, by FixMatch's recipe.

    A batch is ``(inputs, targets)``. A target below 0, or NaN, is a missing label. The module's own
    ``training_step`` gets the samples with labels. Each other sample is weakly augmented and
    predicted. If its probability reaches the threshold, the prediction is the label of the strongly
    augmented sample, and its loss is added (Sohn et al. 2020, arXiv 2001.07685). Other samples
    cost no second forward pass. The recipe has a fixed number of samples with labels in each
    batch: see :class:`greentrain.methods.PartialBatches`.

    Args:
        threshold: Smallest probability of a pseudo-label, in (0, 1], or ``"calibrated"``: the
            lowest one at which validation predictions have the ``precision``; 0.95 before the
            first validation.
        precision: Share of right predictions for ``"calibrated"``, in (0, 1].
        weight: Weight of the loss of pseudo-labels, above 0.
        warm_up: Steps over which this weight grows in a line from 0.
        augment: Whether the samples with labels are weakly augmented, too, as in the recipe.
        weak: Augments a batch of inputs a little; by default
            :func:`greentrain.methods.weakly_augmented` for images.
        strong: Augments a batch of inputs strongly; by default
            :func:`greentrain.methods.strongly_augmented` for images.

    Attributes:
        labels: Samples with labels that were trained on, counted in each epoch.
        pseudo: Samples that were trained on with pseudo-labels, and all without labels.
        current: The threshold in use.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if the batches have another
            form, several processes train, or a whole epoch has no label.

    Example:
        >>> partial = PartialLabels(threshold=0.9)
        >>> partial.current
        0.9
    """

    def __init__(
        self,
        threshold: float | Literal["calibrated"] = _DEFAULT,
        *,
        precision: float = 0.95,
        weight: float = 1.0,
        warm_up: int = 0,
        augment: bool = True,
        weak: Callable[[Tensor], Tensor] | None = None,
        strong: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if threshold != "calibrated" and not (is_number(threshold) and 0 < threshold <= 1):
            raise ConfigurationError(
                f"threshold is {threshold!r}; it must be 'calibrated', or above 0 and at most 1"
            )
        if not (is_number(precision) and 0 < precision <= 1):
            raise ConfigurationError(f"precision is {precision!r}; it must be in (0, 1]")
        if not (is_number(weight) and 0 < weight < float("inf")):
            raise ConfigurationError(f"weight is {weight!r}; it must be above 0")
        if not is_whole(warm_up):
            raise ConfigurationError(
                f"warm_up is {warm_up!r}; it must be a number of steps, 0 or more"
            )
        if augment not in (True, False):
            raise ConfigurationError(f"augment is {augment!r}; it must be True or False")
        self.warm_up, self.augment = int(warm_up), bool(augment)
        self.threshold = threshold
        self.precision, self.weight = float(precision), float(weight)
        self.weak = weakly_augmented if weak is None else weak
        self.strong = strongly_augmented if strong is None else strong
        self.labels = 0
        self.pseudo = (0, 0)
        self.current = _DEFAULT if threshold == "calibrated" else float(threshold)
        self._steps = 0
        self._classes: set[int] = set()
        self._outputs = 0
        self._scores: list[tuple[Tensor, Tensor]] = []
        self._restore: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check the fit, and wrap its training step."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"the fit has {trainer.world_size} processes, and PartialLabels may skip a batch "
                "on one of them; give devices=1, or leave it out"
            )
        if not pl_module.automatic_optimization:
            raise ConfigurationError(
                "the module has manual optimization, to whose loss PartialLabels cannot add; leave "
                "it out"
            )
        self._restore = wrap_training_step(pl_module, functools.partial(self._step, pl_module))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Refuse data without any label, and log what was used."""
        if not self.labels:
            raise ConfigurationError(
                f"none of the {self.pseudo[1]} samples of the first epoch has a label, and "
                "predictions cannot start from nothing; label some first, for instance those that "
                "greentrain.methods.k_center chooses"
            )
        if self.pseudo[1] and self._classes == {1} and self._outputs == 2:
            raise ConfigurationError(
                "all labels of the first epoch are 1, so -1 seems to be a class; number the "
                "classes from 0, as -1 is a missing label"
            )
        self.log("labels_used", float(self.labels))
        if self.pseudo[1]:
            self.log("pseudo_labels_used", self.pseudo[0] / self.pseudo[1])

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Predict validation samples with labels, if the threshold is calibrated."""
        seen = sum(len(right) for _, right in self._scores)
        if self.threshold != "calibrated" or trainer.sanity_checking or seen >= _CALIBRATED_ON:
            return
        inputs, targets = _parts(batch)
        known = has_label(targets)
        if bool(known.any()):
            with torch.no_grad():
                best, classes = _logits(pl_module, inputs[known]).float().softmax(1).max(1)
            self._scores.append((best.cpu(), (classes == targets[known]).cpu()))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Calibrate the threshold."""
        if self._scores:
            best, right = (torch.cat(parts) for parts in zip(*self._scores, strict=True))
            self.current = calibrated_threshold(best, right, precision=self.precision)
            self._scores = []

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Unwrap the training step."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Unwrap the training step."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the counts and the threshold, for a checkpoint."""
        return {
            "labels": self.labels,
            "pseudo": list(self.pseudo),
            "current": self.current,
            "steps": self._steps,
            "classes": sorted(self._classes),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.labels, self.pseudo = state_dict["labels"], tuple(state_dict["pseudo"])
        self.current = state_dict["current"]
        self._steps = state_dict.get("steps", 0)  # not in a state of an earlier release
        self._classes = set(state_dict.get("classes", ()))

    def _close(self) -> None:
        if self._restore is not None:
            self._restore()
            self._restore = None

    def _step(self, module: Any, step: Any, batch: Any, *rest: Any) -> Any:
        """Run the training step on the samples with labels, and add the loss of the others."""
        inputs, targets = _parts(batch)
        known = has_label(targets)
        output = None
        if bool(known.any()):
            found = inputs[known]
            part = (self.weak(found) if self.augment else found, targets[known])
            if len(self._classes) < 2:
                self._classes.update(targets[known].tolist())
            output = step(list(part) if isinstance(batch, list) else part, *rest)
            self.labels += int(known.sum())
        more = self._consistency(module, inputs[~known]) if self.labels else None
        self._steps += 1
        if not self.labels:
            self.pseudo = (0, self.pseudo[1] + len(inputs))
        if more is None:
            return output
        if output is None:
            return more
        if isinstance(output, Mapping):
            return {**output, "loss": output["loss"] + more}
        return output + more

    def _consistency(self, module: Any, inputs: Tensor) -> Tensor | None:
        """Return the weighted loss of samples without labels; ``None`` if none is confident."""
        if not len(inputs):
            return None
        with torch.no_grad():
            weak = _logits(module, self.weak(inputs))
        self._outputs = weak.shape[1]
        classes, confident = pseudo_labels(weak, self.current)
        count = int(confident.sum())
        self.pseudo = (self.pseudo[0] + count, self.pseudo[1] + len(inputs))
        if not count:
            return None
        strong = _logits(module, self.strong(inputs[confident]))
        share = min(1.0, (self._steps + 1) / self.warm_up) if self.warm_up else 1.0
        return self.weight * share * consistency_loss(strong, classes[confident], len(inputs))


def _parts(batch: Any) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a batch."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        inputs, targets = batch
        if isinstance(inputs, Tensor) and isinstance(targets, Tensor) and targets.ndim == 1:
            if targets.is_floating_point():
                raise ConfigurationError(
                    f"the targets are {targets.dtype}, and a regression has no confidence that a "
                    "pseudo-label could be chosen by; give classes as whole numbers, or leave "
                    "PartialLabels out"
                )
            return inputs, targets
    raise ConfigurationError(
        "a batch is no pair of tensors (inputs, targets) with one target for each sample; give "
        "such batches, with -1 for a missing label: greentrain.methods.MissingAsMinusOne does so"
    )


def _logits(module: Any, inputs: Tensor) -> Tensor:
    logits = module(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        raise ConfigurationError(
            f"forward of {type(module).__name__} returns no logits of shape (batch, classes), two "
            "classes or more, and PartialLabels needs them for pseudo-labels; return them from it"
        )
    return logits
