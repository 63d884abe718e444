"""Stop a fit in order before it draws more than it may."""

from __future__ import annotations

import math
from typing import Any, Literal

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from pytorch_lightning import LightningModule, Trainer

from greentrain.budget import Budget, format_amount
from greentrain.callbacks.anneal import Annealing, NoAnnealing
from greentrain.callbacks.base import Callback
from greentrain.callbacks.meter_lease import Lease
from greentrain.callbacks.trainer_plan import finished, validates
from greentrain.callbacks.watch import Watch
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.energy import Meter, WindowRecorder
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.units import format_energy


class BudgetGuard(Callback):
    """Keep one fit within a cap of energy or carbon, its closing validation and saving included.

    The meter is read as seldom as the cap allows: from the joules per step measured so far the
    guard knows how many steps cannot cross it. It keeps aside what one step, one validation, saving
    a checkpoint and what the meter lags (0.1 s for most) may still draw: as measured in this fit,
    and until then as bounded from its training steps. Reaching the cap ends the fit in order, after
    the batch at hand, also where ``min_epochs`` asks for more; where it is known before the first
    batch that nothing fits in, no step is taken. What is measured is everything that the meter
    counts from the fit's start.

    Args:
        cap: What the fit may draw: text such as ``"0.5 kWh"`` or ``"500 gCO2e"``, or joules.
        meter: Where joules come from; by default what this Trainer's ``EnergyMonitor`` uses, else
            the best that this machine has.
        zone: Where this machine gets its power, such as ``"DE"``. A cap of carbon needs a zone or
            an intensity.
        intensity: A provider of carbon intensities, in place of a zone. One that changes with time
            is applied from one reading of the meter to the next.
        pue: Power usage effectiveness of the building: a factor of the grams.
        on_exceed: ``"stop"`` ends the fit, ``"warn"`` only warns, ``"raise"`` raises
            :class:`BudgetExceeded`.
        anneal: Whether the learning rate follows a schedule that ends at the planned steps or at
            the cap, whichever comes first. A scheduler of the module's own keeps the lead as long
            as the cap lasts as long as its steps.
        keep_j: Joules to keep aside for what follows the fit, besides all of the above.

    Attributes:
        stopped: Whether the cap ended the fit.
        reason: Why, in one sentence; empty if it did not.

    Raises:
        ConfigurationError: If the cap is not a positive energy or emission, one of carbon has
            neither zone nor intensity, or an option is not allowed; in ``setup``, if the intensity
            is not known then.

    Example:
        >>> BudgetGuard("0.5 kWh").cap_j
        1800000.0
        >>> BudgetGuard("500 gCO2e", zone="DE").cap_g
        500.0
    """

    def __init__(
        self,
        cap: str | float,
        *,
        meter: Meter | WindowRecorder | None = None,
        zone: str | None = None,
        intensity: IntensityProvider | None = None,
        pue: float | None = None,
        on_exceed: Literal["stop", "warn", "raise"] = "stop",
        anneal: bool = False,
        keep_j: float = 0.0,
    ) -> None:
        self._cap = _cap(cap)
        self.carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue)
        if self.cap_g is not None and zone is None and intensity is None:
            raise ConfigurationError(
                f"the cap {cap!r} is one of carbon; give BudgetGuard where the power comes from "
                "too, such as zone='DE', or an intensity"
            )
        if on_exceed not in ("stop", "warn", "raise"):
            raise ConfigurationError(
                f"on_exceed is {on_exceed!r}; allowed are 'stop', 'warn' and 'raise'"
            )
        if not (math.isfinite(keep_j) and keep_j >= 0):
            raise ConfigurationError(f"keep_j is {keep_j!r}; it is in joules, 0 or more")
        self.meter = meter
        self.on_exceed = on_exceed
        self.anneal = anneal
        self.keep_j = keep_j
        self.stopped = False
        self.reason = ""
        self._watch: Watch | None = None  # while the fit lasts
        self._seen: Watch | None = None  # and afterwards
        self._lease: Lease | None = None
        self._annealing: Annealing | NoAnnealing = NoAnnealing()
        self._next_look = 0.0

    @property
    def cap_j(self) -> float | None:
        """The cap in joules; ``None`` if it is one of carbon."""
        return self._cap.energy_j

    @property
    def cap_g(self) -> float | None:
        """The cap in grams of CO2 equivalent; ``None`` if it is one of energy."""
        return self._cap.carbon_g

    @property
    def used_j(self) -> float:
        """Joules that the fit had drawn when the meter was last read."""
        return self._seen.used_j if self._seen else 0.0

    @property
    def used_g(self) -> float | None:
        """Grams of the same; ``None`` without zone or intensity."""
        return self._seen.used_g if self._seen else None

    @property
    def joules_per_step(self) -> float | None:
        """Mean joules of a step, without validating and saving; ``None`` until known."""
        return self._seen.pace.mean_j if self._seen else None

    @property
    def steps(self) -> int:
        """Batches trained on, those before a resume included."""
        return self._seen.steps if self._seen else 0

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        # A cap may be raised on resuming, and there may be one of energy and one of carbon.
        return f"BudgetGuard{{'unit': {self._cap.unit!r}, 'on_exceed': {self.on_exceed!r}}}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch a fit; other stages are not watched."""
        if stage != "fit":
            return
        self.stopped, self.reason, self._next_look = False, "", 0.0
        self._lease = Lease(trainer, self.meter)
        self._watch = self._seen = Watch(trainer, self._lease, self.carbon, self._cap)
        if self.cap_g is not None and self._watch.used_g is None:
            self._close()
            raise ConfigurationError(
                f"the cap is {self._whole}, and the carbon intensity of this moment is not known; "
                "give an intensity that covers the fit"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plan the fit's steps and its end, and take over the learning rate if asked to."""
        if self._watch is None:
            return
        self._watch.plan()
        if self.anneal:
            self._annealing.remove()  # Lightning's tuner starts training several times in a fit
            self._annealing = Annealing(trainer, self._watch)
        self._evaluate(trainer, trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End what was between the last batch and this one."""
        if self._watch is not None and self._watch.is_apart:
            self._watch.mark(None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the meter where this batch may have come near the cap."""
        if self._watch is None:
            return
        self._watch.steps += 1
        if self._watch.steps >= self._next_look:
            self._watch.measure()
            self._evaluate(trainer, trainer.current_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure what a validation draws."""
        if self._watch is not None and not trainer.sanity_checking:
            self._watch.mark("validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the dearest validation in mind, and see whether another one can be paid."""
        if self._watch is not None and not trainer.sanity_checking:
            self._watch.mark("validation" if self._watch.ending.saves else None)
            due = ("validation", "epoch") if trainer.is_last_batch else ("validation",)
            self._evaluate(trainer, trainer.current_epoch, *due)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether the next epoch's end can be paid: it may be one with a validation."""
        if self._watch is not None and (
            self._watch.ending.saves or trainer.check_val_every_n_epoch not in (None, 1)
        ):
            self._watch.mark("epoch")
            self._evaluate(trainer, trainer.current_epoch + 1, "epoch")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End what came after the last epoch."""
        if self._watch is not None and self._watch.is_apart:
            self._watch.mark(None)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note that a checkpoint is being saved."""
        if self._watch is not None:
            self._watch.saving()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the meter a last time, and tell if more was drawn than may be."""
        if self._watch is not None:
            self._watch.finish()
            if self._watch.left < 0 and (self.stopped or not self.reason):
                self._overran()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the meter and the learning rate."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let go of the meter and the learning rate: Lightning calls no ``teardown`` then."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return what was drawn up to now: a resumed fit goes on under the same cap."""
        if self._watch is not None:
            self._watch.measure()
        return self._seen.state() if self._seen else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what an earlier part of the fit drew."""
        if self._watch is not None:
            self._watch.go_on(state_dict)

    def _evaluate(self, trainer: Trainer, epoch: int, *due: str) -> None:
        """End the fit unless another step and an end in this epoch fit in, else plan a look."""
        watch = self._watch
        if watch is None or not watch.measured or self.reason:
            self._next_look = math.inf
            return
        watch.keep(validates=validates(trainer, epoch), more_j=self.keep_j)
        needed_j = watch.due_j(*due) + watch.pace.step_j + watch.kept_j
        free_j = watch.left_j - needed_j
        if not trainer.strategy.reduce_boolean_decision(free_j <= 0, all=False):
            self._next_look = watch.steps + watch.pace.steps_until_look(free_j)
        elif not (watch.steps and finished(trainer)):
            self._exceed(trainer, needed_j, watch.left_j)

    def _exceed(self, trainer: Trainer, needed_j: float, left_j: float) -> None:
        self.reason = (
            f"{self._used} of {self._whole} were drawn after {self.steps} steps, and one more with "
            f"the fit's end may draw {format_energy(needed_j)}"
        )
        if self.on_exceed == "warn":
            rank_zero_warn(f"BudgetGuard: {self.reason}; training goes on, as asked")
            return
        self.stopped = True
        if self.on_exceed == "raise":
            raise BudgetExceeded(self.reason, asked_j=needed_j, left_j=max(0.0, left_j))
        rank_zero_info(f"BudgetGuard: {self.reason}, so the fit ends here")
        # `min_epochs` and `min_steps` would have Lightning train on: the guard wins.
        trainer.fit_loop.min_epochs = 0
        trainer.fit_loop.epoch_loop.min_steps = 0
        trainer.should_stop = True

    def _overran(self) -> None:
        self.reason = f"{self._used} were drawn, over the cap of {self._whole}"
        if self.on_exceed == "raise":
            raise BudgetExceeded(self.reason, asked_j=self.used_j, left_j=0.0)
        rank_zero_warn(f"BudgetGuard: {self.reason}")

    @property
    def _used(self) -> str:
        return format_amount(self.used_j if self.cap_g is None else self.used_g, self._cap.unit)

    @property
    def _whole(self) -> str:
        return format_amount(self._cap.amount, self._cap.unit)

    def _close(self) -> None:
        self._annealing.remove()
        if self._lease is not None:
            self._lease.release()
            self._lease = self._watch = None


def _cap(cap: str | float) -> Budget:
    budget = Budget.parse(cap) if isinstance(cap, str) else Budget(energy_j=cap)
    if budget.amount is None or budget.per is not None:
        raise ConfigurationError(
            f"the cap {cap!r} is no amount for one fit; give BudgetGuard an energy or an emission, "
            "such as '0.5 kWh' or '500 gCO2e'"
        )
    return budget
