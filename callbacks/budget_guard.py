"""Stop a fit before it uses more energy, carbon or time than its cap."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer

from greentrain.budget import Budget, Unit, format_amount
from greentrain.callbacks.anneal import RateScaler, annealed_rates
from greentrain.callbacks.base import ReturnedResult
from greentrain.callbacks.cap_account import CapAccount, carbon_of
from greentrain.callbacks.cap_arguments import check_budget, check_cap, check_options
from greentrain.callbacks.deadline import local_now
from greentrain.callbacks.deadline_stop import DeadlineStop
from greentrain.callbacks.messages import warn
from greentrain.callbacks.meter_lease import MeterLease, abandon_early, start_early
from greentrain.callbacks.metric_logging import EpochLogger, budget_metrics, show
from greentrain.callbacks.run_record import RunRecord
from greentrain.callbacks.stop_reason import CapUse, StopReason, stop_reason
from greentrain.callbacks.trainer_plan import is_finished, is_trial, validates
from greentrain.callbacks.training_paused import ended_as
from greentrain.callbacks.usage import FitUsage
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.energy import Meter, Reading, WindowRecorder, energy_html
from greentrain.errors import BudgetExceeded


class BudgetGuard(DeadlineStop):
    """Keep one fit within a cap of energy, carbon or time, with its last validation and saving.

    The guard reads the meter as seldom as the cap allows, by the joules per step measured so far.
    It sets energy aside for one step, one validation, saving a checkpoint, and the lag of the meter
    (0.1 s for most meters). These amounts are measured in this fit; until then, they are estimated
    from its training steps. A step that uses more than expected is an overrun, which is reported.

    At the cap, the fit ends cleanly after the current batch, even if ``min_epochs`` demands more.
    If it is known before the first batch that no step fits, no step is taken. All energy that the
    meter counts from the start of the fit is included.

    With ``ledger`` and ``budget``, the cap is a budget for several fits: the folds of a
    cross-validation, the trials of a search, or processes that run at the same time. Each fit
    reserves its part in the ledger before its first batch, and settles at its end what it used, the
    preparation of its data included.
    What a killed process reserved stays reserved until ``greentrain ledger release``.

    Args:
        cap: The most that the fit may use: ``"0.5 kWh"``, ``"500 gCO2e"``, or a
            :class:`greentrain.Budget`. A budget for several fits may be renewed, as in
            ``"2 kWh per month"``. Omit it if there is only a deadline.
        deadline: When the fit has to be finished: a time of day such as ``"06:00"``, whose next
            occurrence is meant, or a date and time with a zone.
        meter: The source of joules. The default is the meter of this Trainer's ``EnergyMonitor``,
            else the best meter for this machine.
        zone: Electricity zone of this machine, such as ``"DE"``. The default is the zone or the
            intensity of this Trainer's ``EnergyMonitor``. A cap of carbon needs one of them.
        intensity: A provider of carbon intensities or its name, instead of a zone. An
            intensity that changes with time is applied between two readings of the meter.
        pue: Power usage effectiveness of the building: a factor of the grams.
        on_exceed: ``"stop"`` ends the fit, ``"warn"`` only warns when the cap is exceeded,
            ``"raise"`` raises :class:`BudgetExceeded`.
        anneal: Whether the learning rate follows a schedule that ends at the planned steps or at
            the cap, whichever comes first. The module's own scheduler applies unchanged while the
            cap lasts as long as the planned steps.
        keep_j: More joules to set aside, for work that follows the fit.
        ledger: URL of the ledger in which the cap is recorded, such as
            ``"sqlite:///greentrain.db"``. The default is the ledger of this Trainer's
            ``EnergyMonitor``.
        budget: Name of a budget in ``ledger`` for several fits, each of which reserves from it.
        num_fits: Number of fits that the budget is for. Each reserves an equal part of what is
            left, and what it does not use goes to the later ones. With 1, each fit may use all that
            is left.
        log: Whether to log used and left.
        clock: Returns the present time, aware; for the deadline.

    Attributes:
        stopped: Whether the cap or the deadline ended the fit.
        stop_reason: The :class:`StopReason`; ``NOT_STOPPED`` while the cap holds.
        reason: The same in one sentence, with amounts; empty while the cap holds.

    Raises:
        ConfigurationError: If the cap is not a positive energy or emission with its unit, or an
            option is not allowed. Also in ``setup``, if a cap of carbon has neither zone nor
            intensity, or the present intensity is unknown. Also in ``on_fit_start``, if the ledger
            has another budget of this name.
        LedgerError: In ``setup`` or ``on_fit_start``, if ``ledger`` cannot be written.
        MisconfigurationException: In ``setup``, if this Trainer's ``EnergyMonitor`` has another
            zone, intensity or PUE.

    Example:
        >>> BudgetGuard("0.5 kWh").cap_j
        1800000.0
        >>> BudgetGuard("500 gCO2e", zone="DE").cap_g
        500.0
    """

    _state = ReturnedResult()

    def __init__(
        self,
        cap: str | Budget | None = None,
        *,
        deadline: str | datetime | None = None,
        meter: Meter | WindowRecorder | None = None,
        zone: str | None = None,
        intensity: IntensityProvider | str | None = None,
        pue: float | None = None,
        on_exceed: Literal["stop", "warn", "raise"] = "stop",
        anneal: bool = False,
        keep_j: float = 0.0,
        ledger: str | None = None,
        budget: str | None = None,
        num_fits: int = 1,
        log: bool = True,
        clock: Callable[[], datetime] = local_now,
    ) -> None:
        self._cap = check_cap(cap, deadline, budget=budget, ledger=ledger, anneal=anneal)
        self.carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue)
        check_options(meter, on_exceed, keep_j)
        super().__init__(deadline, on_exceed, clock)
        check_budget(ledger, budget, num_fits, on_exceed)
        self.meter, self.ledger, self.budget = meter, ledger, budget
        self.num_fits = int(num_fits)
        self.log_metrics, self.anneal, self.keep_j = log, anneal, keep_j
        self._usage: FitUsage | None = None  # during the fit only
        self._state = {}  # of the last fit, once it has ended
        self._lease: MeterLease | None = None
        self._account: CapAccount | None = None
        self._unit: Unit = self._cap.unit if self._cap else "J"
        self._limit = 0.0  # of this fit
        self._refused, self._next_check = False, 0.0
        self._logger = EpochLogger()
        self._rates = RateScaler((), float)

    @property
    def cap_j(self) -> float | None:
        """The cap in joules; ``None`` without a cap of energy."""
        return self._cap.energy_j if self._cap else None

    @property
    def cap_g(self) -> float | None:
        """The cap in grams of CO2 equivalent; ``None`` without a cap of carbon."""
        return self._cap.carbon_g if self._cap else None

    @property
    def used_j(self) -> float:
        """Joules that the fit had used at the last reading of the meter."""
        return self._usage.used_j if self._usage else self._state.get("used_j", 0.0)

    @property
    def used_g(self) -> float | None:
        """Grams of CO2 equivalent of ``used_j``; ``None`` without zone or intensity."""
        return self._usage.used_g if self._usage else self._state.get("used_g")

    @property
    def joules_per_step(self) -> float | None:
        """Mean joules of a step, without validation and saving; ``None`` until measured."""
        return self._usage.step.mean_j if self._usage else self._state.get("joules_per_step")

    @property
    def steps(self) -> int:
        """Batches trained on, including those before a resume."""
        return self._usage.steps if self._usage else self._state.get("steps", 0)

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        # A cap may be raised on resuming, and caps of energy and carbon may be combined.
        name = "" if self.budget is None else f", 'budget': {self.budget!r}"
        unit = self._unit if self._cap else "s"
        return f"BudgetGuard{{'unit': {unit!r}, 'on_exceed': {self.on_exceed!r}{name}}}"

    @property
    def record(self) -> RunRecord | None:
        """The record of the present fit, with which another guard notes its cap."""
        return self._account.record if self._account else None

    def _repr_html_(self) -> str:
        used, limit = format_amount(self._use.used, self._unit), self._cap or self._deadline
        title = f"BudgetGuard: {used} of {limit} used"
        return energy_html(title, {"fit": self.used_j}, grams=self.used_g)

    def on_prepare_data(self, trainer: Trainer) -> None:
        """Start to measure the preparation of a fit's data, which the cap includes."""
        if trainer.state.fn == "fit" and self._cap is not None:
            start_early(trainer, self.meter)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to measure a fit; other stages are not guarded."""
        if stage != "fit":
            return
        self.stopped, self.stop_reason, self.reason = False, StopReason.NOT_STOPPED, ""
        self._begin_watch()
        if self._cap is None:
            return
        carbon, step_j = carbon_of(trainer, self.carbon, self._cap), self.joules_per_step
        self._next_check, self._refused = 0.0, False
        self._limit = self._cap.amount or 0.0
        self._lease = MeterLease(trainer, self.meter)
        self._usage = FitUsage(trainer, self._lease, carbon, self._cap)
        if self.budget is not None and step_j is not None:
            self._usage.resume({"steps": 0, "joules_per_step": step_j})
        self._account = CapAccount(
            trainer, type(pl_module).__name__, ledger=self.ledger, meter=self.meter, carbon=carbon
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the cap, or reserve this fit's part of a budget for several fits."""
        if self._usage is None or self._account is None or self._cap is None:
            return
        if self.budget is None or is_trial(trainer):  # a trial run pays from no budget
            self._account.note_cap(trainer, self._cap)
            return
        reserved = self._account.reserve(trainer, self.budget, self._cap, self.num_fits)
        if isinstance(reserved, str):
            self._refuse(trainer, reserved)
        else:
            self._limit = reserved
            self._usage.limit(reserved)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bound the first step and the end of the fit, and start annealing if it is on."""
        self._watch(trainer)
        self.skip_gap()
        if self._usage is None:
            return
        self._usage.begin_training()
        if self.anneal:
            self._rates.remove()  # Lightning's tuner starts training several times in a fit
            self._rates = annealed_rates(trainer, self._usage)
        self._check(trainer, trainer.current_epoch)

    def wait(self, paid: Reading | None = None) -> None:
        """Begin a wait between two steps; or leave one out that another reservation paid for."""
        if self._usage is not None:
            self._usage.wait(paid)
            self._next_check = 0.0

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Separate this batch from a pause before it."""
        self._begin_timed_step()
        if self._usage is not None:
            self._usage.begin_step()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Read the meter if this batch may have come near the cap, and the clock likewise."""
        self._end_timed_step(trainer)
        if self._usage is None:
            return
        self._usage.steps += 1
        if self._usage.steps >= self._next_check:
            self._usage.measure()
            self._check(trainer, trainer.current_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure a validation."""
        if self._usage is not None and not trainer.sanity_checking:
            self._usage.enter("validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the energy of the validation, and check that the cap pays for another."""
        if self._usage is not None and not trainer.sanity_checking:
            self._usage.enter("validation" if self._usage.end.saves else None)
            due = ("validation", "epoch") if trainer.is_last_batch else ("validation",)
            self._check(trainer, trainer.current_epoch, *due)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the cap pays for the end of the next epoch, and log used and left."""
        if self._usage is None:
            return
        # Ending the next epoch may include a validation.
        if self._usage.end.saves or trainer.check_val_every_n_epoch not in (None, 1):
            self._usage.enter("epoch")
            self._check(trainer, trainer.current_epoch + 1, "epoch")
        self._log_left(trainer, self._usage.estimate)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Separate this epoch from the pause before it."""
        if self._usage is not None:
            self._usage.begin_step()

    def on_save_checkpoint(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Measure the saving of a checkpoint apart from steps."""
        if self._usage is not None:
            self._usage.saving()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the meter a last time, and report a cap that was exceeded."""
        if self._usage is None:
            return
        self._usage.finish()
        reason = stop_reason(self._usage.left_j, None)
        if reason is not StopReason.NOT_STOPPED and not self._refused:
            self._react(trainer, reason, self.used_j, ended=True)
        self._log_left(trainer, self._usage.estimate)
        self._end()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the meter and the learning rate, and settle."""
        self._close(trainer, "completed")

    def on_exception(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Close as failed: Lightning calls no ``teardown`` then."""
        self._close(trainer, **ended_as(args))
        abandon_early(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the usage up to now: a resumed fit continues under the same cap."""
        if self._usage is not None:
            self._usage.measure()
            return self._usage.state()
        return dict(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the usage of an earlier part of the fit; a named budget has paid it."""
        if self._usage is not None:
            self._usage.resume(state_dict, paid=self.budget is not None)

    def _check(self, trainer: Trainer, epoch: int, *due: str) -> None:
        """Stop a fit that cannot pay for another step, else schedule the next reading."""
        usage = self._usage
        ended = self.stop_reason is not StopReason.NOT_STOPPED
        if usage is None or ended or not usage.last.measured:
            self._next_check = math.inf
            return
        needed_j: float | None = None
        if self.on_exceed != "warn":
            needed_j = usage.set_aside(
                *due, validates=validates(trainer, epoch), more_j=self.keep_j
            )
        last_step = usage.steps > 0 and is_finished(trainer)
        reason = stop_reason(usage.left_j, needed_j, last_step=last_step)
        # All ranks decide alike without another collective: they have the same sums of readings.
        if reason is not StopReason.NOT_STOPPED:
            self._react(trainer, reason, needed_j or 0.0)
        else:
            free_j = usage.left_j - (needed_j or 0.0)
            self._next_check = usage.steps + usage.step.steps_until_check(free_j)

    def _react(
        self, trainer: Trainer, reason: StopReason, needed_j: float, *, ended: bool = False
    ) -> None:
        """Record why the cap does not hold, and stop, warn or raise."""
        known = self.stop_reason is reason
        self.stop_reason, self.reason = reason, self._use.exceeded
        if reason is StopReason.NO_ROOM:
            self.reason = self._use.no_room(self.steps, "the end of the fit", needed_j)
        if self.on_exceed == "raise":
            self._end()
            left_j = max(0.0, self._usage.left_j) if self._usage else 0.0
            raise BudgetExceeded(self.reason, requested_j=needed_j, left_j=left_j)
        if reason is StopReason.NO_ROOM:
            self._stop(trainer)
        elif not known and not isinstance(self.meter, WindowRecorder):  # its owner says it
            continues = self.on_exceed == "warn" and not ended
            goes_on = "; training continues: on_exceed='warn'" if continues else ""
            warn(f"BudgetGuard: {self.reason}{goes_on}")

    def _refuse(self, trainer: Trainer, reason: str) -> None:
        """Train nothing, because the budget of several fits has nothing left."""
        self._refused, self._limit = True, 0.0
        self.stop_reason, self.reason = StopReason.NO_ROOM, reason
        if self.on_exceed == "raise":
            raise BudgetExceeded(reason, requested_j=None, left_j=0.0)
        trainer.num_sanity_val_steps = 0
        self._stop(trainer)
        self._end()

    def _log_left(self, trainer: Trainer, used: float) -> None:
        if self.log_metrics:
            metrics = budget_metrics(used, self._limit, self._unit)
            show(trainer, metrics)
            self._logger.log(trainer, metrics)

    def _end(self) -> None:
        if self._account is not None:
            self._account.end(self._use, stopped=self.stopped)

    @property
    def _use(self) -> CapUse:
        used = (self.used_j if self.cap_g is None else self.used_g) or 0.0
        return CapUse(work="fit", used=used, limit=self._limit, unit=self._unit, budget=self.budget)

    def _close(self, trainer: Trainer, status: str, *, alone: bool = False) -> None:
        self._rates.remove()
        if self._account is not None:
            before_j = None if self._usage is None else self._usage.before_j
            self._account.close(status, alone=alone, resumed_j=before_j)
            self._account = None
        if self._usage is not None:
            self._state = self._usage.end_state(alone=alone)
            if trainer.is_global_zero:
                returned = ("stopped", "stop_reason", "reason", "_state")
                self.origin.hand_over({name: getattr(self, name) for name in returned})
        if self._lease is not None:
            self._lease.release()
        self._lease = self._usage = None
