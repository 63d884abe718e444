"""Stop a fit before it uses more energy or carbon than its cap."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Literal

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from pytorch_lightning import LightningModule, Trainer

from greentrain.budget import Budget, format_amount
from greentrain.callbacks.anneal import RateScaler, annealed_rates
from greentrain.callbacks.base import Callback
from greentrain.callbacks.meter_lease import MeterLease
from greentrain.callbacks.trainer_plan import is_finished, validates
from greentrain.callbacks.usage import FitUsage
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.energy import Meter, WindowRecorder
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.units import format_energy

_ON_EXCEED = ("stop", "warn", "raise")


class StopReason(Enum):
    """Reason for which a :class:`BudgetGuard` stopped a fit or warned about it."""

    NOT_STOPPED = 0
    NO_ROOM = 1
    """The rest of the cap does not pay for another step and the end of the fit."""
    CAP_EXCEEDED = 2
    """The fit used more than its cap."""


class BudgetGuard(Callback):
    """Keep one fit within a cap of energy or carbon, including its closing validation and saving.

    The guard reads the meter as seldom as the cap allows. From the joules per step measured so far,
    it derives how many steps cannot exceed the cap. It sets energy aside for one step, one
    validation, saving a checkpoint, and the lag of the meter (0.1 s for most meters). These amounts
    are measured in this fit; until then, they are bounded from its training steps.

    At the cap, the fit ends cleanly after the current batch, even if ``min_epochs`` demands more.
    If it is known before the first batch that no step fits, no step is taken. All energy that the
    meter counts from the start of the fit is included.

    Args:
        cap: The most that the fit may use: text such as ``"0.5 kWh"`` or ``"500 gCO2e"``, or a
            :class:`greentrain.Budget`. A number without a unit is refused.
        meter: The source of joules. The default is the meter of this Trainer's ``EnergyMonitor``,
            else the best meter for this machine.
        zone: Electricity zone of this machine, such as ``"DE"``. A cap of carbon needs a zone or an
            intensity.
        intensity: A provider of carbon intensities, instead of a zone. An intensity that changes
            with time is applied between two readings of the meter.
        pue: Power usage effectiveness of the building: a factor of the grams.
        on_exceed: ``"stop"`` ends the fit, ``"warn"`` only warns, ``"raise"`` raises
            :class:`BudgetExceeded`.
        anneal: Whether the learning rate follows a schedule that ends at the planned steps or at
            the cap, whichever comes first. The module's own scheduler applies unchanged while the
            cap lasts as long as the planned steps.
        keep_j: More joules to set aside, for work that follows the fit.

    Attributes:
        stopped: Whether the cap ended the fit.
        stop_reason: The :class:`StopReason`; ``NOT_STOPPED`` while the cap holds.
        reason: The same in one sentence, with amounts; empty while the cap holds.

    Raises:
        ConfigurationError: If the cap is not a positive energy or emission, a cap of carbon has
            neither zone nor intensity, or an option is not allowed. Also in ``setup``, if the
            present intensity is unknown.

    Example:
        >>> BudgetGuard("0.5 kWh").cap_j
        1800000.0
        >>> BudgetGuard("500 gCO2e", zone="DE").cap_g
        500.0
    """

    def __init__(
        self,
        cap: str | Budget,
        *,
        meter: Meter | WindowRecorder | None = None,
        zone: str | None = None,
        intensity: IntensityProvider | None = None,
        pue: float | None = None,
        on_exceed: Literal["stop", "warn", "raise"] = "stop",
        anneal: bool = False,
        keep_j: float = 0.0,
    ) -> None:
        self._cap = _parse_cap(cap)
        self.carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue)
        if self.cap_g is not None and zone is None and intensity is None:
            raise ConfigurationError(
                f"BudgetGuard(cap={cap!r}) limits carbon, and the carbon intensity is unknown; "
                "add a zone such as zone='DE', or an intensity"
            )
        if on_exceed not in _ON_EXCEED:
            raise ConfigurationError(
                f"BudgetGuard(on_exceed={on_exceed!r}) is not allowed; choose one of {_ON_EXCEED}"
            )
        if not (math.isfinite(keep_j) and keep_j >= 0):
            raise ConfigurationError(
                f"BudgetGuard(keep_j={keep_j!r}) is not allowed; give joules, 0 or more"
            )
        self.meter = meter
        self.on_exceed = on_exceed
        self.anneal = anneal
        self.keep_j = keep_j
        self.stopped = False
        self.stop_reason = StopReason.NOT_STOPPED
        self.reason = ""
        self._usage: FitUsage | None = None  # during the fit only
        self._last_usage: FitUsage | None = None  # after the fit, too
        self._lease: MeterLease | None = None
        self._rates = RateScaler((), lambda: 1.0)
        self._next_check = 0.0

    @property
    def cap_j(self) -> float | None:
        """The cap in joules; ``None`` for a cap of carbon."""
        return self._cap.energy_j

    @property
    def cap_g(self) -> float | None:
        """The cap in grams of CO2 equivalent; ``None`` for a cap of energy."""
        return self._cap.carbon_g

    @property
    def used_j(self) -> float:
        """Joules that the fit had used at the last reading of the meter."""
        return self._last_usage.used_j if self._last_usage else 0.0

    @property
    def used_g(self) -> float | None:
        """Grams of CO2 equivalent of ``used_j``; ``None`` without zone or intensity."""
        return self._last_usage.used_g if self._last_usage else None

    @property
    def joules_per_step(self) -> float | None:
        """Mean joules of a step, without validation and saving; ``None`` until measured."""
        return self._last_usage.step.mean_j if self._last_usage else None

    @property
    def steps(self) -> int:
        """Batches trained on, including those before a resume."""
        return self._last_usage.steps if self._last_usage else 0

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        # A cap may be raised on resuming, and a cap of energy may accompany a cap of carbon.
        return f"BudgetGuard{{'unit': {self._cap.unit!r}, 'on_exceed': {self.on_exceed!r}}}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to measure a fit; other stages are not guarded."""
        if stage != "fit":
            return
        self.stopped, self.stop_reason, self.reason = False, StopReason.NOT_STOPPED, ""
        self._next_check = 0.0
        self._lease = MeterLease(trainer, self.meter)
        self._usage = self._last_usage = FitUsage(trainer, self._lease, self.carbon, self._cap)
        if self.cap_g is not None and self._usage.used_g is None:
            self._close()
            raise ConfigurationError(
                f"BudgetGuard cannot enforce the cap of {self._format(self.cap_g)}: the present "
                "carbon intensity is unknown; give an intensity that covers the time of the fit"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bound the first step and the end of the fit, and start annealing if it is on."""
        if self._usage is None:
            return
        self._usage.begin_training()
        if self.anneal:
            self._rates.remove()  # Lightning's tuner starts training several times in a fit
            self._rates = annealed_rates(trainer, self._usage)
        self._check(trainer, trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Separate this batch from a pause before it."""
        if self._usage is not None:
            self._usage.begin_step()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Read the meter if this batch may have come near the cap."""
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
        """Check that the cap pays for the end of the next epoch, which may include a validation."""
        if self._usage is not None and (
            self._usage.end.saves or trainer.check_val_every_n_epoch not in (None, 1)
        ):
            self._usage.enter("epoch")
            self._check(trainer, trainer.current_epoch + 1, "epoch")

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
        should_stop, reason = _evaluate(self._usage.left_j, None)
        if should_stop and (self.stopped or self.stop_reason is StopReason.NOT_STOPPED):
            self._react(trainer, reason, self.used_j, self._usage.left_j)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the meter and the learning rate."""
        self._close()

    def on_exception(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Release the meter and the learning rate: Lightning calls no ``teardown`` then."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the usage up to now: a resumed fit continues under the same cap."""
        if self._usage is not None:
            self._usage.measure()
        return self._last_usage.state() if self._last_usage else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the usage of an earlier part of the fit."""
        if self._usage is not None:
            self._usage.resume(state_dict)

    def _check(self, trainer: Trainer, epoch: int, *due: str) -> None:
        """Stop a fit that cannot pay for another step, else schedule the next reading."""
        usage = self._usage
        if (
            usage is None
            or not usage.last.measured
            or self.stop_reason is not StopReason.NOT_STOPPED
        ):
            self._next_check = math.inf
            return
        needed_j = usage.set_aside(*due, validates=validates(trainer, epoch), more_j=self.keep_j)
        last_step = usage.steps > 0 and is_finished(trainer)
        should_stop, _ = _evaluate(usage.left_j, needed_j, last_step=last_step)
        if trainer.strategy.reduce_boolean_decision(should_stop, all=False):
            self._react(trainer, StopReason.NO_ROOM, needed_j, usage.left_j)
        else:
            free_j = usage.left_j - needed_j
            self._next_check = usage.steps + usage.step.steps_until_check(free_j)

    def _react(self, trainer: Trainer, reason: StopReason, needed_j: float, left_j: float) -> None:
        """Record why the cap does not hold, and stop, warn or raise."""
        used = self._format(self.used_j if self.cap_g is None else self.used_g)
        cap = self._format(self._cap.amount)
        self.stop_reason, self.reason = reason, f"the fit used {used}, more than its cap of {cap}"
        if no_room := reason is StopReason.NO_ROOM:
            self.reason = (
                f"the fit used {used} of its cap of {cap} in {self.steps} steps, and one more step "
                f"with the end of the fit may use {format_energy(needed_j)}"
            )
        self.stopped = self.stopped or (no_room and self.on_exceed != "warn")
        if self.on_exceed == "raise":
            raise BudgetExceeded(self.reason, requested_j=needed_j, left_j=max(0.0, left_j))
        if not no_room:
            rank_zero_warn(f"BudgetGuard: {self.reason}")
        elif self.on_exceed == "warn":
            rank_zero_warn(f"BudgetGuard: {self.reason}; training continues: on_exceed='warn'")
        else:
            rank_zero_info(f"BudgetGuard stops the fit: {self.reason}")
            # `min_epochs` and `min_steps` would make Lightning continue.
            trainer.fit_loop.min_epochs = 0
            trainer.fit_loop.epoch_loop.min_steps = 0
            trainer.should_stop = True

    def _format(self, amount: float | None) -> str:
        return format_amount(amount, self._cap.unit)

    def _close(self) -> None:
        self._rates.remove()
        if self._lease is not None:
            self._lease.release()
            self._lease = self._usage = None


def _evaluate(
    left_j: float, needed_j: float | None, *, last_step: bool = False
) -> tuple[bool, StopReason]:
    """Decide whether a fit has to stop, and why.

    Args:
        left_j: Joules left of the cap.
        needed_j: Joules that one more step and the end of the fit may use; ``None`` after the fit.
        last_step: Whether the last planned step was taken, so that the fit ends anyway.
    """
    if needed_j is None:
        reason = StopReason.CAP_EXCEEDED if left_j < 0 else StopReason.NOT_STOPPED
    else:
        no_room = left_j - needed_j <= 0 and not last_step
        reason = StopReason.NO_ROOM if no_room else StopReason.NOT_STOPPED
    return reason is not StopReason.NOT_STOPPED, reason


def _parse_cap(cap: str | Budget) -> Budget:
    if not isinstance(cap, (str, Budget)):
        raise ConfigurationError(
            f"BudgetGuard(cap={cap!r}) has no unit; write the unit, such as '{_sample(cap)} Wh' or "
            f"'{_sample(cap)} J'"
        )
    budget = Budget.parse(cap) if isinstance(cap, str) else cap
    if budget.amount is None or budget.per is not None:
        raise ConfigurationError(
            f"BudgetGuard(cap={str(cap)!r}) is not an amount for one fit; give an energy such as "
            "'0.5 kWh', or an emission such as '500 gCO2e'"
        )
    return budget


def _sample(cap: object) -> str:
    return f"{cap:g}" if isinstance(cap, (int, float)) and cap > 0 else "0.5"
