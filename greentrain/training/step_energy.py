"""What the steps of an update draw, from a few readings of the meter."""

from __future__ import annotations

import logging
from typing import Any

from pytorch_lightning import Trainer

from greentrain.callbacks.base import Callback
from greentrain.energy import WindowRecorder
from greentrain.units import format_energy

_log = logging.getLogger(__name__)

WARM_UP_STEPS = 2
"""Steps that are not counted: the first ones allocate and compile."""
PROJECTED_AFTER = 20
"""Steps, besides these, after which an update's joules are projected anew."""


class StepEnergy(Callback):
    """Read the meter after the first steps and at the end of a fit.

    Args:
        recorder: Reads the meter.
        planned: Steps that are planned.
        beside_j: Joules that the update is expected to draw besides its steps; ``None`` where that
            is unknown.
    """

    def __init__(
        self, recorder: WindowRecorder, *, planned: int = 0, beside_j: float | None = None
    ) -> None:
        self._recorder = recorder
        self._planned = planned
        self._beside_j = beside_j
        self._steps = 0
        self._readings: dict[int, float] = {}
        self._ended_j: float | None = None

    @property
    def step_j(self) -> float | None:
        """Joules per step, from the third step to the last; ``None`` for fewer steps."""
        return self._between(max(self._readings, default=0))

    @property
    def projected_j(self) -> float | None:
        """Joules of the whole update as its first steps told them; ``None`` in a shorter one."""
        step_j = self._between(WARM_UP_STEPS + PROJECTED_AFTER)
        if step_j is None or self._beside_j is None:
            return None
        return self._beside_j + self._planned * step_j

    @property
    def ended_j(self) -> float | None:
        """Joules that the meter told when the steps had ended; ``None`` before."""
        return self._ended_j

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Read where something begins or ends."""
        self._steps += 1
        if self._steps in (WARM_UP_STEPS, WARM_UP_STEPS + PROJECTED_AFTER):
            self._read()
        if self._steps == WARM_UP_STEPS + PROJECTED_AFTER and self.projected_j is not None:
            _log.info(
                "after %d of %d steps the update is projected to draw %s",
                *(self._steps, self._planned, format_energy(self.projected_j)),
            )

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Read a last time."""
        self._ended_j = self._read()

    def _read(self) -> float:
        return self._readings.setdefault(self._steps, self._recorder.read().total_j or 0.0)

    def _between(self, last: int) -> float | None:
        if last <= WARM_UP_STEPS or not {WARM_UP_STEPS, last} <= self._readings.keys():
            return None
        drawn_j = self._readings[last] - self._readings[WARM_UP_STEPS]
        return drawn_j / (last - WARM_UP_STEPS)
