"""Measure one training outside Lightning, and compare its use with a cap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import distributed

from greentrain.budget import Budget, Unit
from greentrain.callbacks.run_record import RunRecord
from greentrain.callbacks.stop_reason import CapUse
from greentrain.callbacks.usage_bounds import DEFAULT_LAG_S, EndBound, StepBound, UsagePoint
from greentrain.carbon import CarbonAccount
from greentrain.energy import (
    NOTHING,
    Meter,
    Reading,
    Source,
    Window,
    WindowRecorder,
    close_meter,
    start_meter,
)
from greentrain.errors import ConfigurationError
from greentrain.units import utc_now

_EVALUATION, _SAVING = "validating", "epoch"


class CappedTraining:
    """One training: its windows, and its use of a cap.

    Args:
        meter: Its meter; ``None`` for the best meter of this machine.
        record: Its record.
        carbon: Converts joules to grams.
        name: Name of the run.

    Attributes:
        steps: Steps taken.
        record: The record.
        recorder: Records the windows.
        total: Seconds and joules by source, up to the end of the last window.
        emissions_g: Grams of CO2 equivalent of ``total``; ``None`` if any are unknown.
        sources: The metered sources, known once the training is closed.
    """

    def __init__(
        self, meter: Meter | None, record: RunRecord, carbon: CarbonAccount, name: str
    ) -> None:
        self.steps = 0
        self._limit = 0.0
        self._budget: str | None = None
        self.record = record
        self.total: Reading = NOTHING
        self.emissions_g: float | None = None
        self.sources: tuple[Source, ...] = ()
        self._carbon = carbon
        try:
            self.recorder = WindowRecorder(start_meter(meter), self._take)
            self._of_carbon = False
            record.begin(
                "fit",
                name,
                sources=lambda: self.recorder.sources,
                beat=self.recorder.open_windows,
            )
        except BaseException:
            record.close("failed")
            raise
        self.recorder.enter("fit")
        self._step = StepBound()
        self._pauses = EndBound()
        self._pause: tuple[str, Reading] | None = None  # its kind, and the reading at its begin
        self._pauses_j = 0.0
        self._first = self._last = self.recorder.read()
        self._last_j, self._grams, self._time = 0.0, 0.0, utc_now()
        self._resumed = False
        self._used_before = 0.0  # in the cap's unit
        self._next_check = 0.0

    @property
    def use(self) -> CapUse:
        """Amount used of the cap at the last reading."""
        unit: Unit = "g" if self._of_carbon else "J"
        used = self._used_before + (self._grams if self._of_carbon else self._last_j)
        limit, budget = self._limit, self._budget
        return CapUse(work="training", used=used, limit=limit, unit=unit, budget=budget)

    @property
    def knows_all(self) -> bool:
        """``True`` if the energy of the whole training is known, also of that before a resume."""
        return not self._resumed or self.record.resumed_j is not None

    def resume_after(self, before_j: float | None) -> None:
        """Note that the training was resumed from a checkpoint.

        Args:
            before_j: Joules that it had used before; ``None`` if unknown.
        """
        self._resumed = True
        self.record.resumed_j = before_j

    def used_since_begin_j(self) -> float | None:
        """Return the joules of the whole training up to now; ``None`` if unknown."""
        used_j = self.used_reading().total_j
        if used_j is None or not self.knows_all:
            return None
        return used_j + (self.record.resumed_j or 0.0)

    def begin_cap(
        self, cap: Budget, budget: str | None, num_fits: int, before: Mapping[str, Any]
    ) -> None:
        """Reserve the cap, or this training's part of a budget.

        Args:
            cap: The cap.
            budget: Name of the budget; ``None`` for a cap of this training alone.
            num_fits: Number of trainings that the budget is for.
            before: The :meth:`state` of the part of the training before a resume, or nothing. A
                budget has paid for that part.
        """
        self._of_carbon = cap.unit == "g"
        if self._of_carbon and self._carbon.upper_g_per_j(utc_now()) is None:
            raise ConfigurationError(
                f"the cap of {cap} cannot be enforced: the present carbon intensity is unknown; "
                "give an intensity that covers the time of the training"
            )
        reserved = self.record.reserve(budget, cap, parts=num_fits, carbon=self._carbon)
        self._limit = (cap.amount if reserved is None else reserved) or 0.0
        self._budget = budget
        self._used_before = 0.0 if budget is not None else float(before.get("used", 0.0))
        sources = self.recorder.sources
        step_j = before.get("joules_per_step")
        self._step = StepBound(
            mean_j=step_j,
            known_j=step_j,
            power_w=math.fsum(source.power_limit_w or 0.0 for source in sources),
            lag_s=max((source.lag_s for source in sources), default=DEFAULT_LAG_S),
        )
        self._measure()

    def state(self) -> dict[str, float | None]:
        """Return the use of the cap up to now, in its unit, and the mean joules of a step."""
        self._measure()
        return {"used": self.use.used, "joules_per_step": self._step.mean_j}

    def used_reading(self) -> Reading:
        """Return the energy of all windows up to now."""
        return self.total + self.recorder.used()

    def is_due(self) -> bool:
        """Return whether the meter has to be read after this step; alike in all processes."""
        return self.steps >= self._next_check

    def check(self) -> tuple[float, bool]:
        """Return what one more step needs, and whether to stop; every process has to call this."""
        now = self._measure()
        self._step = self._step.observe(now)
        needed_j = self._step.step_j + self._pauses.total_j(0.0, validates=True) + self._step.lag_j
        left_j = self.use.left
        if self._of_carbon:
            left_j = left_j / now.g_per_j if now.g_per_j else math.inf
        steps = self._step.steps_until_check(left_j - needed_j)
        decided = [left_j <= needed_j and now.measured, self.steps + steps]
        if distributed.is_available() and distributed.is_initialized():
            distributed.broadcast_object_list(decided, src=0)
        self._next_check = decided[1]
        return needed_j, bool(decided[0])

    def pause(self, control: Any, *, saves: bool = False) -> None:
        """Begin the window of an evaluation or a saving, if one follows."""
        if control.should_evaluate or control.should_save or saves:
            evaluates = control.should_evaluate and not saves
            self._pause = (_EVALUATION if evaluates else _SAVING, self.recorder.read())
            self.recorder.enter("validation")

    def resume(self) -> bool:
        """End that window, learn from it, and return whether one was open."""
        if self._pause is None:
            return False
        (kind, begin), self._pause = self._pause, None
        pause_j = (self.recorder.read() - begin).total_j or 0.0
        self._pauses_j += pause_j
        self._pauses = self._pauses.observe(kind, pause_j + self._step.lag_j)
        self._next_check = 0.0
        self.recorder.leave()
        return True

    def close(self, status: str) -> None:
        """End all windows, settle, and release the meter."""
        self._measure()
        self.recorder.leave_to(0)
        self.sources = self.recorder.sources
        self.record.close(status)
        close_meter(self.recorder.meter)

    def _measure(self) -> UsagePoint:
        reading, now = self.recorder.read() - self._first, utc_now()
        used_j = max(self._last_j, reading.total_j or 0.0)
        g_per_j = self._carbon.upper_g_per_j(now) or 0.0
        grams = self._carbon.emissions(used_j - self._last_j, self._time, now).grams
        self._grams += (used_j - self._last_j) * g_per_j if grams is None else grams
        self._last_j, self._time = used_j, now
        return UsagePoint(
            steps=self.steps,
            seconds=reading.duration_s,
            energy_j=used_j,
            steps_j=used_j - self._pauses_j,
            g_per_j=g_per_j,
            measured=reading.total_j is not None,
        )

    def _take(self, window: Window) -> None:
        grams = self._carbon.of(window).grams
        first = self.total is NOTHING
        self.total += window.reading
        known = grams is not None and (first or self.emissions_g is not None)
        self.emissions_g = (self.emissions_g or 0.0) + (grams or 0.0) if known else None
        self.record.window(window)
