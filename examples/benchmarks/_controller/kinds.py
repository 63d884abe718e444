"""The model of each stream, the metric that it logs, and the yardstick of the benchmark.

The yardstick is a metric on test samples, which the trainer never has. After each experience it is
on the test samples of all experiences so far. Of contradictory labels (stream i) only the present
ones count, so there it is on those of the experience alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from _continual.models import Perceptron
from pytorch_lightning import LightningModule
from torch.utils.data import TensorDataset
from torchmetrics.functional.classification import binary_auroc

from _controller.models import CifarCnn, Delay, Regression, SmallCnn
from greentrain.training import EvaluationConfig

Values = Callable[[LightningModule, Sequence[TensorDataset]], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The model of a stream, and its evaluation.

    Args:
        make: Makes a model with fresh weights.
        monitor: Name of the metric that the model logs.
        mode: Its direction.
        values: Evaluates a model on the test samples of each experience. The values are sums over
            samples, and the yardstick is their sum over the number of samples so far.
        direct: Whether the values are the yardstick itself after each of the experiences.
        evaluation: Held-out data by which the trainer compares models.
    """

    make: Callable[[], LightningModule]
    monitor: str = "val_acc"
    mode: Literal["max", "min"] = "max"
    values: Values = field(default_factory=lambda: right_of_each)
    direct: bool = False
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def kind_of(stream: str, *, logged: float | None = None) -> Kind:
    """Return the kind of a stream.

    Args:
        stream: Name of the stream.
        logged: Factor of the logged loss of stream l; 1 unless given.
    """
    if stream == "f":
        return Kind(make=Delay, monitor="val_auroc", values=auroc_so_far, direct=True)
    if stream == "i":
        # The user says here that the past no longer matters.
        present = EvaluationConfig(eval_on="current")
        return Kind(make=Perceptron, values=present_accuracy, direct=True, evaluation=present)
    if stream == "l":
        make = partial(Regression, logged=1.0 if logged is None else logged)
        return Kind(make=make, monitor="val_loss", mode="min", values=explained)
    if stream == "m":
        return Kind(make=CifarCnn)
    return Kind(make=SmallCnn if stream.endswith("_cnn") else Perceptron)


def right_of_each(model: LightningModule, tests: Sequence[TensorDataset]) -> list[float]:
    """Count the test samples of each experience that a model classifies correctly."""
    return [
        int((outputs.argmax(1) == labels).sum())
        for outputs, labels in zip(_outputs(model, tests), _targets(tests), strict=True)
    ]


def present_accuracy(model: LightningModule, tests: Sequence[TensorDataset]) -> list[float]:
    """Return the accuracy on the test samples of each experience alone."""
    right = right_of_each(model, tests)
    return [count / len(test) for count, test in zip(right, tests, strict=True)]


def explained(model: LightningModule, tests: Sequence[TensorDataset]) -> list[float]:
    """Return the sum of ``1 - squared error`` over the test samples of each experience.

    Targets have a variance of 1, so a model that always returns their mean has a sum of about 0.
    """
    return [
        round(float((1 - (outputs - targets) ** 2).sum()), 3)
        for outputs, targets in zip(_outputs(model, tests), _targets(tests), strict=True)
    ]


def auroc_so_far(model: LightningModule, tests: Sequence[TensorDataset]) -> list[float]:
    """Return the area under the ROC curve on the test samples of all experiences up to each."""
    outputs, targets = _outputs(model, tests), _targets(tests)
    return [
        round(float(binary_auroc(torch.cat(outputs[:end]), torch.cat(targets[:end]))), 6)
        for end in range(1, len(tests) + 1)
    ]


def _outputs(model: LightningModule, tests: Sequence[TensorDataset]) -> list[torch.Tensor]:
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = [
            torch.cat([model(part) for part in torch.split(test.tensors[0], 1000)])
            for test in tests
        ]
    model.train(was_training)
    return found


def _targets(tests: Sequence[TensorDataset]) -> list[Any]:
    return [test.tensors[1] for test in tests]
