"""What came of one experience."""

from __future__ import annotations

from dataclasses import dataclass

from greentrain.control import SKIP, Action, Decision, Reason, UpdateMode


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTraining:
    """What another job said that it did with an experience on which advice was given.

    Args:
        action: What it did.
        steps: Its optimizer steps.
        energy_j: Joules that it drew; ``None`` if unknown.
    """

    action: Action
    steps: int
    energy_j: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """What was decided about one experience, and what came of it.

    Args:
        experience_id: The experience.
        position: Its number in the stream, from 0.
        decision: The decision, with its reason and alternatives.
        energy_j: Joules drawn for this experience, the look at it included.
        update_j: Joules drawn by the update alone; 0 after ``SKIP``.
        metric_before: The metric on all held-out data seen, this experience's included, before.
        metric_after: The same after; equal to ``metric_before`` if nothing changed.
        steps: Steps that were trained.
        kept: Whether the updated model is the current one now.
        left_j: Joules left of the budget.
        overrun_j: Joules drawn beyond what was reserved.
        projected_j: What the first steps of the update foretold that it would draw; ``None`` before
            there is a cost model, and in a short update.
        advice: Whether the decision is advice: nothing of it was carried out here, and ``left_j``
            is what would be left if all advice had been followed.
        told: What another job said that it did instead; ``None`` before it did, or if nothing.
    """

    experience_id: str
    position: int
    decision: Decision
    energy_j: float
    update_j: float
    metric_before: float | None
    metric_after: float | None
    steps: int
    kept: bool
    left_j: float
    overrun_j: float = 0.0
    projected_j: float | None = None
    advice: bool = False
    told: ReportedTraining | None = None

    @property
    def cost_error(self) -> float | None:
        """By which share of what it drew the update was predicted too dear; ``None`` if unknown."""
        uncalibrated = self.decision.cost_j.sd >= self.decision.cost_j.mean
        if not self.update_j or self.steps < self.decision.steps or uncalibrated:
            return None
        return self.decision.cost_j.mean / self.update_j - 1.0

    @property
    def update_mode(self) -> UpdateMode:
        """The update mode."""
        return self.decision.action.mode

    @property
    def done(self) -> Action:
        """What was done with the experience: of advice, what the other job did."""
        if not self.advice:
            return self.decision.action
        return SKIP if self.told is None else self.told.action

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self.decision.sentence

    @property
    def broke(self) -> bool:
        """Whether the budget could not even pay for a look at the data."""
        return self.decision.reason is Reason.BUDGET_EXHAUSTED
