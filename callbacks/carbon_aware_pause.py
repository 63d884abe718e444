"""Pause a training while electricity is dirty, and continue when it is clean."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer
from rich.console import Console

from greentrain.callbacks.base import Callback
from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.deadline import check_clock, is_time_of_day, local_now, parse_deadline
from greentrain.callbacks.deadline_stop import DeadlineStop
from greentrain.callbacks.exact_resume import ExactResume
from greentrain.callbacks.intensity_forecast import IntensityForecast
from greentrain.callbacks.messages import inform
from greentrain.callbacks.meter_lease import MeterLease, abandon_early
from greentrain.callbacks.pause_arguments import (
    carbon_of_record,
    check_intensity,
    check_number,
    check_path,
    check_requeue,
    provider_of,
    record_of,
)
from greentrain.callbacks.pause_rule import PauseChoice, State, choose
from greentrain.callbacks.pause_usage import PauseUsage
from greentrain.callbacks.training_paused import TrainingPaused, requeue, resume_lines
from greentrain.callbacks.work_left import WorkLeft
from greentrain.carbon import IntensityProvider
from greentrain.energy import Meter, WindowRecorder, check_meter
from greentrain.errors import ConfigurationError
from greentrain.units import is_whole

_PAUSES = ("wait", "requeue")


class CarbonAwarePause(Callback):
    """Pause a fit before dirty hours, and continue when it is clean or the deadline is near.

    At the end of each epoch, and every ``check_s`` seconds within one, two ways are compared: to
    run the rest now, or later. A pause has to save a share of the grams, after the energy of the
    pause itself. That energy is measured at each pause. Without a usable forecast the fit runs.
    Waiting ends in time for the deadline, for any forecast. If the training itself is too slow, add
    ``BudgetGuard(deadline=...)``.

    ``pause="wait"`` waits in this process. The energy of the idle machine is measured, recorded as
    windows ``waiting``, and part of the decision.

    ``pause="requeue"`` ends the process. Under SLURM, the job is put back into the queue with a
    begin time. Elsewhere, the exit code is 75, and the command to continue is printed. The script
    has to pass ``ckpt_path=pause.ckpt_path``, and the Trainer needs :class:`ExactResume`.

    Args:
        intensity: A provider of :mod:`greentrain.carbon`, or its name. The default is that of this
            Trainer's ``EnergyMonitor``. One without a forecast is expected to repeat the last day.
        deadline: When the fit has to be finished: a time of day such as ``"06:00"``, or a date and
            time with a zone.
        pause: ``"wait"`` or ``"requeue"``.
        duration_s: Expected seconds of the whole fit. With it, the fit may wait before it begins;
            without it, the first epoch is measured first.
        min_saving: Least share of the remaining grams that a pause has to save, 0 to 1.
        min_run_s: Least seconds of training between two pauses.
        max_pauses: Most pauses of a fit; 0 for none.
        margin: Share of the remaining time that is kept in reserve for the deadline.
        check_s: Seconds between two decisions.
        checkpoint: File of the pause; it is deleted when the fit is finished.
        meter: The source of joules. The default is the meter of this Trainer's ``EnergyMonitor``.
        clock: Returns the present time, aware.
        sleep: Waits for some seconds.

    Attributes:
        choices: The last hundred decisions, with the grams that were expected.
        usage: Pauses, seconds and joules of pausing, waiting and continuing.

    Raises:
        ConfigurationError: If an argument is not allowed. Also in ``setup``, if the deadline is in
            the past, the fit has no end, or there is no intensity.
        MisconfigurationException: In ``setup``, if ``pause="requeue"`` cannot end the process, or
            lacks :class:`ExactResume`.
        TrainingPaused: At a pause with ``pause="requeue"``. It ends the process.

    Example:
        ``CarbonAwarePause(CsvIntensity("de.csv", zone="DE"), deadline="06:00")``
    """

    def __init__(
        self,
        intensity: IntensityProvider | str | None = None,
        *,
        deadline: str | datetime,
        pause: Literal["wait", "requeue"] = "wait",
        duration_s: float | None = None,
        min_saving: float = 0.1,
        min_run_s: float = 900.0,
        max_pauses: int = 10,
        margin: float = 0.1,
        check_s: float = 300.0,
        checkpoint: str | Path = "paused.ckpt",
        meter: Meter | WindowRecorder | None = None,
        clock: Callable[[], datetime] = local_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if pause not in _PAUSES:
            raise ConfigurationError(
                f"CarbonAwarePause(pause={pause!r}) is not allowed; choose one of {_PAUSES}"
            )
        check_number("duration_s", duration_s, "seconds, more than 0", low=1e-9)
        check_number("min_saving", min_saving, "a share from 0 to 1", high=1.0)
        check_number("min_run_s", min_run_s, "seconds, 0 or more")
        check_number("margin", margin, "a share, 0 or more")
        check_number("check_s", check_s, "seconds, more than 0", low=1e-9)
        if not is_whole(max_pauses, 0):
            raise ConfigurationError(
                f"CarbonAwarePause(max_pauses={max_pauses!r}) is not allowed; give a whole number, "
                "0 or more"
            )
        if not isinstance(meter, WindowRecorder):
            check_meter(meter, "CarbonAwarePause(meter=...)")
        self._deadline = deadline
        self._clock, self._sleep = clock, sleep
        if not is_time_of_day(deadline):
            parse_deadline(deadline, self._now(), "CarbonAwarePause(deadline)")
        self._own = check_intensity(intensity)
        self.intensity: IntensityForecast | None = None
        self.pause = pause
        self.duration_s = duration_s
        self.min_saving, self.min_run_s, self.max_pauses = min_saving, min_run_s, max_pauses
        self.margin, self.check_s = margin, check_s
        self.checkpoint = check_path(checkpoint)
        self.meter = meter
        self.choices: list[PauseChoice] = []
        self.usage = PauseUsage()
        self.deadline: datetime | None = None
        self._work = WorkLeft(duration_s)
        self._lease: MeterLease | None = None
        self._leave: PauseChoice | None = None
        self._ran_since: datetime | None = None
        self._next_batch = 0

    @property
    def ckpt_path(self) -> str | None:
        """The checkpoint of a pause, for ``trainer.fit(ckpt_path=...)``; ``None`` without one."""
        return str(self.checkpoint) if self.checkpoint.exists() else None

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return "CarbonAwarePause"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the Trainer, and start to measure."""
        if stage != "fit":
            return
        others = [each for each in trainer.callbacks if each is not self]  # type: ignore[attr-defined]
        if self.pause == "requeue":
            check_requeue(trainer, others)
        if trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
            raise ConfigurationError(
                "CarbonAwarePause needs the end of the fit to meet its deadline; set max_epochs or "
                "max_steps"
            )
        self.intensity = IntensityForecast(provider_of(trainer, self._own))
        self.deadline = parse_deadline(self._deadline, self._now(), "CarbonAwarePause(deadline)")
        self.usage, self.choices = PauseUsage(), []
        self._work = WorkLeft(self.duration_s)
        self._leave, self._next_batch = None, 0
        self._lease = MeterLease(trainer, self.meter)
        self.usage.begin(self._lease.recorder, self._now())
        others = [each for each in others if not isinstance(each, _EndOfResuming)]
        # The last one, so that the others have finished a step before it is saved.
        trainer.callbacks = [_EndOfResuming(self.usage), *others, self]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait before the first batch if the duration is known and a later start is cleaner."""
        if self._lease is None:
            return
        self.usage.started(self._now())
        self._work.started(trainer, self._now())
        self._ran_since = self._now()
        resumed = trainer.fit_loop.epoch_loop.batch_progress.total.ready > 0
        if self.usage.pauses:
            self._record(trainer, "resume", self.usage.restart())
        choice = self._choose(trainer, "paused" if resumed else "new")
        if choice is not None and choice.wait:
            self._act(trainer, choice, "paused" if resumed else "new")
        self._work.resumed(self._now())

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Decide within an epoch, at a step after which the fit continues exactly."""
        self._work.batch(self._now())
        done = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        if self._lease is None or done < self._next_batch or trainer.is_last_batch:
            return
        if not self._can_pause(trainer):
            return
        choice = self._choose(trainer, "running")
        self._next_batch = done + self._broadcast(trainer, self._work.batches_in(self.check_s))
        if choice is not None and choice.wait:
            self._act(trainer, choice, "running")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the epoch, and decide at its end."""
        if self._lease is None or trainer.should_stop:
            return
        self._work.epoch(self._now())
        if self._work.left_s(trainer, ended=True) == 0.0 or not self._can_pause(trainer):
            return
        choice = self._choose(trainer, "running", ended=True)
        if choice is None or not choice.wait:
            return
        if self.pause == "wait":
            self._act(trainer, choice, "running", ended=True)
        else:  # the other callbacks finish the epoch first
            self._leave = choice
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = 0
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Save and leave after an epoch, or delete the checkpoint of a fit that is finished."""
        if self._lease is None:
            return
        if self._leave is not None:
            self._act(trainer, self._leave, "running", ended=True)
        elif trainer.is_global_zero and not trainer.fast_dev_run:
            self.checkpoint.unlink(missing_ok=True)
            if self.usage.decided:
                self.usage.train(self._now())
                self._record(trainer, "shifted", self.usage.shifted(carbon_of_record(trainer)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the meter, and show what the pauses used."""
        if self._lease is not None and trainer.is_global_zero and self.usage.pauses:
            inform(f"CarbonAwarePause: {self.usage.sentence()}")
        self._close()

    def on_exception(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Release the meter."""
        self._close()
        abandon_early(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the deadline, what is measured, and the pauses so far."""
        if self.deadline is None:
            return {}
        return {
            "deadline": self.deadline.isoformat(),
            "work": self._work.as_dict(),
            "usage": self.usage.as_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the deadline and the measurements of the paused fit."""
        if self._lease is None:
            return
        if is_time_of_day(self._deadline):
            # The next "06:00" after a pause may be another day's.
            self.deadline = datetime.fromisoformat(state_dict["deadline"])
        self._work.load(state_dict["work"])
        self.usage.load(state_dict["usage"])
        if self.usage.pauses:
            self.usage.begin_resuming()

    def _now(self) -> datetime:
        return check_clock(self._clock(), "CarbonAwarePause")

    def _can_pause(self, trainer: Any) -> bool:
        """Return whether a pause is allowed now; the same in every process."""
        if trainer.fast_dev_run or self.usage.pauses >= self.max_pauses:
            return False
        exact = next((e for e in trainer.callbacks if isinstance(e, ExactResume)), None)
        return self.pause == "wait" or exact is None or not exact.point(trainer).inexact

    def _choose(self, trainer: Trainer, state: State, *, ended: bool = False) -> PauseChoice | None:
        """Return the decision of the first process, which all others follow."""
        choice: PauseChoice | None = None
        if trainer.is_global_zero:
            choice = self._decide(trainer, state, ended=ended)
        shared: PauseChoice | None = self._broadcast(trainer, choice)
        return shared

    def _decide(self, trainer: Trainer, state: State, *, ended: bool) -> PauseChoice | None:
        now, work_s = self._now(), self._work.left_s(trainer, ended=ended)
        if state == "running":
            self.usage.train(now)
        ran = None if self._ran_since is None else (now - self._ran_since).total_seconds()
        if self.deadline is None or self.intensity is None or work_s is None:
            return None
        self._work.warn_if_late(work_s, self.deadline - now)
        if state == "running" and ran is not None and ran < self.min_run_s:
            return None
        if state == "new" and not self._may_begin_late(trainer):
            return None
        choice = choose(
            now.astimezone(UTC),
            self.intensity.at(now.astimezone(UTC), self.deadline),
            state=state,
            work_s=work_s,
            deadline=self.deadline,
            costs=self.usage.costs(waits=self.pause == "wait", new=state == "new"),
            min_saving=self.min_saving,
            margin=self.margin,
        )
        self.choices = [*self.choices[-99:], choice]
        return choice

    def _may_begin_late(self, trainer: Any) -> bool:
        return self.duration_s is not None and self.max_pauses > 0 and not trainer.fast_dev_run

    def _act(
        self, trainer: Trainer, choice: PauseChoice, state: State, *, ended: bool = False
    ) -> None:
        """Save, and wait or leave."""
        inform(f"CarbonAwarePause pauses the fit: {choice.reason}")
        self.usage.train(self._now())
        self.usage.pauses += state == "running"
        self.usage.decided += 1
        self._record(trainer, "pause", self._figures(choice))
        if state == "running" or self.pause == "requeue":
            self._save(trainer)
        if self.pause == "requeue":
            self._end_process(trainer, choice.until)
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, BudgetGuard):
                each.wait()
        with self.usage.measured("waiting", self._now):
            while choice.wait and not trainer.received_sigterm:
                until_s = (choice.until - self._now()).total_seconds()
                self._sleep(min(self.check_s, max(1.0, until_s)))
                self.usage.idle(self._now())
                waiting: State = "new" if state == "new" else "paused"
                choice = self._choose(trainer, waiting, ended=ended) or choice
        self._record(trainer, "resume", {**self._figures(choice), **self.usage.so_far()})
        self._ran_since = self._now()
        self._work.resumed(self._now())
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, DeadlineStop):
                each.skip_gap()
        inform(f"CarbonAwarePause continues the fit: {choice.reason}")

    def _figures(self, choice: PauseChoice) -> dict[str, Any]:
        """Return a decision for the ledger."""
        return {
            "at_utc": self._now().astimezone(UTC).isoformat(),
            "how": self.pause,
            "min_saving": self.min_saving,
            "pauses": self.usage.pauses,
            **choice.as_dict(),
        }

    def _record(self, trainer: Trainer, topic: str, figures: dict[str, Any]) -> None:
        """Record an event in the ledger of the monitored run, if there is one."""
        record = record_of(trainer)
        if record is not None:
            record.event(topic, figures)

    def _save(self, trainer: Trainer) -> None:
        # The first saving is measured by another one, whose checkpoint has the result.
        unknown = self.pause == "requeue" and self.usage.saved_j is None
        for _ in range(1 + unknown):
            with self.usage.measured("pausing", self._now):
                trainer.save_checkpoint(self.checkpoint)

    def _end_process(self, trainer: Trainer, until: datetime) -> None:
        for logger in trainer.loggers:
            logger.finalize("success")  # Lightning would mark them as failed
        trainer.loggers = []
        if trainer.is_global_zero and not requeue(until):
            lines = resume_lines(self.checkpoint.resolve(), until, sys.orig_argv[1:])
            Console().print(lines, soft_wrap=True, markup=False, highlight=False)
        raise TrainingPaused(self.checkpoint.resolve(), until)

    def _broadcast(self, trainer: Trainer, value: Any) -> Any:
        return trainer.strategy.broadcast(value) if trainer.world_size > 1 else value

    def _close(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None


class _EndOfResuming(Callback):
    """End the window of resuming before any other callback begins the window of an epoch."""

    def __init__(self, usage: PauseUsage) -> None:
        self._usage = usage

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the window."""
        self._usage.end_resuming()
