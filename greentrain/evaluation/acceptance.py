"""Accept a changed model by the test that updates pass."""

from __future__ import annotations

import copy
from typing import Any

from pytorch_lightning import LightningModule
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.evaluation.comparison import difference, worse
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.logged_metric import choose_metric
from greentrain.memory import size


class NotWorse:
    """Accept a model unless its metric is worse by more than one standard error.

    It is the test of updates: both models are measured on the same samples in the same blocks, see
    :func:`greentrain.evaluation.comparison.worse`.

    Args:
        val: Held-out samples.
        monitor: Name of the metric that the models log in validation.
        mode: ``"max"`` if a larger metric is better, ``"min"`` if a smaller one is. It may be
            omitted if the name shows it.
        batch_size: Samples of a batch.

    Attributes:
        gain: Improvement of the last model that was tested; ``None`` before.
        sd: Its standard error.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """

    def __init__(
        self, val: Dataset[Any], *, monitor: str, mode: str | None = None, batch_size: int = 256
    ) -> None:
        if not size(val):
            raise ConfigurationError("val has no samples; give held-out ones")
        self._sign = 1.0 if choose_metric([monitor], monitor, mode)[1] == "max" else -1.0
        self._val = val
        self._monitor, self._batch_size = monitor, batch_size
        self.gain: float | None = None
        self.sd: float | None = None

    def __call__(self, before: LightningModule, after: LightningModule) -> bool:
        """Return whether the second model may replace the first."""
        evaluator = Evaluator(
            monitor=self._monitor,
            options={"accelerator": "cpu"},
            loader={"batch_size": self._batch_size},
        )
        models = [_detached(each) for each in (before, after)]
        first, second = (evaluator.measure_as_one(each, [self._val]) for each in models)
        if first.sizes != second.sizes:  # only the first was measured without a Trainer
            first = evaluator.measure_as_one(models[0], [self._val])
        self.gain, self.sd = difference(first, second, sign=self._sign)
        return not worse(first, second, sign=self._sign)


def _detached(model: LightningModule) -> LightningModule:
    """Return a copy without the Trainer of a running fit."""
    trainer = getattr(model, "_trainer", None)
    return copy.deepcopy(model, {id(trainer): None}).cpu()
