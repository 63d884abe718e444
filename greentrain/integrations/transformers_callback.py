"""Measure a training of the Hugging Face Trainer, and stop it before a cap."""

from __future__ import annotations

import atexit
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import distributed

from greentrain._about import DISTRIBUTION
from greentrain.budget import Budget, format_amount
from greentrain.callbacks.cap_arguments import check_budget, parse_cap
from greentrain.callbacks.run_record import RunRecord
from greentrain.callbacks.usage_bounds import DEFAULT_LAG_S, EndBound, StepBound, UsagePoint
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.energy import NOTHING, Meter, Reading, Source, Window, WindowRecorder, detect
from greentrain.errors import ConfigurationError, MeterError
from greentrain.ledger import DEFAULT_URL
from greentrain.texts import get_logger
from greentrain.tracking import names
from greentrain.units import utc_now, wh

if not TYPE_CHECKING and find_spec("transformers") is not None:
    from transformers import TrainerCallback
else:
    TrainerCallback = object

_log = get_logger(__name__)
_EVALUATION, _SAVING = "validating", "epoch"


class TransformersCallback(TrainerCallback):
    """Measure each epoch and evaluation of a Hugging Face ``Trainer``, and keep it within a cap.

    The energy of the training is divided into windows, which are recorded in a ledger: each epoch,
    each evaluation with its saving, and the time around them. The cap works as that
    of :class:`greentrain.callbacks.BudgetGuard`. It sets energy aside for one step, the most
    expensive evaluation so far and the lag of the meter. At least one step is taken, and the first
    evaluation is not known in advance.

    With several processes, the main process measures all GPUs that it can see, CPU and RAM. It
    decides for all processes. GPUs of other hosts are not measured.

    Args:
        cap: The most that the training may use, such as ``"0.5 kWh"`` or ``"500 gCO2e"``. Omit it
            to measure only.
        meter: The source of joules, which is started and closed; by default the best meter.
        ledger: URL of the ledger; ``None`` to record nothing.
        budget: As for :class:`greentrain.callbacks.BudgetGuard`: the name of a budget in the ledger
            that several trainings pay from.
        num_fits: Number of trainings that the budget is for.
        zone: Electricity zone of this machine, such as ``"DE"``; grams are unknown without it.
        intensity: A provider of carbon intensities, instead of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        pue_source: Source of the PUE figure.

    Attributes:
        total: Seconds and joules by source, up to the end of the last window.
        emissions_g: Grams of CO2 equivalent of ``total``; ``None`` if any are unknown.
        sources: The metered sources, known at the end of the training.
        stopped: Whether the cap ended the training.
        reason: The reason in one sentence, with amounts; empty while the cap holds.

    Raises:
        ConfigurationError: If ``transformers`` is missing, or an argument is not allowed. Also when
            the training begins, if the ledger or the present intensity cannot be used.
        BudgetExceeded: When the training begins, if the budget has nothing left.
        LedgerError: When the training begins, if the ledger cannot be written.

    Example:
        Pass it to the Trainer: ``Trainer(..., callbacks=[TransformersCallback("0.5 kWh")])``.
    """

    def __init__(
        self,
        cap: str | Budget | None = None,
        *,
        meter: Meter | None = None,
        ledger: str | None = DEFAULT_URL,
        budget: str | None = None,
        num_fits: int = 1,
        zone: str | None = None,
        intensity: IntensityProvider | None = None,
        pue: float | None = None,
        pue_source: str | None = None,
    ) -> None:
        if TrainerCallback is object:
            raise ConfigurationError(
                "TransformersCallback needs the package transformers; install the extra: "
                f"pip install '{DISTRIBUTION}[transformers]'"
            )
        self._cap = None if cap is None else parse_cap(cap, several=budget is not None)
        if budget is not None and self._cap is None:
            raise ConfigurationError(
                f"TransformersCallback(budget={budget!r}) has no amount; give the cap too, such as "
                "cap='1 kWh'"
            )
        check_budget(ledger, budget, num_fits, "stop")
        self.carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue, pue_source=pue_source)
        if self._of_carbon and self.carbon.provenance is None:
            raise ConfigurationError(
                f"TransformersCallback(cap={str(cap)!r}) limits carbon, and the carbon intensity "
                "is unknown; add a zone such as zone='DE', or an intensity"
            )
        self.meter = meter
        self.ledger = ledger
        self.budget = budget
        self.num_fits = num_fits
        self.total: Reading = NOTHING
        self.emissions_g: float | None = None
        self.sources: tuple[Source, ...] = ()
        self.stopped = False
        self.reason = ""
        self._training: _Training | None = None

    def __str__(self) -> str:
        """Return one line with energy, grams, seconds and the reason of a stop."""
        energy = "an unknown energy"
        if self.total.total_j is not None:
            energy = format_amount(self.total.total_j, "J")
            energy = energy if self.total.complete else f"at least {energy}"
        grams = self.emissions_g
        emitted = "" if grams is None else f" and emitted {format_amount(grams, 'g')}"
        used = f"the training used {energy}{emitted} in {self.total.duration_s:.2f} s"
        return f"{used}; stopped: {self.reason}" if self.stopped else used

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to measure, and reserve the cap."""
        self.close()  # a training that failed calls no hook at its end
        self.total, self.emissions_g, self.sources = NOTHING, None, ()
        self.stopped, self.reason = False, ""
        name = type(kwargs["model"]).__name__ if kwargs.get("model") is not None else "training"
        main = bool(state.is_world_process_zero)
        self._training = _Training(
            self.meter if main else _EmptyMeter(),
            RunRecord(self.ledger if main else None, self.carbon, required=True),
            self.carbon,
            name,
        )
        atexit.register(self.close)
        if self._cap is not None:
            try:
                self._training.begin_cap(self._cap, self.budget, self.num_fits)
            except BaseException:
                self.close()
                raise

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the window of an epoch."""
        if self._training is not None:
            self._training.resume()
            self._training.recorder.enter("train_epoch", epoch=int(state.epoch or 0))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the window of the evaluation before the step."""
        if self._training is not None:
            self._training.resume()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the training if the cap does not pay for another step."""
        training = self._training
        if training is None:
            return
        training.steps += 1
        if training.is_due():
            self._check(training, state, control)
        training.pause(control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the training if the cap does not pay for another step and evaluation."""
        training = self._training
        if training is not None and training.resume():
            self._check(training, state, control)
            training.pause(control, saves=True)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the window of the epoch; evaluation and saving follow."""
        if self._training is not None:
            self._training.resume()
            self._training.recorder.leave()
            self._training.pause(control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the energy so far to what is logged."""
        training = self._training
        if training is None or logs is None:
            return
        known_j = training.used_reading().total_j
        metrics = {} if known_j is None else {names.ENERGY_TOTAL: round(wh(known_j), 6)}
        logs.update(metrics)
        if state.log_history:
            state.log_history[-1].update(metrics)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the measurement, and report a cap that was exceeded."""
        if self._training is None:
            return
        training = self._training
        self.close("completed")
        if training.limit is not None and training.left < -1e-9:
            used, cap = self._amounts(training)
            over = format_amount(-training.left, self._unit)
            self.reason = f"the training used {used}, {over} more than {cap}"
            _log.warning("TransformersCallback: %s", self.reason)

    def close(self, status: str = "failed") -> None:
        """End the measurement of a training that raised an exception; harmless if repeated."""
        training, self._training = self._training, None
        if training is None:
            return
        atexit.unregister(self.close)
        training.record.stopped = self.stopped
        training.close(status)
        self.total, self.emissions_g = training.total, training.emissions_g
        self.sources = training.sources

    @property
    def _of_carbon(self) -> bool:
        return self._cap is not None and self._cap.unit == "g"

    @property
    def _unit(self) -> Any:
        return "J" if self._cap is None else self._cap.unit

    def _check(self, training: _Training, state: Any, control: Any) -> None:
        last = control.should_training_stop or state.global_step >= state.max_steps
        if self._cap is None or last:
            return
        needed_j, stops = training.check()
        if stops:
            control.should_training_stop = self.stopped = True
            self.reason = self._reason(training, needed_j)
            if state.is_world_process_zero:
                _log.warning("TransformersCallback stops the training: %s", self.reason)

    def _amounts(self, training: _Training) -> tuple[str, str]:
        cap = f"its cap of {format_amount(training.limit, self._unit)}"
        if self.budget is not None:
            part = format_amount(training.limit, self._unit)
            cap = f"its part, {part}, of the budget {self.budget!r}"
        return format_amount(training.used, self._unit), cap

    def _reason(self, training: _Training, needed_j: float) -> str:
        used, cap = self._amounts(training)
        return (
            f"the training used {used} of {cap} in {training.steps} steps, and one more step with "
            f"an evaluation may use {format_amount(needed_j, 'J')}"
        )


class _Training:
    """One training: its windows, and its use of a cap.

    Args:
        meter: Its meter; ``None`` for the best meter of this machine.
        record: Its record.
        carbon: Converts joules to grams.
        name: Name of the run.
    """

    def __init__(
        self, meter: Meter | None, record: RunRecord, carbon: CarbonAccount, name: str
    ) -> None:
        self.steps = 0
        self.limit: float | None = None
        self.record = record
        self.total: Reading = NOTHING
        self.emissions_g: float | None = None
        self.sources: tuple[Source, ...] = ()
        self._carbon = carbon
        try:
            self.recorder = WindowRecorder(_started(meter), self._take)
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
        self._next_check = 0.0

    @property
    def used(self) -> float:
        """Amount used at the last reading, in the cap's unit."""
        return self._grams if self._of_carbon else self._last_j

    @property
    def left(self) -> float:
        """Amount left of the cap, in its unit."""
        return (self.limit or 0.0) - self.used

    def begin_cap(self, cap: Budget, budget: str | None, num_fits: int) -> None:
        """Reserve the cap, or this training's part of a budget."""
        self._of_carbon = cap.unit == "g"
        if self._of_carbon and self._carbon.upper_g_per_j(utc_now()) is None:
            raise ConfigurationError(
                f"the cap of {cap} cannot be enforced: the present carbon intensity is unknown; "
                "give an intensity that covers the time of the training"
            )
        reserved = self.record.reserve(budget, cap, parts=num_fits, carbon=self._carbon)
        self.limit = cap.amount if reserved is None else reserved
        sources = self.recorder.sources
        self._step = StepBound(
            power_w=math.fsum(source.power_limit_w or 0.0 for source in sources),
            lag_s=max((source.lag_s for source in sources), default=DEFAULT_LAG_S),
        )
        self._measure()

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
        left_j = self.left
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
        self.recorder.meter.close()

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


class _EmptyMeter:
    """A meter for a process that measures nothing."""

    sources: tuple[Source, ...] = ()

    def start(self) -> None:
        """Do nothing."""

    def read(self) -> Reading:
        """Return a reading without joules."""
        return NOTHING

    def close(self) -> None:
        """Do nothing."""


def _started(meter: Meter | None) -> Meter:
    try:
        if meter is None:
            return detect()
        meter.start()
        return meter
    except MeterError as error:  # a failing meter never stops training
        _log.warning("energy is not measured: %s", error)
        return _EmptyMeter()
