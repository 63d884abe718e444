"""The result of an update."""

from __future__ import annotations

from dataclasses import dataclass

from greentrain.control import SKIP, Action, Decision, Reason, UpdateMode
from greentrain.decisions.core import UpdateOutcome
from greentrain.energy import EnergyTotal, energy_html
from greentrain.texts import one_line
from greentrain.units import format_energy, plural


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTraining:
    """A training of the user's own job that was reported in shadow mode.

    Args:
        action: Its action.
        steps: Its optimizer steps.
        energy_j: Joules that it used; ``None`` if unknown.
    """

    action: Action
    steps: int
    energy_j: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult(EnergyTotal):
    """The decision about one experience, and its outcome.

    Args:
        experience_id: The experience.
        position: Its number in the stream, from 0.
        decision: The decision, with its reason and alternatives.
        energy_j: Joules used for this experience, its probe included.
        update_j: Joules of the update alone; 0 after ``SKIP``.
        metric_before: The metric before the update, on held-out data of all experiences so far.
        metric_after: The same after it; equal to ``metric_before`` if the model did not change.
        steps: Steps that were trained.
        kept: Whether the updated model is the current one now.
        left_j: Joules left of the budget.
        overrun_j: Joules used beyond what was reserved.
        projected_j: The update's joules as projected after its first steps; ``None`` before there
            is a cost model, and for a short update.
        shadow: Whether the decision was only recorded, in shadow mode. Then ``left_j`` is the
            balance as if all such decisions had been carried out.
        reported: The training of the user's own job; ``None`` before its report, or without one.
        emissions_g: Grams of CO2 equivalent of ``energy_j``; ``None`` if unknown.
        labels: New samples with a label that were trained on; 0 if nothing was trained.
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
    shadow: bool = False
    reported: ReportedTraining | None = None
    emissions_g: float | None = None
    labels: int = 0

    @property
    def total_j(self) -> float:
        """Joules used for this experience: the same as ``energy_j``."""
        return self.energy_j

    @property
    def cost_error(self) -> float | None:
        """Relative error of the predicted joules, positive if too high; ``None`` if unknown."""
        uncalibrated = self.decision.cost_j.sd >= self.decision.cost_j.mean
        if not self.update_j or self.steps < self.decision.steps or uncalibrated:
            return None
        return self.decision.cost_j.mean / self.update_j - 1.0

    @property
    def update_mode(self) -> UpdateMode:
        """The update mode of the decision."""
        return self.decision.action.mode

    @property
    def done(self) -> Action:
        """The action that was carried out; in shadow mode, that of the user's own job."""
        if not self.shadow:
            return self.decision.action
        return SKIP if self.reported is None else self.reported.action

    @property
    def reason(self) -> str:
        """The reason in one sentence."""
        return self.decision.sentence

    @property
    def budget_exhausted(self) -> bool:
        """True if the budget could not even pay for a probe."""
        return self.decision.reason is Reason.BUDGET_EXHAUSTED

    def __str__(self) -> str:
        """Return the experience and its outcome in one line."""
        outcome = outcome_line(
            self.decision.action,
            kept=self.kept,
            monitor="metric",
            before=self.metric_before,
            after=self.metric_after,
            steps=self.steps,
            energy_j=self.energy_j,
        )
        return f"{one_line(self.experience_id)}: {outcome}{' (shadow mode)' if self.shadow else ''}"

    def _repr_html_(self) -> str:
        title = f"{self.experience_id}: {self.decision.action}. {self.reason}"
        used_j = {"update": self.update_j, "probes": self.energy_j - self.update_j}
        return energy_html(title, used_j, grams=self.emissions_g)


def outcome_line(
    action: UpdateMode | Action,
    *,
    kept: bool,
    monitor: str,
    before: float | None,
    after: float | None,
    steps: int,
    energy_j: float,
) -> str:
    """Return the outcome of an update in one line.

    Args:
        action: The action, or its update mode.
        kept: Whether the updated model is in use.
        monitor: Name of the metric.
        before: The metric before the update; ``None`` if unknown.
        after: The metric after it; ``None`` if unknown.
        steps: Steps that were trained.
        energy_j: Joules that were used.

    Example:
        >>> outcome_line(
        ...     SKIP, kept=False, monitor="acc", before=0.6, after=None, steps=0, energy_j=5.0
        ... )
        'SKIP, nothing trained: acc 0.6 -> unknown, 0 steps, 5 J'
    """
    state = "kept" if kept else "not kept"
    if action in (SKIP, UpdateMode.SKIP):
        state = "nothing trained"
    shown = (("unknown" if each is None else f"{each:.4g}") for each in (before, after))
    metrics = f"{monitor} {' -> '.join(shown)}"
    return f"{action}, {state}: {metrics}, {plural(steps, 'step')}, {format_energy(energy_j)}"


def outcome_of(result: UpdateResult) -> UpdateOutcome:
    """Return the outcome of a result, as the ledger records it."""
    return UpdateOutcome(
        steps=result.steps,
        metric_before=result.metric_before,
        metric_after=result.metric_after,
        kept=result.kept,
        energy_j=result.energy_j,
    )
