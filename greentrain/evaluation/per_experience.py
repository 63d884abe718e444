"""Record the metric on each experience separately, to compute forgetting and transfer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import Dataset

from greentrain.evaluation.evaluator import Evaluator
from greentrain.memory import size
from greentrain.metrics import (
    AccuracyMatrix,
    average_accuracy,
    backward_transfer,
    forgetting,
)
from greentrain.tracking import names


class PerExperienceMetrics:
    """Fill a matrix of scores during a stream.

    Args:
        more_is_better: Whether a larger metric is a better one; else a score is its negative.

    Attributes:
        matrix: Scores after experience i on the kept held-out data of experience j. The score on an
            experience before training on it is in the row above.
    """

    def __init__(self, *, more_is_better: bool) -> None:
        self.matrix = AccuracyMatrix()
        self._sign = 1.0 if more_is_better else -1.0

    def add_before(self, number: int, metric: float) -> None:
        """Record the metric on experience ``number`` before training on it."""
        if number:
            self._enter(number - 1, number, self._sign * metric)

    def add_after(self, number: int, metrics: Iterable[float | None]) -> None:
        """Record the metrics of the model after experience ``number`` on each one up to it."""
        for on, metric in enumerate(metrics):
            self._enter(number, on, None if metric is None else self._sign * metric)

    def evaluate(
        self, evaluator: Evaluator, model: LightningModule, datasets: Sequence[Dataset[Any]]
    ) -> None:
        """Record the metric of a model on the held-out data of each experience so far."""
        metrics = [evaluator.metric(model, each) if size(each) else None for each in datasets]
        self.add_after(len(datasets) - 1, metrics)

    def repeat(self, number: int) -> None:
        """Repeat the last scores for experience ``number``, after which the model is unchanged."""
        scores = self._scores().tolist()
        if 0 < number <= len(scores):
            for on, score in enumerate(scores[number - 1]):
                self._enter(number, on, score)

    def withdraw(self, number: int) -> None:
        """Drop experience ``number``, whose data could not be stored, so that it may come again.

        If a model was trained on it, the scores of that model replace those before it.
        """
        scores = self._scores()[: number + 1, :number].tolist()
        self.matrix.reset()
        for after, row in enumerate(scores):
            for on, score in enumerate(row):
                self._enter(min(after, number - 1), on, score)

    def summary(self) -> dict[str, float]:
        """Return the known summary metrics of the scores, by their MLflow names."""
        scores = self._scores()
        known = {
            names.AVERAGE: average_accuracy(scores),
            names.FORGETTING: forgetting(scores),
            names.BACKWARD_TRANSFER: backward_transfer(scores),
        }
        return {name: value for name, value in known.items() if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        """Return the scores."""
        return dict(self.matrix.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.matrix.load_state_dict(state)

    def _scores(self) -> Tensor:
        # torchmetrics warns if a metric is computed before its first update.
        return self.matrix.compute() if self.matrix.update_called else torch.empty(0, 0)

    def _enter(self, after: int, on: int, score: float | None) -> None:
        if score is not None and math.isfinite(score):
            self.matrix.update(after=after, on=on, value=score)
