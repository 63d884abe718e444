"""Measure the slope of a training curve and the growth of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.parameter import is_lazy

POINTS = 256
"""Largest number of points of a learning curve."""
TENTHS = 10
"""Smallest number of values of a curve that has a last tenth."""


def learning_slope(values: Sequence[float]) -> float | None:
    """Return the slope of a learning curve at its end.

    It is the mean of the last tenth of the values less the mean of the tenth before, so no single
    batch decides it. The slope of a loss is negative during learning, and about 0 at its end.

    Args:
        values: A value for each batch, or for equally many batches, in order. Values that are not
            finite are left out.

    Returns:
        The change per tenth of the curve, in the unit of the values; ``None`` for fewer than ten.

    Example:
        >>> learning_slope([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5])
        -0.5
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if len(finite) < TENTHS:
        return None
    tenth = len(finite) // TENTHS
    slope = _mean(finite[-tenth:]) - _mean(finite[-2 * tenth : -tenth])
    return slope if math.isfinite(slope) else None


def weight_norm(model: nn.Module) -> float:
    """Return the Euclidean norm of all parameters of a model taken together.

    It grows during continued training, and the ability to learn decreases with it (Dohare et al.
    2024, "Loss of plasticity in deep continual learning").

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(model.weight, 2.0), nn.init.constant_(model.bias, 1.0)
        >>> round(weight_norm(model), 6)  # the root of 4 + 4 + 1
        3.0
    """
    norms = [
        torch.linalg.vector_norm(each.detach(), dtype=torch.float64)
        for each in model.parameters()
        if not is_lazy(each)
    ]
    if not norms:
        return 0.0
    return float(
        torch.linalg.vector_norm(torch.stack([each.to(norms[0].device) for each in norms]))
    )


def weight_growth(norm: float, reference: float | None) -> float | None:
    """Return the growth of a norm since a reference, as a share of the reference.

    Args:
        norm: The norm now.
        reference: The norm then, such as after the last full retraining; ``None`` before any.

    Returns:
        The growth; ``None`` if the reference is unknown or 0, or a norm is not finite.

    Example:
        >>> weight_growth(12.0, 10.0)
        0.2
    """
    if reference is None or not reference > 0:
        return None
    growth = (norm - reference) / reference
    return growth if math.isfinite(growth) else None


class LossCurve(Callback):
    """Record the training loss of all batches of a fit in little memory.

    Losses stay on their device, so a GPU is not waited for before the curve is read. With more than
    :data:`POINTS`, neighbours are averaged, so a point is the mean of 1, 2, 4, ... batches. A last
    point that is not full is left out. Under several ranks the curve is that of one rank, and
    processes of ``ddp_spawn`` do not return theirs.

    A ``training_step`` that returns no loss leaves the curve empty.
    """

    def __init__(self) -> None:
        self._points: list[torch.Tensor] = []
        self._sum: torch.Tensor | None = None
        self._summed = 0
        self._each = 1

    @property
    def values(self) -> list[float]:
        """The mean losses of equally many batches each, in order; reading waits for a GPU."""
        return torch.stack(self._points).tolist() if self._points else []

    @property
    def slope(self) -> float | None:
        """See :func:`learning_slope`."""
        return learning_slope(self.values)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Take the loss of a batch into the curve."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            return
        # Lightning has divided it by the batches that gradients are accumulated over.
        factor = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        loss = loss.detach().reshape(()).float() * factor
        self._sum = loss if self._sum is None else self._sum + loss
        self._summed += 1
        if self._summed < self._each:
            return
        self._points.append(self._sum / self._each)
        self._sum, self._summed = None, 0
        if len(self._points) == 2 * POINTS:
            self._points = list(torch.stack(self._points).reshape(POINTS, 2).mean(1))
            self._each *= 2


def _mean(values: Sequence[float]) -> float:
    return math.fsum(value / len(values) for value in values)  # the sum of huge ones is infinite
