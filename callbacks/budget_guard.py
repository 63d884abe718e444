"""Stop a fit in order before it draws more than it may."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from pytorch_lightning import LightningModule, Trainer

from greentrain.budget import Budget
from greentrain.callbacks.anneal import RateScaler, catch_up, shape
from greentrain.callbacks.base import Callback
from greentrain.callbacks.recording import Lease
from greentrain.energy import Meter, Reading, WindowRecorder
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.units import format_energy

WARM_UP_STEPS = 5
LAG_S = 0.1
"""Seconds that a meter may be behind: NVML's counters and the kernel's load tick at about 0.1 s."""
_LOOK_AHEAD = 0.25


class BudgetGuard(Callback):
    """Keep one fit within a cap of energy, the closing validation included.

    The meter is read as seldom as the cap allows: from the joules per step measured so far the
    guard knows how many steps cannot cross it. It keeps aside what one step, one validation and the
    meter's lag of 0.1 s may still draw. Reaching the cap ends the fit in order, after the batch at
    hand, also where ``min_epochs`` asks for more. What is measured is everything that the meter
    counts from the fit's start.

    Args:
        cap: Energy that the fit may draw: text such as ``"0.5 kWh"``, or joules.
        meter: Where joules come from; by default what this Trainer's ``EnergyMonitor`` uses, else
            the best that this machine has.
        on_exceed: ``"stop"`` ends the fit, ``"warn"`` only warns, ``"raise"`` raises
            :class:`BudgetExceeded`.
        anneal: Whether the learning rate follows a schedule that ends at the planned steps or at
            the cap, whichever comes first. A scheduler of the module's own keeps the lead as long
            as the energy lasts as long as its steps.
        keep_j: Joules to keep aside for what follows the fit, besides step and validation.

    Attributes:
        used_j: Joules that the fit had drawn when the meter was last read.
        joules_per_step: Mean joules of a step, the first five left out; ``None`` until known.
        steps: Batches trained on, those before a resume included.
        stopped: Whether the cap ended the fit.
        reason: Why, in one sentence; empty if it did not.

    Raises:
        ConfigurationError: If the cap is not a positive energy or an option is not allowed.

    Example:
        >>> BudgetGuard("0.5 kWh").cap_j
        1800000.0
    """

    def __init__(
        self,
        cap: str | float,
        *,
        meter: Meter | WindowRecorder | None = None,
        on_exceed: Literal["stop", "warn", "raise"] = "stop",
        anneal: bool = False,
        keep_j: float = 0.0,
    ) -> None:
        self.cap_j = _cap_j(cap)
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
        self._trainer: Trainer | None = None
        self._lease: Lease | None = None
        self._scaler: RateScaler | None = None
        self._reset()

    def _reset(self) -> None:
        self.used_j = 0.0
        self.joules_per_step: float | None = None
        self.steps = 0
        self.stopped = False
        self.reason = ""
        self._earlier_j = 0.0
        self._start: Reading | None = None
        self._warm: tuple[int, float] | None = None
        self._next_check = 0
        self._planned_steps: float = math.inf
        self._validation_j = 0.0
        self._lag_j = 0.0
        self._validation_start_j: float | None = None

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return f"BudgetGuard{{'on_exceed': {self.on_exceed!r}}}"  # a cap may be raised on resuming

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch a fit; other stages are not watched."""
        if stage == "fit":
            self._reset()
            self._trainer = trainer
            self._lease = Lease(trainer, self.meter)
            self._start = self._lease.recorder.read()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plan the fit's steps and take over the learning rate, if asked to."""
        self._planned_steps = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
        if self.anneal:
            scheduled = bool(trainer.lr_scheduler_configs)
            factor = self._factor_with_scheduler if scheduled else self._factor
            self._scaler = RateScaler(trainer.optimizers, factor)
        self._evaluate(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the meter where this batch may have come near the cap."""
        self.steps += 1
        if self.steps >= self._next_check:
            self._evaluate(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where a validation begins, to know what one draws."""
        self._validation_start_j = self._used_j(trainer) if self._lease else None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the dearest validation in mind; a fit that ends here needs no other one."""
        if self._validation_start_j is not None:
            drawn_j = self._used_j(trainer) - self._validation_start_j
            self._validation_j = max(self._validation_j, drawn_j)
            self._validation_start_j = None
            if not trainer.sanity_checking:
                self._evaluate(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the meter a last time."""
        self._measure(trainer)

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
        if self._trainer is not None:
            self.used_j = self._used_j(self._trainer)
        return {"used_j": self.used_j, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what an earlier part of the fit drew."""
        self._earlier_j = float(state_dict["used_j"])
        self.steps = int(state_dict["steps"])

    def _evaluate(self, trainer: Trainer) -> None:
        self._measure(trainer)
        step_j = self.joules_per_step or (self.used_j / self.steps if self.steps else 0.0)
        left_j = self._room_j() - self.used_j - step_j
        if left_j > 0:
            self._next_check = self.steps + _steps_until_next_look(left_j, step_j, self.steps)
            return
        self._next_check = self.steps + 1
        if not self.reason:
            self._exceed(trainer)

    def _exceed(self, trainer: Trainer) -> None:
        self.reason = (
            f"{format_energy(self.used_j)} of {format_energy(self.cap_j)} were drawn after "
            f"{self.steps} steps"
        )
        if self.on_exceed == "warn":
            rank_zero_warn(f"BudgetGuard: {self.reason}; training goes on, as asked")
            return
        self.stopped = True
        if self.on_exceed == "raise":
            raise BudgetExceeded(self.reason, asked_j=self.used_j, left_j=0.0)
        rank_zero_info(f"BudgetGuard: {self.reason}, and the fit ends here")
        # `min_epochs` and `min_steps` would have Lightning train on: the guard wins.
        trainer.fit_loop.min_epochs = 0
        trainer.fit_loop.epoch_loop.min_steps = 0
        trainer.should_stop = True

    def _measure(self, trainer: Trainer) -> None:
        if self._lease is None:
            return
        self.used_j = self._used_j(trainer)
        if self._warm is None:
            if self.steps >= WARM_UP_STEPS:
                self._warm = (self.steps, self.used_j)
        elif self.steps > self._warm[0]:
            self.joules_per_step = (self.used_j - self._warm[1]) / (self.steps - self._warm[0])

    def _used_j(self, trainer: Trainer) -> float:
        drawn_j = lag_j = 0.0
        if self._lease is not None and self._start is not None:
            drawn = self._lease.recorder.read() - self._start
            drawn_j = drawn.total_j or 0.0
            lag_j = drawn_j * LAG_S / max(drawn.duration_s, LAG_S)
        if trainer.world_size > 1:
            # All ranks see one sum, so that all take the same decision at the same step.
            each = torch.tensor([drawn_j, lag_j], dtype=torch.float64)
            each = each.to(trainer.strategy.root_device)
            drawn_j, lag_j = trainer.strategy.reduce(each, reduce_op="sum").tolist()
        self._lag_j = lag_j
        return self._earlier_j + drawn_j

    def _shares(self) -> tuple[float, float]:
        since = self.steps - (self._warm[0] if self._warm else 0)
        used_j = self.used_j
        if self._warm is not None and self.joules_per_step is not None:
            used_j = max(used_j, self._warm[1] + since * self.joules_per_step)
        return (self.steps + 1) / self._planned_steps, used_j / max(self._room_j(), 1e-12)

    def _room_j(self) -> float:
        return self.cap_j - self.keep_j - self._validation_j - self._lag_j

    def _factor(self) -> float:
        return shape(max(self._shares()))

    def _factor_with_scheduler(self) -> float:
        return catch_up(*self._shares())

    def _close(self) -> None:
        if self._scaler is not None:
            self._scaler.remove()
            self._scaler = None
        if self._lease is not None:
            self._lease.release()
            self._lease = self._trainer = None


def _cap_j(cap: str | float) -> float:
    if isinstance(cap, str):
        energy_j = Budget.parse(cap).energy_j
        if energy_j is None:
            raise ConfigurationError(
                f"the cap {cap!r} has no amount; give BudgetGuard an energy, such as '0.5 kWh'"
            )
        return energy_j
    return Budget(energy_j=cap).energy_j or 0.0


def _steps_until_next_look(left_j: float, step_j: float, steps: int) -> int:
    """Return how many steps cannot cross what is left, were each four times as dear as so far."""
    if steps < WARM_UP_STEPS:
        return 1
    if step_j <= 0:
        return 10
    return max(1, int(_LOOK_AHEAD * left_j / step_j))
