"""One fit that is watched: what it has drawn, what of it were steps, and what its end will take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from greentrain.budget import Budget
from greentrain.callbacks import trainer_plan as plan
from greentrain.callbacks.guarding import LAG_S, START, Ending, Look, Pace
from greentrain.callbacks.meter_lease import Lease
from greentrain.callbacks.usage import Drawn, Use
from greentrain.carbon import CarbonAccount

_SOON_DRAWN_J = 36e3
"""What a node may draw while its meter is being set up: a cap below it has to wait for that."""


class Watch:
    """Measure a fit under a cap, its steps apart from what is validated and saved between them.

    Args:
        trainer: The Trainer.
        lease: Its meter.
        carbon: How joules become grams.
        cap: What may be drawn.

    Attributes:
        steps: Batches trained on, those before a resume included.
        used_j: Joules drawn, as last measured.
        used_g: Grams of the same; ``None`` if unknown.
        kept_j: Joules that are set aside for the fit's end.
        measured: Whether the meter measures anything.
        pace: What steps draw.
        ending: What the fit's end will draw.
    """

    def __init__(self, trainer: Any, lease: Lease, carbon: CarbonAccount, cap: Budget) -> None:
        self.steps = 0
        self.used_j = 0.0
        self.used_g: float | None = None
        self.kept_j = 0.0
        self.measured = True
        self.pace = Pace()
        self.ending = Ending()
        self._trainer = trainer
        self._lease = lease
        self._cap_amount = cap.amount or 0.0
        self._of_carbon = cap.unit == "g"
        self._use = Use(trainer, lease, carbon)
        if self._use.g_per_j is not None:
            self.used_g = 0.0
        self._earlier: Mapping[str, Any] = {}
        self._first_step = 0
        self._last, self._drawn = START, Drawn(g_per_j=self._use.g_per_j or 0.0)
        # What is open and is no step, and the joules at its beginning; the first ends with `plan`.
        self._open: tuple[str, float] | None = ("start", 0.0)
        self._apart_j = 0.0
        self._saved = self._warned = False

    @property
    def is_apart(self) -> bool:
        """Whether something is open that is no step."""
        return self._open is not None

    @property
    def left(self) -> float:
        """What is left of the cap, in its unit."""
        used = self.used_g if self._of_carbon else self.used_j
        return self._cap_amount - (used or 0.0)

    @property
    def left_j(self) -> float:
        """Joules that are left, at the present intensity if the cap is one of carbon."""
        if not self._of_carbon:
            return self.left
        return self.left / self._drawn.g_per_j if self._drawn.g_per_j else math.inf * self.left

    def plan(self) -> None:
        """See how the fit will end; before its first step, and on every process."""
        self.ending.batches = plan.validation_batches(self._trainer)
        self.ending.batch_steps = plan.batch_steps(self._trainer)
        self.ending.saves = plan.saves(self._trainer)
        self.measure()
        power_w, lag_s = 0.0, LAG_S
        if self.left_j < _SOON_DRAWN_J:
            sources = self._lease.sources()
            # The same in every process, whatever their order.
            power_w = math.fsum(source.power_limit_w or 0.0 for source in sources)
            lag_s = max((source.lag_s for source in sources), default=LAG_S)
        self.pace = Pace(power_w, self._earlier.get("joules_per_step"), lag_s=lag_s)
        self.mark(None)
        if not self.measured:
            self._warn_once("measures nothing here, so the cap cannot be kept")

    def measure(self) -> None:
        """Read the meter."""
        drawn, steps = self._use.look(), self.steps - self._first_step
        energy_j = drawn.energy_j
        if drawn.gaps:  # the steps since then drew what steps draw
            new_j = (steps - self._last.steps) * (self.pace.mean_j or 0.0)
            energy_j = max(energy_j, self._last.energy_j + new_j)
            self._warn_once("cannot be read any more; steps are taken to draw what they did before")
        apart_j = self._apart_j + (energy_j - self._open[1] if self._open else 0.0)
        self._last = Look(
            steps=steps, seconds=drawn.seconds, energy_j=energy_j, steps_j=energy_j - apart_j
        )
        self._drawn, self.measured = drawn, drawn.measured
        self.pace.look(self._last)
        self.used_j = self._earlier.get("used_j", 0.0) + energy_j
        if self.used_g is not None:
            guessed_g = (energy_j - drawn.energy_j) * drawn.g_per_j
            self.used_g = self._earlier_g() + drawn.carbon_g + guessed_g

    def mark(self, what: str | None) -> None:
        """End what is open beside the steps, and begin something else; ``None`` for steps."""
        self.measure()
        energy_j = self._last.energy_j
        if self._open is not None:
            name, began_j = self._open
            self._apart_j += energy_j - began_j
            self._learn(name, energy_j - began_j)
        self._open = None if what is None else (what, energy_j)
        self._saved = False

    def finish(self) -> None:
        """Measure a last time; a meter that is still being set up is waited for."""
        self._lease.sources()
        self.mark(None)

    def saving(self) -> None:
        """Note that a checkpoint is being saved: alone, unless that belongs to what is open."""
        if self._open is None:
            self.mark("batch")
        self._saved = self.ending.saved = True

    def keep(self, *, validates: bool, more_j: float) -> None:
        """Set aside what ending the fit may draw, and what the meter may be behind.

        Args:
            validates: Whether ending the fit after another step would validate.
            more_j: More joules to set aside.
        """
        end_j = self.ending.kept_j(self.pace.likely_j, validates=validates)
        self.kept_j = end_j + self.pace.lag_j + more_j

    def due_j(self, *after: str) -> float:
        """Return the joules for saving what is due before another step, as at an epoch's end."""
        return self.ending.saving_j(self.pace.likely_j, *after) if after else 0.0

    def share_used(self, *, whole: bool = False) -> float:
        """Return about which share is used by now: of the cap, or of what steps may draw of it.

        Args:
            whole: Whether it is that of the whole cap.
        """
        since = self.steps - self._first_step - self._last.steps
        new_j, per_j = since * (self.pace.mean_j or 0.0), 1.0
        used = self.used_j
        if self._of_carbon:
            used, per_j = self.used_g or 0.0, self._drawn.g_per_j
        room = self._cap_amount - (0.0 if whole else self.kept_j * per_j)
        return (used + new_j * per_j) / room if room > 0 else math.inf

    def lasts(self, done: float) -> bool:
        """Tell whether what is left pays for all planned steps.

        Args:
            done: The share of them that there will have been after the next one.
        """
        steps_left = (self.steps + 1) * (1.0 / done - 1.0) if done > 0 else math.inf
        return steps_left * (self.pace.mean_j or 0.0) <= self.left_j - self.kept_j

    def state(self) -> dict[str, Any]:
        """Return what a resumed fit has to know."""
        return {
            "used_j": self.used_j,
            "used_g": self.used_g,
            "steps": self.steps,
            "joules_per_step": self.pace.mean_j,
            "validation_j": self.ending.validation_j,
            "after_j": dict(self.ending.after_j),
        }

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Go on from what an earlier part of the fit drew and learnt."""
        self._earlier = state
        self.steps = self._first_step = int(state["steps"])
        self.ending.validation_j = state.get("validation_j")
        self.ending.after_j = dict(state.get("after_j", {}))

    def _learn(self, name: str, energy_j: float) -> None:
        if name == "validating":
            self.ending.validated(energy_j + self.pace.lag_j)
        elif name != "start":
            seen = energy_j > 0 or self._saved
            self.ending.drew(name, energy_j + (self.pace.lag_j if seen else 0.0))

    def _earlier_g(self) -> float:
        grams = self._earlier.get("used_g")
        if grams is None:  # the earlier part knew no intensity
            grams = self._earlier.get("used_j", 0.0) * self._drawn.g_per_j
        return float(grams)

    def _warn_once(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            rank_zero_warn(f"BudgetGuard: the meter {what}")
