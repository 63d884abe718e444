"""Measure the energy and carbon that a fit uses, with its steps apart from everything else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, replace
from datetime import datetime
from typing import Any

import torch
from torch import distributed

from greentrain.budget import Budget
from greentrain.callbacks import trainer_plan
from greentrain.callbacks.messages import warn
from greentrain.callbacks.meter_lease import MeterLease
from greentrain.callbacks.usage_bounds import (
    DEFAULT_LAG_S,
    UNMEASURED_SHARE,
    EndBound,
    StepBound,
    UsagePoint,
)
from greentrain.carbon import CarbonAccount
from greentrain.energy import Reading
from greentrain.errors import ConfigurationError
from greentrain.units import utc_now

_EARLY_USE_J = 36e3
"""Joules that a node may use while its meter is being set up: a smaller cap has to wait for it."""


class FitUsage:
    """Measure a fit under a cap, its steps apart from validations and savings between them.

    Args:
        trainer: The Trainer.
        lease: Its meter.
        carbon: Converts joules to grams.
        cap: The most that the fit may use.

    Raises:
        ConfigurationError: If the cap is one of carbon, and the present intensity is unknown.

    Attributes:
        steps: Batches trained on, including those before a resume.
        kept_j: Joules set aside for the end of the fit.
        before_j: Joules of the fit before a resume, of all its parts.
        last: Usage at the last reading, without what was used before a resume.
        step: Energy of a step.
        end: Energy of the end of the fit.
    """

    def __init__(self, trainer: Any, lease: MeterLease, carbon: CarbonAccount, cap: Budget) -> None:
        self.steps = 0
        self.kept_j = 0.0
        self.step = StepBound()
        self.end = EndBound()
        self._trainer = trainer
        self._lease = lease
        self._cap_amount = cap.amount or 0.0
        self._of_carbon = cap.unit == "g"
        self._reader = _UsageReader(trainer, lease, carbon)
        self._has_intensity = self._reader.g_per_j is not None
        if self._of_carbon and not self._has_intensity:
            raise ConfigurationError(
                f"BudgetGuard cannot enforce the cap of {cap}: the present carbon intensity is "
                "unknown; give an intensity that covers the time of the fit"
            )
        self.last = UsagePoint(g_per_j=self._reader.g_per_j or 0.0)
        self._resumed: Mapping[str, Any] = {}
        self.before_j = 0.0
        self._first_step = 0
        # The open phase that is no step, and the joules at its beginning; training ends the first.
        self._phase: tuple[str, float] | None = ("start", 0.0)
        self._phases_j = 0.0
        self._saved = self._warned = False

    @property
    def used_j(self) -> float:
        """Joules used up to the last reading, including those before a resume."""
        return float(self._resumed.get("used_j", 0.0)) + self.last.energy_j

    @property
    def used_g(self) -> float | None:
        """Grams of ``used_j``; ``None`` without an intensity."""
        if not self._has_intensity:
            return None
        resumed_g = self._resumed.get("used_g")
        if resumed_g is None:  # there was no intensity before the resume
            resumed_g = self._resumed.get("used_j", 0.0) * self.last.g_per_j
        return float(resumed_g) + self.last.carbon_g

    @property
    def estimate(self) -> float:
        """Estimated use by now in the cap's unit: steps since the last reading count their mean."""
        new_steps = self.steps - self._first_step - self.last.steps
        new_j = new_steps * (self.step.mean_j or 0.0)
        if self._of_carbon:
            return (self.used_g or 0.0) + new_j * self.last.g_per_j
        return self.used_j + new_j

    @property
    def left_j(self) -> float:
        """Joules left of the cap; a cap of carbon is converted at the present intensity."""
        if not self._of_carbon:
            return self._cap_amount - self.used_j
        left_g = self._cap_amount - (self.used_g or 0.0)
        return left_g / self.last.g_per_j if self.last.g_per_j else math.inf * left_g

    def limit(self, amount: float) -> None:
        """Replace the cap by what was reserved of it, in its unit."""
        self._cap_amount = amount

    def begin_training(self) -> None:
        """Prepare the bounds before the first step; collective, as every measurement is."""
        self.end = replace(
            self.end,
            batches=trainer_plan.validation_batches(self._trainer),
            batch_steps=trainer_plan.batch_steps(self._trainer),
            saves=trainer_plan.saves(self._trainer),
        )
        self.measure()
        power_w, lag_s = 0.0, DEFAULT_LAG_S
        if self.left_j < _EARLY_USE_J:
            sources = self._lease.sources()
            # `fsum` gives the same sum in every process, although the order of sources differs.
            power_w = math.fsum(source.power_limit_w or 0.0 for source in sources)
            lag_s = max((source.lag_s for source in sources), default=DEFAULT_LAG_S)
        mean_j = self._resumed.get("joules_per_step")
        self.step = StepBound(power_w=power_w, mean_j=mean_j, known_j=mean_j, lag_s=lag_s)
        self.enter(None)
        if not self.last.measured:
            self._warn_once("measures nothing on this machine, so the cap is not enforced")

    def measure(self) -> None:
        """Read the meter; every process has to call this."""
        now, steps = self._reader.read(), self.steps - self._first_step
        energy_j, carbon_g = now.energy_j, now.carbon_g
        if now.gaps:
            estimated_j = (steps - self.last.steps) * (self.step.mean_j or 0.0)
            energy_j = max(energy_j, self.last.energy_j + estimated_j)
            carbon_g += (energy_j - now.energy_j) * now.g_per_j
            self._warn_once("can no longer be read; new steps count at the mean of earlier steps")
        phases_j = self._phases_j + (energy_j - self._phase[1] if self._phase else 0.0)
        self.last = replace(
            now, steps=steps, energy_j=energy_j, steps_j=energy_j - phases_j, carbon_g=carbon_g
        )
        self.step = self.step.observe(self.last)

    def enter(self, phase: str | None) -> None:
        """End the open phase, learn from it, and begin another; ``None`` begins steps."""
        self.measure()
        now_j = self.last.energy_j
        if self._phase is not None:
            name, began_j = self._phase
            phase_j = now_j - began_j
            self._phases_j += phase_j
            lags = name == "validating" or phase_j > 0 or self._saved
            if name != "start":
                self.end = self.end.observe(name, phase_j + (self.step.lag_j if lags else 0.0))
        self._phase = None if phase is None else (phase, now_j)
        self._saved = False

    def begin_step(self) -> None:
        """End the open phase, if one is open."""
        if self._phase is not None:
            self.enter(None)

    def wait(self, paid: Reading | None = None) -> None:
        """Begin a wait between two steps, whose energy is that of no step.

        Args:
            paid: The energy of a wait that has ended, if another reservation paid for it. It is
                left out altogether.
        """
        if paid is None:
            self.enter("start")
        else:
            self._reader.leave_out(paid)
            self.begin_step()

    def finish(self) -> None:
        """Measure a last time, after waiting for a meter that is still being set up."""
        self._lease.sources()
        self.enter(None)

    def saving(self) -> None:
        """Count a saved checkpoint to the open phase, or open one for it."""
        if self._phase is None:
            self.enter("batch")
        self._saved = True
        self.end = replace(self.end, saved=True)

    def set_aside(self, *due: str, validates: bool, more_j: float) -> float:
        """Set aside energy for the end of the fit, and return what it needs with one more step.

        Args:
            *due: Savings that are due before another step, as in :attr:`EndBound.other_j`.
            validates: Whether ending the fit after that step includes a validation.
            more_j: More joules to set aside.

        Returns:
            Joules for the savings, one step, the end of the fit and the lag of the meter.
        """
        end = self.end
        step_j = self.step.likely_j
        if self.step.warms_up:
            # A slow first step does not represent the steps that bound an end never measured.
            steps = end.unmeasured_steps(*due, validates=validates)
            step_j = min(step_j, UNMEASURED_SHARE * max(0.0, self.left_j) / max(1.0, steps))
        self.kept_j = end.total_j(step_j, validates=validates) + self.step.lag_j + more_j
        due_j = end.saving_j(step_j, *due) if due else 0.0
        return due_j + self.step.step_j + self.kept_j

    def share_used(self, *, whole: bool = False) -> float:
        """Return the estimated share of the cap that is used by now.

        Args:
            whole: Whether to return the share of the whole cap. By default, what is set aside for
                the end of the fit is taken off the cap.
        """
        per_j = self.last.g_per_j if self._of_carbon else 1.0
        room = self._cap_amount - (0.0 if whole else self.kept_j * per_j)
        return self.estimate / room if room > 0 else math.inf

    def lasts(self, done: float) -> bool:
        """Return whether the rest of the cap pays for all planned steps.

        Args:
            done: Share of the planned steps that is done after the next step.
        """
        steps_left = (self.steps + 1) * (1.0 / done - 1.0) if done > 0 else math.inf
        return steps_left * (self.step.mean_j or 0.0) <= self.left_j - self.kept_j

    def state(self) -> dict[str, Any]:
        """Return what a resumed fit needs, in plain values."""
        return {
            "used_j": self.used_j,
            "used_g": self.used_g,
            "steps": self.steps,
            "joules_per_step": self.step.mean_j,
            "validation_j": self.end.validation_j,
            "after_j": dict(self.end.other_j),
            "paid_j": self.before_j - self._resumed.get("used_j", 0.0),
        }

    def end_state(self, *, alone: bool) -> dict[str, Any]:
        """Return the :meth:`state` at the end of the fit.

        Lightning's tuner replaces the callbacks during its own training. That is measured here.

        Args:
            alone: Whether other processes may not have come here, so that none can be waited for.
        """
        unseen = self._phase is not None and self._phase[0] == "start"
        if unseen and not alone:
            self.measure()
        return self.state()

    def resume(self, state: Mapping[str, Any], *, paid: bool = False) -> None:
        """Continue from the :meth:`state` of an earlier part of the fit.

        Args:
            state: The state.
            paid: Whether the energy of the earlier part is paid for, so that it is not used again.
        """
        self.before_j = state.get("used_j", 0.0) + state.get("paid_j", 0.0)
        self._resumed = {**state, "used_j": 0.0, "used_g": 0.0} if paid else state
        self.steps = self._first_step = int(state["steps"])
        self.end = replace(
            self.end,
            validation_j=state.get("validation_j"),
            other_j=dict(state.get("after_j", {})),
        )

    def __getstate__(self) -> dict[str, Any]:
        # In another process there is no Trainer, and the figures stay as they are.
        return {**vars(self), "_trainer": None, "_lease": None, "_reader": None}

    def _warn_once(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            warn(f"BudgetGuard: the meter {problem}")


class _UsageReader:
    """Read the joules and grams of all processes since this object was created.

    The energy of the set-up of the lease is included.

    Args:
        trainer: The Trainer.
        lease: Its meter.
        carbon: Converts joules to grams; without zone or intensity there are no grams.

    Attributes:
        g_per_j: Last known upper bound of the grams per joule in the coming hour; ``None`` if it
            was never known.
    """

    def __init__(self, trainer: Any, lease: MeterLease, carbon: CarbonAccount) -> None:
        self._trainer = trainer
        self._recorder = lease.recorder
        self._carbon = carbon
        self._start, self._time = self._recorder.read(), utc_now()
        self._joules: dict[str, float] = {}
        self._last = UsagePoint()
        self.g_per_j = carbon.upper_g_per_j(self._time)
        if lease.setup is not None:  # the fit begins with the preparation of its data
            self._start = _before(self._start, lease.setup.reading)
            self._time = lease.setup.started

    def leave_out(self, used: Reading) -> None:
        """Count as if some seconds and joules had not been used."""
        self._start, self._time = self._start + used, utc_now()

    def read(self) -> UsagePoint:
        """Return the sum over all processes, without steps; every process has to call this."""
        self._last = own = self._read_own()
        processes = self._trainer.world_size
        if processes == 1 or not (distributed.is_available() and distributed.is_initialized()):
            return own
        sums = torch.tensor(astuple(own), dtype=torch.float64)
        sums = sums.to(self._trainer.strategy.root_device)
        distributed.all_reduce(sums)  # one collective; the strategy's `reduce` has a barrier, too
        _, seconds, energy_j, _, carbon_g, g_per_j, measured, gaps = sums.tolist()
        return UsagePoint(
            seconds=seconds / processes,
            energy_j=energy_j,
            carbon_g=carbon_g,
            g_per_j=g_per_j / processes,
            measured=measured > 0,
            gaps=gaps > 0,
        )

    def _read_own(self) -> UsagePoint:
        used, now = self._recorder.read() - self._start, utc_now()
        known = {
            name: joules
            for name, joules in used.energy_j.items()
            if joules is not None and joules >= self._joules.get(name, 0.0)
        }
        gaps = bool(self._joules.keys() - known.keys())
        self._joules |= known
        energy_j = math.fsum(self._joules.values())
        new_g = self._grams_of(energy_j - self._last.energy_j, now)
        self._time = now
        g_per_j = self._carbon.upper_g_per_j(now)
        self.g_per_j = self.g_per_j if g_per_j is None else g_per_j
        return UsagePoint(
            seconds=max(self._last.seconds, used.duration_s),
            energy_j=energy_j,
            carbon_g=self._last.carbon_g + new_g,
            g_per_j=self.g_per_j or 0.0,
            measured=bool(self._joules),
            gaps=gaps,
        )

    def _grams_of(self, energy_j: float, now: datetime) -> float:
        """Return the grams since the last reading; their upper bound without an intensity."""
        grams = self._carbon.emissions(energy_j, self._time, now).grams
        return energy_j * (self.g_per_j or 0.0) if grams is None else grams


def _before(reading: Reading, used: Reading) -> Reading:
    """Return a reading less what was used; a source of unknown use counts from the reading."""
    energy_j = {
        name: None if joules is None else joules - (used.energy_j.get(name) or 0.0)
        for name, joules in reading.energy_j.items()
    }
    return Reading(duration_s=reading.duration_s - used.duration_s, energy_j=energy_j)
