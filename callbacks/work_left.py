"""Estimate how many seconds of training are left in a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from greentrain.callbacks.messages import warn

_EPOCHS = 5
"""Last epochs of which the longest counts."""
_FIRST_BATCHES = 10


class WorkLeft:
    """Seconds of training that are left, by the epochs or batches measured so far.

    Pauses do not count. The longest of the last epochs is used, as an estimate that is too short
    misses a deadline.

    Args:
        duration_s: Expected seconds of the whole fit; ``None`` if unknown.
    """

    def __init__(self, duration_s: float | None) -> None:
        self._duration_s = duration_s
        self._epochs_s: list[float] = []
        self._epoch_s = 0.0  # of the present epoch
        self._batches, self._batches_s = 0, 0.0
        self._whole = True
        self._done_s = 0.0
        self._mark: datetime | None = None
        self._late = False

    def started(self, trainer: Any, now: datetime) -> None:
        """Begin to measure; an epoch that was continued is not measured as a whole."""
        self._whole = not getattr(trainer.fit_loop, "restarted_mid_epoch", False)
        self._mark = now

    def resumed(self, now: datetime) -> None:
        """Leave out the time of a pause."""
        self._mark = now

    def batch(self, now: datetime) -> None:
        """Count a batch, with what was before it."""
        passed_s = self._pass(now)
        self._batches, self._batches_s = self._batches + 1, self._batches_s + passed_s

    def epoch(self, now: datetime) -> None:
        """Count an epoch at its end."""
        self._pass(now)
        if self._whole:
            self._epochs_s = [*self._epochs_s, self._epoch_s][-_EPOCHS:]
        self._epoch_s, self._whole = 0.0, True

    def left_s(self, trainer: Any, *, ended: bool = False) -> float | None:
        """Return the seconds that are left; ``None`` if they are unknown.

        Args:
            trainer: The Trainer.
            ended: Whether the present epoch has ended.
        """
        batches = batches_left(trainer)
        per_epoch = float(trainer.num_training_batches)
        if batches == 0:
            return 0.0
        if self._epochs_s:
            longest_s = max(self._epochs_s)
            if math.isfinite(batches) and math.isfinite(per_epoch) and per_epoch:
                return longest_s * batches / per_epoch
            return longest_s * float(max(0, trainer.max_epochs - trainer.current_epoch - ended))
        if self._duration_s is not None:
            return max(self._duration_s - self._done_s, 0.0)
        if self._batches >= _FIRST_BATCHES and math.isfinite(batches):
            return self._batches_s / self._batches * batches
        return None

    def warn_if_late(self, work_s: float, left: timedelta) -> None:
        """Warn once if the training takes longer than the time until the deadline."""
        left_s = max(0.0, left.total_seconds())
        if self._late or work_s <= left_s:
            return
        self._late = True
        warn(
            f"CarbonAwarePause: the rest of the fit takes about {work_s / 3600:.1f} h and the "
            f"deadline is in {left_s / 3600:.1f} h, so it runs without a pause"
        )

    def batches_in(self, seconds: float) -> int:
        """Return how many batches take some seconds; 1 or more."""
        if not self._batches or not self._batches_s:
            return 1
        return max(1, int(seconds * self._batches / self._batches_s))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {"epochs_s": list(self._epochs_s), "done_s": self._done_s}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from the values of a checkpoint."""
        self._epochs_s, self._done_s = list(state["epochs_s"]), float(state["done_s"])

    def _pass(self, now: datetime) -> float:
        passed_s = 0.0 if self._mark is None else max(0.0, (now - self._mark).total_seconds())
        self._mark = now
        self._epoch_s += passed_s
        self._done_s += passed_s
        return passed_s


def batches_left(trainer: Any) -> float:
    """Return the training batches that are left; infinity if unknown."""
    done = trainer.fit_loop.epoch_loop.batch_progress.total.processed
    left = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        planned = float(trainer.max_epochs) * float(trainer.num_training_batches)
        left = planned - done if trainer.max_epochs else 0.0
    if trainer.max_steps >= 0:
        steps = trainer.max_steps - trainer.global_step
        left = min(left, steps * trainer.accumulate_grad_batches)
    return max(0.0, left)
