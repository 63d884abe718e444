"""What the steps of an update draw, from a few readings: no look ahead is as good as the start."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Trainer

from greentrain.callbacks.base import Callback
from greentrain.energy import WindowRecorder

WARM_UP_STEPS = 2
"""Steps that are not counted: the first ones allocate and compile."""
PROJECTED_AFTER = 20
"""Steps, besides these, after which an update's joules are projected anew."""


class StepGauge(Callback):
    """Read the meter after the first steps and at the end of a fit.

    Args:
        recorder: Reads the meter.
    """

    def __init__(self, recorder: WindowRecorder) -> None:
        self._recorder = recorder
        self._steps = 0
        self._readings: dict[int, float] = {}

    @property
    def step_j(self) -> float | None:
        """Joules per step, from the third step to the last; ``None`` for fewer steps."""
        return self._between(max(self._readings, default=0))

    @property
    def early_step_j(self) -> float | None:
        """Joules per step as the first steps told them; ``None`` in a shorter fit."""
        return self._between(WARM_UP_STEPS + PROJECTED_AFTER)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Read where something begins or ends."""
        self._steps += 1
        if self._steps in (WARM_UP_STEPS, WARM_UP_STEPS + PROJECTED_AFTER):
            self._read()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Read a last time."""
        self._read()

    def _read(self) -> None:
        self._readings.setdefault(self._steps, self._recorder.read().total_j or 0.0)

    def _between(self, last: int) -> float | None:
        if last <= WARM_UP_STEPS or not {WARM_UP_STEPS, last} <= self._readings.keys():
            return None
        drawn_j = self._readings[last] - self._readings[WARM_UP_STEPS]
        return drawn_j / (last - WARM_UP_STEPS)
