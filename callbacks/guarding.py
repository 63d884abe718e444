"""What a fit's next steps may draw, and what ending it will: the arithmetic of a guard."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LAG_S = 0.1
"""Seconds that a meter of which nothing is known may be behind."""
WARM_UP_STEPS = 5
"""Steps left out of what a step draws: the first ones compile, tune and allocate."""
DEAR_STEP = 2.0
"""How much dearer than the mean a step may be that is dearer than any seen so far."""
MARGIN = 1.05
"""How much dearer than the dearest so far the next validation, or saving, may be."""
SAVE_STEPS = 20
"""Steps whose joules are kept for saving a checkpoint while none was measured."""
_LEARNT_S = 0.5
_POWER_S = 1.0
_LOOK_AHEAD = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a fit had drawn when its meter was read.

    Args:
        steps: Batches trained on since the fit was started or resumed.
        seconds: Seconds since then.
        energy_j: Joules since then.
        steps_j: The part of them that was no validation and no saving.
    """

    steps: int
    seconds: float
    energy_j: float
    steps_j: float


START = Look(steps=0, seconds=0.0, energy_j=0.0, steps_j=0.0)


class Pace:
    """What steps draw, as learnt from one look after another.

    The joules of a single step cannot be told by a meter that ticks: means over many steps can, and
    the more of them there are, the less is added for not knowing better.

    Args:
        power_w: What the machine may draw at most, 0 where unknown; used until it was measured.
        step_j: Joules of a step, where an earlier part of the fit has measured them.
        lag_s: Seconds that the meter may be behind.

    Attributes:
        power_w: The highest mean power over a second.
        mean_j: Mean joules of a step; ``None`` until known.
    """

    def __init__(
        self, power_w: float = 0.0, step_j: float | None = None, *, lag_s: float = LAG_S
    ) -> None:
        self.power_w = power_w
        self.mean_j = step_j
        self._lag_s = lag_s
        self._power_known = False
        self._recent_j = self._dearest_j = 0.0
        self._last = self._anchor = self._warm = START

    def look(self, now: Look) -> None:
        """Learn from one more look."""
        steps = now.steps - self._last.steps
        if steps == 1 and now.steps > WARM_UP_STEPS:
            self._dearest_j = max(self._dearest_j, now.steps_j - self._last.steps_j - self.lag_j)
        if self._warm is START and now.steps >= WARM_UP_STEPS:
            self._warm = now
        self.mean_j = self._mean(self._since(now), now) or self.mean_j
        self._last = now
        self._measure_power(now)

    @property
    def lag_j(self) -> float:
        """Joules that the meter may be behind."""
        return self._lag_s * self.power_w

    @property
    def mean_bound_j(self) -> float:
        """Joules of a step that the mean will hardly exceed."""
        since = self._since(self._last)
        steps = max(1, self._last.steps - since.steps)
        mean_j = (self.mean_j or 0.0) + self.lag_j / steps
        return max(self._recent_j, mean_j * (1.0 + 2.0 / math.sqrt(steps)))

    @property
    def likely_j(self) -> float:
        """Joules of a mean step: what it is at most, and at least while there is little to go by.

        A first step that compiles, or a first tick of the meter, says nothing of a thousand steps.
        """
        now = self._last
        if now.steps < WARM_UP_STEPS:
            return 0.0
        if now.steps >= 2 * WARM_UP_STEPS and now.seconds >= _LEARNT_S:
            return self.mean_bound_j
        in_all_j = (now.steps_j - self.lag_j) / now.steps
        return max(0.0, min(in_all_j, self._mean(self._warm, now)))

    @property
    def step_j(self) -> float:
        """Joules to keep for one step."""
        return max(DEAR_STEP * (self.likely_j or self.mean_j or 0.0), self._dearest_j)

    def steps_until_look(self, left_j: float) -> int:
        """Return after how many steps to read the meter again.

        They use a quarter of what is left if they are as dear as the mean may be.

        Args:
            left_j: Joules left for steps.
        """
        bound_j = self.mean_bound_j
        if self._last.steps < WARM_UP_STEPS or bound_j <= 0:
            return 1
        return max(1, int(min(_LOOK_AHEAD * left_j / bound_j, 1e9)))

    @staticmethod
    def _mean(since: Look, now: Look) -> float:
        return max(0.0, now.steps_j - since.steps_j) / max(1, now.steps - since.steps)

    def _since(self, now: Look) -> Look:
        return self._warm if now.steps >= 2 * WARM_UP_STEPS else START

    def _measure_power(self, now: Look) -> None:
        seconds = now.seconds - self._anchor.seconds
        if not self._power_known and seconds > 0:
            so_far_w = now.energy_j / max(now.seconds, self._lag_s)
            self.power_w = max(self.power_w, so_far_w)
        if seconds < _POWER_S:
            return
        power_w = (now.energy_j - self._anchor.energy_j) / seconds
        self.power_w = max(power_w, self.power_w if self._power_known else 0.0)
        self._power_known = True
        steps = now.steps - self._anchor.steps
        if steps >= WARM_UP_STEPS and self._anchor.steps >= WARM_UP_STEPS:
            self._recent_j = (now.steps_j - self._anchor.steps_j) / steps
        self._anchor = now


@dataclass(slots=True, kw_only=True)
class Ending:
    """What ending a fit draws: a validation, and what is saved after it.

    Args:
        batches: Validation batches; 0 without validation, or where nobody knows how many.
        batch_steps: How many training batches have as many samples as one of them.
        saves: Whether checkpoints are saved.
        validation_j: Joules of the dearest validation; ``None`` until one was measured.
        after_j: The same of what comes after a ``"validation"``, after an ``"epoch"``, and of
            savings after a ``"batch"``.
        saved: Whether a saving is among them.
    """

    batches: float = 0.0
    batch_steps: float = 1.0
    saves: bool = False
    validation_j: float | None = None
    after_j: dict[str, float] = field(default_factory=dict)
    saved: bool = False

    def validated(self, energy_j: float) -> None:
        """Take one validation into account."""
        self.validation_j = max(self.validation_j or 0.0, energy_j)

    def drew(self, after: str, energy_j: float) -> None:
        """Take into account what was drawn after a validation, an epoch or a batch."""
        self.after_j[after] = max(self.after_j.get(after, 0.0), energy_j)

    def kept_j(self, step_j: float, *, validates: bool = True) -> float:
        """Return the joules to keep for the end.

        Args:
            step_j: Joules of a mean step, from which is bounded what was not measured: a batch
                that is only looked at draws no more than one that is trained on.
            validates: Whether ending now would validate.

        Example:
            >>> Ending(batches=50, saves=True).kept_j(2.0)  # 50 steps and 20
            140.0
            >>> Ending(validation_j=60.0).kept_j(2.0)
            63.0
        """
        saving_j = self.saving_j(step_j, *self.after_j)
        if not validates:
            return saving_j
        if self.validation_j is not None:
            return saving_j + MARGIN * self.validation_j
        return saving_j + self.batches * self.batch_steps * step_j

    def saving_j(self, step_j: float, *after: str) -> float:
        """Return the joules to keep for saving after a validation, an epoch or a batch.

        Args:
            step_j: Joules of a mean step, for what was not measured.
            *after: After which of them.
        """
        unknown = self.saves and not self.saved and "epoch" not in self.after_j
        known_j = MARGIN * sum(self.after_j.get(each, 0.0) for each in after)
        return known_j + (SAVE_STEPS * step_j if unknown else 0.0)
