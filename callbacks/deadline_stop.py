"""End a fit before a wall-clock deadline: the part of :class:`BudgetGuard` that is about time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from greentrain.callbacks.base import Callback, ReturnedResult
from greentrain.callbacks.deadline import check_clock, parse_deadline
from greentrain.callbacks.messages import inform, warn
from greentrain.callbacks.stop_reason import StopReason
from greentrain.callbacks.trainer_plan import (
    batch_steps,
    is_finished,
    validates,
    validation_batches,
)
from greentrain.errors import BudgetExceeded

_KEPT = 100
"""Last steps of which the longest counts."""
_MARGIN, _MARGIN_S = 0.1, 0.2


class DeadlineStop(Callback):
    """Stop a fit when one more step and the end of the fit may miss a deadline.

    Times are measured in this fit: the longest of the last steps, and the longest time between two
    steps, which includes validation and saving. Until then, a validation is estimated from the
    steps.

    Args:
        deadline: As for :func:`greentrain.callbacks.deadline.parse_deadline`; ``None`` for none.
        on_exceed: ``"stop"``, ``"warn"`` or ``"raise"``.
        clock: Returns the present time, aware.

    Attributes:
        stopped: Whether the fit was stopped.
        stop_reason: The :class:`StopReason`.
        reason: The same in one sentence.
        deadline: The deadline of the present or last fit, in UTC.
    """

    stopped = ReturnedResult()
    stop_reason = ReturnedResult()
    reason = ReturnedResult()

    def __init__(
        self, deadline: str | datetime | None, on_exceed: str, clock: Callable[[], datetime]
    ) -> None:
        self._deadline, self._clock, self.on_exceed = deadline, clock, on_exceed
        self.deadline: datetime | None = None
        if deadline is not None:
            parse_deadline(deadline, self._now(), "BudgetGuard(deadline)")
        self.stopped, self.stop_reason, self.reason = False, StopReason.NOT_STOPPED, ""
        self._edge: datetime | None = None
        self._begin_watch()

    def skip_gap(self) -> None:
        """Leave out the time since the last step: a pause of the training."""
        self._edge = self._now()

    def _now(self) -> datetime:
        return check_clock(self._clock(), "BudgetGuard")

    def _begin_watch(self) -> None:
        self._steps_s: deque[float] = deque(maxlen=_KEPT)
        self._gap_s: float | None = None
        self._edge = None
        self._batches, self._next_watch, self._warned = 0, 0, False
        if self._deadline is not None:
            self.deadline = parse_deadline(self._deadline, self._now(), "BudgetGuard(deadline)")

    def _begin_timed_step(self) -> None:
        if self.deadline is not None:
            gap_s = self._passed_s()
            if self._batches:
                self._gap_s = max(gap_s, self._gap_s or 0.0)

    def _end_timed_step(self, trainer: Any) -> None:
        if self.deadline is None:
            return
        self._steps_s.append(self._passed_s())
        self._batches += 1
        if self._batches >= self._next_watch:
            self._watch(trainer)

    def _passed_s(self) -> float:
        before, self._edge = self._edge, self._now()
        return 0.0 if before is None else max(0.0, (self._edge - before).total_seconds())

    def _watch(self, trainer: Any) -> None:
        """Stop in all processes, or schedule the next look at the clock."""
        if self.deadline is None or self.stop_reason is not StopReason.NOT_STOPPED:
            return
        left_s = (self.deadline - self._now()).total_seconds()
        needed_s = 0.0 if self.on_exceed == "warn" else self._needed_s(trainer)
        longest_s = max(self._steps_s, default=0.0)
        free = (left_s - needed_s) / (2.0 * longest_s) if longest_s else 0.0
        last = self._batches > 0 and is_finished(trainer)
        found = left_s <= needed_s and not last, max(1, math.floor(free))
        if trainer.world_size > 1:
            found = trainer.strategy.broadcast(found)
        stops, batches = found
        self._next_watch = self._batches + batches
        if stops:
            self._miss(trainer, left_s, needed_s)

    def _needed_s(self, trainer: Any) -> float:
        step_s = max(self._steps_s, default=0.0)
        end_s = self._gap_s
        if end_s is None or not self._has_validated(trainer):
            batches = validation_batches(trainer) * batch_steps(trainer)
            end_s = (end_s or 0.0) + batches * step_s
        return (step_s + end_s) * (1.0 + _MARGIN) + (_MARGIN_S if self._batches else 0.0)

    def _has_validated(self, trainer: Any) -> bool:
        return trainer.current_epoch > 0 or not validates(trainer, trainer.current_epoch)

    def _miss(self, trainer: Any, left_s: float, needed_s: float) -> None:
        assert self.deadline is not None
        at = self.deadline.astimezone(self._now().tzinfo).isoformat(timespec="minutes")
        if self.on_exceed == "warn":
            if not self._warned:
                self._warned = True
                warn(f"BudgetGuard: the deadline {at} has passed; training continues")
            return
        self.stop_reason = StopReason.DEADLINE
        left, needed = (timedelta(seconds=round(max(0.0, each))) for each in (left_s, needed_s))
        self.reason = (
            f"{left} is left until the deadline {at}, and one more step with the end of the fit "
            f"may take {needed}"
        )
        if self.on_exceed == "raise":
            raise BudgetExceeded(self.reason, requested_j=None, left_j=None)
        self._stop(trainer)

    def _stop(self, trainer: Any) -> None:
        self.stopped = True
        inform(f"BudgetGuard stops the fit: {self.reason}")
        # `min_epochs` and `min_steps` would make Lightning continue.
        trainer.fit_loop.min_epochs = 0
        trainer.fit_loop.epoch_loop.min_steps = 0
        trainer.should_stop = True
