"""Read the meter at each step of a short fit, and end the fit once enough was measured."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from pytorch_lightning import Trainer

from greentrain.callbacks.base import Callback
from greentrain.energy import StepForecast, WindowRecorder
from greentrain.errors import ConfigurationError
from greentrain.units import is_number

FEWEST_STEPS = 24
"""Fewest steps of an estimate."""
_PARTS = 3
_PARTS_OF_AN_ESTIMATE = 6


class MeasuredSteps(Callback):
    """Read the meter at each step, and end the fit after enough steps and seconds.

    Args:
        recorder: Reads the meter.
        enough_steps: Fewest steps to measure.
        enough_s: Fewest seconds to measure.

    Attributes:
        used_j: Joules from the start to the end of each step.
        seconds: Seconds to the end of the last step.
    """

    def __init__(self, recorder: WindowRecorder, *, enough_steps: int, enough_s: float) -> None:
        self.used_j: list[float] = []
        self.seconds = 0.0
        self._recorder = recorder
        self._enough_steps = enough_steps
        self._enough_s = enough_s
        self._start = recorder.read()

    @property
    def joules_per_step(self) -> float:
        """Joules per step: the median over three parts of the steps, as one may have stalled."""
        used_j = [0.0, *self.used_j]
        edges = [round(part * (len(used_j) - 1) / _PARTS) for part in range(_PARTS + 1)]
        parts = [
            (used_j[end] - used_j[begin]) / (end - begin)
            for begin, end in itertools.pairwise(edges)
            if end > begin
        ]
        return max(0.0, statistics.median(parts)) if parts else 0.0

    def step_forecast(self, fit_j: float) -> StepForecast:
        """Return the energy of the steps in six equal parts, and of the fit around them.

        Args:
            fit_j: Joules of the whole fit.
        """
        length = max(1, len(self.used_j) // _PARTS_OF_AN_ESTIMATE)
        edges_j = [0.0, *self.used_j][::length]
        parts_j = [max(0.0, after - before) for before, after in itertools.pairwise(edges_j)]
        later_j = parts_j[1:] or parts_j  # what warming up costs is a part of each fit
        steps_j = len(self.used_j) * sum(later_j) / (length * max(1, len(later_j)))
        return StepForecast(
            parts_j=tuple(parts_j), part_steps=length, fixed_j=max(0.0, fit_j - steps_j)
        )

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Read the meter, and stop the fit on all ranks if this was enough for one of them."""
        used = self._recorder.read() - self._start
        self.used_j.append(used.total_j or 0.0)
        self.seconds = used.duration_s
        enough = len(self.used_j) >= self._enough_steps and used.duration_s >= self._enough_s
        if trainer.strategy.reduce_boolean_decision(enough, all=False):
            trainer.should_stop = True


def check_seconds(seconds: object) -> float:
    """Return seconds to measure, or refuse them.

    Raises:
        ConfigurationError: If they are no number above 0 and at most an hour.
    """
    if not (is_number(seconds) and 0 < float(seconds) <= 3600):  # type: ignore[arg-type]
        raise ConfigurationError(
            f"seconds is {seconds!r}; give the seconds to measure, above 0 and at most 3600"
        )
    return float(seconds)  # type: ignore[arg-type]
