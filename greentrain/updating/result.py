"""What came of one experience."""

from __future__ import annotations

from dataclasses import dataclass

from greentrain.control import Decision, Reason, UpdateMode


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

    @property
    def update_mode(self) -> UpdateMode:
        """The update mode."""
        return self.decision.action.mode

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self.decision.sentence

    @property
    def broke(self) -> bool:
        """Whether the budget could not even pay for a look at the data."""
        return self.decision.reason is Reason.BUDGET_EXHAUSTED
