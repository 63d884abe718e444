"""Values that the stages of an update pass on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from greentrain.control import Decision, State, UpdateMode, broke, no_labels
from greentrain.decisions.core import BudgetAccount, PendingUpdate
from greentrain.errors import LedgerError
from greentrain.evaluation.comparison import Comparison
from greentrain.evaluation.probe import NOTHING, ProbeResult
from greentrain.streams import Experience
from greentrain.training.data import UpdateData
from greentrain.training.fit import TrainedModel
from greentrain.units import format_energy

if TYPE_CHECKING:
    from greentrain.training.waiting import Waited


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContext:
    """An experience that has arrived.

    Args:
        experience: The experience.
        position: Its number in the stream, from 0.
        data: The data that an update may train on.
        held_out: Held-out data of past experiences and of this one.
        labelled: Whether it has labels already; else ``held_out`` are those of the past.
    """

    experience: Experience
    position: int
    data: UpdateData
    held_out: Dataset[Any]
    labelled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Energy that was used for an experience.

    Args:
        energy_j: Joules.
        overrun_j: Joules beyond their reservations.
    """

    energy_j: float = 0.0
    overrun_j: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """Return the sum of both."""
        return Spent(
            energy_j=self.energy_j + other.energy_j, overrun_j=self.overrun_j + other.overrun_j
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTotals:
    """Totals of a stream's experiences.

    Args:
        experiences: Number of experiences.
        energy_j: Joules used for them.
        measured: Number of experiences with a known metric after them.
        metric: The sum of these metrics.
    """

    experiences: int = 0
    energy_j: float = 0.0
    measured: int = 0
    metric: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedUpdate:
    """The result of ``ask``: an experience, its probe, and the decision about it.

    Args:
        context: The experience.
        pending: The decision, recorded and reserved.
        probe: The probe of the current model; ``None`` if it was not affordable.
        spent: Energy of the probe, of a calibration, and of a wait.
        waited: How the update waited; ``None`` if no update of the stream may wait.
    """

    context: UpdateContext
    pending: PendingUpdate
    probe: ProbeResult | None = None
    spent: Spent = field(default_factory=Spent)
    waited: Waited | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedUpdate:
    """A trained successor, and the judgement whether to keep it.

    Args:
        model: The successor.
        steps: Steps that were trained.
        kept: Whether it becomes the current model.
        metric_after: Its metric, as the model logs it.
        comparison: Its comparison with the current model; ``None`` without a probe.
        spent: Energy of the update, without its pauses.
        paused: Energy of the pauses between its slices.
        slope: Slope of its training loss at the end; ``None`` if unknown.
        projected_j: The update's joules as projected after its first steps; ``None`` if unknown.
        flops: Floating-point operations of its steps, in the columns of an outcome.
    """

    model: TrainedModel
    steps: int
    kept: bool
    metric_after: float
    comparison: Comparison | None
    spent: Spent
    paused: Spent = field(default_factory=Spent)
    slope: float | None = None
    projected_j: float | None = None
    flops: Mapping[str, Any] = field(default_factory=dict)


def without_labels(context: UpdateContext, state: State, decision: Decision) -> Decision:
    """Return a decision that says how the drop was estimated, and that trains only with labels."""
    if context.labelled:
        return decision
    how = state.estimated_by
    if how:  # else the new data were not probed, which the sentence says already
        reason = how.removeprefix(NOTHING)
        way = f"is estimated by {how}" if reason == how else f"is not estimated, as {reason}"
        sentence = f"{decision.sentence}; without labels, the drop {way}"
        decision = replace(decision, sentence=sentence)
    skips = decision.action.mode is UpdateMode.SKIP
    return decision if skips or context.experience.labels is not None else no_labels(decision)


def left_of(account: BudgetAccount) -> float:
    """Return the joules left of an account's budget; 0 if the ledger cannot be read."""
    try:
        return account.balance().left_j
    except LedgerError:  # an unknown balance cannot be reserved from
        return 0.0


def budget_exhausted(
    account: BudgetAccount, purpose: str = "measure the cost of training"
) -> Decision:
    """Return the ``SKIP`` of a budget that has too little left for a purpose."""
    left_j = account.balance().left_j
    return broke(f"{format_energy(left_j)} are left, too little to {purpose}: nothing starts")
