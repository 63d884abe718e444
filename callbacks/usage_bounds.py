"""Bound the energy that the next steps and the end of a fit may use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

DEFAULT_LAG_S = 0.1
"""Seconds that a meter may lag behind if it does not state its lag."""
WARM_UP_STEPS = 5
"""Steps left out of the mean: the first steps compile, tune and allocate."""
STEP_FACTOR = 2.0
"""Factor above the mean that a step may use without having been measured before."""
STEADY_STEPS = 2
"""Last steps that bound the next one while steps warm up."""
MARGIN = 1.05
"""Factor above the highest measurement that the next validation or saving may use."""
SAVE_STEPS = 20
"""Mean steps whose joules are set aside for saving a checkpoint until one was measured."""
UNMEASURED_SHARE = 0.5
"""Largest share of what is left that an end never measured sets aside in the first steps."""
_MIN_MEASURED_S = 0.5
_POWER_S = 1.0
_CHECK_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePoint:
    """Energy used by all processes of a fit up to one reading; the same in every process.

    Args:
        steps: Batches trained on since the fit was started or resumed.
        seconds: Seconds since then.
        energy_j: Joules used since then, as measured.
        steps_j: The part of ``energy_j`` that training steps used.
        carbon_g: Grams of CO2 equivalent of ``energy_j``.
        g_per_j: Upper bound of the grams per joule in the coming hour.
        measured: Whether any source can be measured.
        gaps: Whether a source that was measured before cannot be read.
    """

    steps: int = 0
    seconds: float = 0.0
    energy_j: float = 0.0
    steps_j: float = 0.0
    carbon_g: float = 0.0
    g_per_j: float = 0.0
    measured: bool = True
    gaps: bool = False


_START = UsagePoint()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBound:
    """Energy of one training step, learned from successive readings of the meter.

    A meter with a slow counter cannot resolve single steps, but it resolves means over many steps.
    The margin for uncertainty shrinks as the number of steps grows.

    Args:
        power_w: Power limit of the machine, 0 if unknown. Once a second was measured, the highest
            mean power over a second.
        mean_j: Mean joules of a step; ``None`` until measured here or before a resume.
        lag_s: Seconds that the meter may lag behind.
        power_measured: Whether ``power_w`` was measured over a second.
        recent_j: Mean joules of a step over the last second.
        max_j: Joules of the most expensive step that was measured alone after the warm-up steps.
        known_j: Mean joules of a step, measured before this fit; ``None`` without.
        recent_steps_j: Joules of each of the last two of the first ten steps, without the very
            first.
        last: The last reading.
        power_start: The reading at which the current second began.
        warmed_up: The first reading after the warm-up steps.
    """

    power_w: float = 0.0
    mean_j: float | None = None
    lag_s: float = DEFAULT_LAG_S
    power_measured: bool = False
    recent_j: float = 0.0
    max_j: float = 0.0
    known_j: float | None = None
    recent_steps_j: tuple[float, ...] = ()
    last: UsagePoint = _START
    power_start: UsagePoint = _START
    warmed_up: UsagePoint = _START

    def observe(self, now: UsagePoint) -> StepBound:
        """Return the bound after one more reading."""
        warmed_up, max_j = self.warmed_up, self.max_j
        recent_steps_j = self.recent_steps_j
        if warmed_up is _START and now.steps >= WARM_UP_STEPS:
            warmed_up = now
        new = now.steps - self.last.steps
        if new == 1 and now.steps > WARM_UP_STEPS:
            max_j = max(max_j, now.steps_j - self.last.steps_j - self.lag_j)
        if new and 1 < now.steps < 2 * WARM_UP_STEPS:
            recent_steps_j = (*recent_steps_j, _mean_j(self.last, now))[-STEADY_STEPS:]
        learned = replace(
            self,
            mean_j=_mean_j(_mean_start(warmed_up, now), now) or self.mean_j,
            max_j=max_j,
            recent_steps_j=recent_steps_j,
            last=now,
            warmed_up=warmed_up,
        )
        return learned._with_power(now)

    @property
    def lag_j(self) -> float:
        """Joules that the meter may not have counted yet."""
        return self.lag_s * self.power_w

    @property
    def mean_bound_j(self) -> float:
        """Upper bound of the mean joules of a step."""
        steps = max(1, self.last.steps - _mean_start(self.warmed_up, self.last).steps)
        mean_j = (self.mean_j or 0.0) + self.lag_j / steps
        return max(self.recent_j, mean_j * (1.0 + 2.0 / math.sqrt(steps)))

    @property
    def warms_up(self) -> bool:
        """``True`` while the steps so far may be slower than later ones."""
        return self.last.steps < WARM_UP_STEPS

    @property
    def likely_j(self) -> float:
        """Upper bound of the mean joules of a step, or a lower bound until enough was measured.

        A first step that compiles, or the first tick of a meter, does not represent later steps.
        """
        now = self.last
        if self.warms_up:
            return min(self.recent_steps_j, default=0.0)
        if now.steps >= 2 * WARM_UP_STEPS and now.seconds >= _MIN_MEASURED_S:
            return self.mean_bound_j
        overall_j = (now.steps_j - self.lag_j) / now.steps
        return max(0.0, min(overall_j, _mean_j(self.warmed_up, now)))

    @property
    def step_j(self) -> float:
        """Joules to set aside for one step.

        In the first ten steps, a step that compiles does not represent the next one. So twice the
        last two steps bound it, but no more than the mean so far unless one of the two used more.
        After the first step alone, the bound is from an earlier fit, or all of that step. So equal
        steps never exceed a cap that pays for the first one.
        """
        steps, mean_j = self.last.steps, self.mean_j or 0.0
        if steps == 1:
            return STEP_FACTOR * (self.known_j or 0.0) or mean_j
        next_j = STEP_FACTOR * (self.likely_j or mean_j)
        if 0 < steps < 2 * WARM_UP_STEPS:
            recent_j = max(self.recent_steps_j)
            warming_j = min(STEP_FACTOR * recent_j, max(mean_j, recent_j))
            next_j = max(warming_j, next_j if steps > WARM_UP_STEPS else 0.0)
        return max(next_j, self.max_j)

    def steps_until_check(self, free_j: float) -> int:
        """Return the number of steps until the next reading of the meter.

        At the upper bound of the mean, these steps use a quarter of the free energy.

        Args:
            free_j: Joules left for steps.
        """
        bound_j = self.mean_bound_j
        if self.last.steps < WARM_UP_STEPS or bound_j <= 0:
            return 1
        return int(min(max(1.0, _CHECK_SHARE * free_j / bound_j), 1e9))

    def _with_power(self, now: UsagePoint) -> StepBound:
        start, power_w, recent_j = self.power_start, self.power_w, self.recent_j
        seconds, steps = now.seconds - start.seconds, now.steps - start.steps
        if not self.power_measured and seconds > 0:
            power_w = max(power_w, now.energy_j / max(now.seconds, self.lag_s))
        if seconds < _POWER_S:
            return replace(self, power_w=power_w)
        mean_w = (now.energy_j - start.energy_j) / seconds
        power_w = max(mean_w, power_w) if self.power_measured else max(mean_w, 0.0)
        if steps >= WARM_UP_STEPS and start.steps >= WARM_UP_STEPS:
            recent_j = (now.steps_j - start.steps_j) / steps
        return replace(
            self, power_w=power_w, power_measured=True, recent_j=recent_j, power_start=now
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndBound:
    """Energy of ending a fit: the closing validation and what is saved after it.

    Args:
        batches: Validation batches; 0 without validation, or if their number is unknown.
        batch_steps: Training batches with as many samples as one validation batch.
        saves: Whether checkpoints are saved.
        validation_j: Joules of the most expensive validation; ``None`` until one was measured.
        other_j: Joules of the most expensive pause after a ``"validation"`` or an ``"epoch"``, and
            of the most expensive saving after a ``"batch"``.
        saved: Whether a saving was measured.
    """

    batches: float = 0.0
    batch_steps: float = 1.0
    saves: bool = False
    validation_j: float | None = None
    other_j: Mapping[str, float] = field(default_factory=dict)
    saved: bool = False

    def observe(self, phase: str, energy_j: float) -> EndBound:
        """Return the bound after one more measured phase.

        Args:
            phase: ``"validating"``, or what the phase came after, as in ``other_j``.
            energy_j: Joules that it used.
        """
        if phase == "validating":
            return replace(self, validation_j=max(self.validation_j or 0.0, energy_j))
        highest_j = max(self.other_j.get(phase, 0.0), energy_j)
        return replace(self, other_j={**self.other_j, phase: highest_j})

    def total_j(self, step_j: float, *, validates: bool = True) -> float:
        """Return the joules to set aside for ending the fit.

        A validation batch uses no more than a training batch with as many samples. This bounds a
        validation that was not measured.

        Args:
            step_j: Joules of a mean step.
            validates: Whether ending the fit now includes a validation.

        Example:
            >>> EndBound(batches=50, saves=True).total_j(2.0)  # 50 steps and 20
            140.0
            >>> EndBound(validation_j=60.0).total_j(2.0)
            63.0
        """
        saving_j = self.saving_j(step_j, *self.other_j)
        if not validates:
            return saving_j
        if self.validation_j is not None:
            return saving_j + MARGIN * self.validation_j
        return saving_j + self.batches * self.batch_steps * step_j

    def unmeasured_steps(self, *due: str, validates: bool = True) -> float:
        """Return the mean steps that bound a validation and savings never measured.

        Args:
            *due: Savings that are due before another step, as in ``other_j``.
            validates: Whether ending the fit now includes a validation.

        Example:
            >>> EndBound(batches=50, saves=True).unmeasured_steps()
            70.0
        """
        measured_j = self.total_j(0.0, validates=validates)
        steps = self.total_j(1.0, validates=validates) - measured_j
        return steps + (self.saving_j(1.0) if due else 0.0)

    def saving_j(self, step_j: float, *after: str) -> float:
        """Return the joules to set aside for saving after a validation, an epoch or a batch.

        Args:
            step_j: Joules of a mean step, for a saving that was not measured.
            *after: The keys of ``other_j`` to count.
        """
        unknown = self.saves and not self.saved and "epoch" not in self.other_j
        measured_j = MARGIN * sum(self.other_j.get(each, 0.0) for each in after)
        return measured_j + (SAVE_STEPS * step_j if unknown else 0.0)


def _mean_start(warmed_up: UsagePoint, now: UsagePoint) -> UsagePoint:
    return warmed_up if now.steps >= 2 * WARM_UP_STEPS else _START


def _mean_j(start: UsagePoint, now: UsagePoint) -> float:
    return max(0.0, now.steps_j - start.steps_j) / max(1, now.steps - start.steps)
