"""One experience's turn: all that is at hand while it is decided about and trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch.utils.data import Dataset

from greentrain.budget import Account
from greentrain.control import Decision, State
from greentrain.errors import LedgerError
from greentrain.evaluation.probe import ProbeResult
from greentrain.payments import Payment
from greentrain.streams import Experience
from greentrain.training.data import UpdateData
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.training.run_context import RunContext


class StreamAccount(Account, Protocol):
    """An account of a budget in the ledger."""

    budget_id: str


@dataclass(slots=True, kw_only=True)
class UpdateContext:
    """What is at hand for one experience, and what it comes to.

    Args:
        experience: The experience.
        position: Its number in the stream, from 0.
        batch: Its data, and what is stored.
        session: Where everything is recorded.
        account: Pays.
        look: What a look at the model found; ``None`` where none could be paid.
        beside: Joules, and overruns, of what was drawn besides the update.
        reservation: The reservation of the update; ``None`` where nothing is trained.
        advises: Whether what is decided is advice, which nothing is reserved or trained for.
        judged_on: Held-out data of the experience and, as the objective has it, of earlier ones.
        state: What was known when it was decided; ``None`` before, and where nothing was.
        advice: The advice, with what was known; ``None`` before it is given.
    """

    experience: Experience
    position: int
    batch: UpdateData
    session: RunContext
    account: StreamAccount
    look: ProbeResult | None = None
    beside: tuple[float, float] = (0.0, 0.0)
    reservation: str | None = None
    advises: bool = False
    judged_on: Dataset[Any] | None = None
    state: State | None = None
    advice: tuple[Decision, State | None] | None = None

    def paid(self, payment: Payment) -> None:
        """Count what was drawn besides the update."""
        energy_j, overrun_j = self.beside
        self.beside = (energy_j + payment.actual_j, overrun_j + payment.overrun_j)

    def decided(self, decision: Decision, state: State | None) -> None:
        """Record the decision, before anything of it starts."""
        self.state = state
        self.session.decided(
            self.experience.id,
            self.position,
            self.account.budget_id,
            decision,
            state,
            self.reservation,
        )

    def skipped(self, decision: Decision, state: State | None = None) -> UpdateResult:
        """Record the decision to train nothing, and return what that comes to."""
        if self.advises:
            return self.advised(decision, state)
        self.decided(decision, state)
        metric = None if self.look is None else self.look.metric
        return self._end(decision, metric, None, steps=0, kept=True)

    def advised(self, decision: Decision, state: State | None) -> UpdateResult:
        """Record a decision that is advice, and return what it comes to here: a look."""
        self.decided(decision, state)
        self.advice = (decision, state)
        return self.took_over(None, metric_after=None)

    def took_over(
        self, told: ReportedTraining | None, *, metric_after: float | None
    ) -> UpdateResult:
        """Return what another job made of an experience; of ``None``, the model stayed."""
        if self.advice is None:
            raise ValueError("nothing was advised")
        before = None if self.look is None else self.look.metric
        result = self._end(
            self.advice[0],
            before if told is None else metric_after,
            None,
            steps=0 if told is None else told.steps,
            kept=True,
        )
        return replace(result, advice=True, told=told)

    def control(self, reservation: str) -> UpdateContext:
        """Return the turn of a control on the same experience, with a payment of its own."""
        return replace(self, reservation=reservation, look=None, beside=(0.0, 0.0))

    def measured(
        self,
        decision: Decision,
        payment: Payment,
        *,
        before: float,
        after: float,
        steps: int,
        kept: bool,
    ) -> UpdateResult:
        """Return what a control came to: both metrics as measured, whichever model is kept."""
        result = self._end(decision, after, payment, steps=steps, kept=kept)
        return replace(result, metric_before=_finite(before))

    def trained(
        self,
        decision: Decision,
        payment: Payment,
        *,
        metric_before: float | None,
        metric_after: float,
        steps: int,
        kept: bool,
        projected_j: float | None = None,
    ) -> UpdateResult:
        """Return what an update came to; one that is not kept leaves the metric as it was.

        Both metrics are of the same samples: a look is at fewer than a validation, so what it found
        differs by chance from what a validation would have.
        """
        after = metric_after if kept else metric_before
        result = self._end(decision, after, payment, steps=steps, kept=kept)
        return replace(result, metric_before=_finite(metric_before), projected_j=projected_j)

    def _end(
        self,
        decision: Decision,
        metric_after: float | None,
        payment: Payment | None,
        *,
        steps: int,
        kept: bool,
    ) -> UpdateResult:
        update_j = 0.0 if payment is None else payment.actual_j
        overrun_j = 0.0 if payment is None else payment.overrun_j
        return UpdateResult(
            experience_id=self.experience.id,
            position=self.position,
            decision=decision,
            energy_j=update_j + self.beside[0],
            update_j=update_j,
            metric_before=_finite(None if self.look is None else self.look.metric),
            metric_after=_finite(metric_after),
            steps=steps,
            kept=kept,
            left_j=self._left_j(),
            overrun_j=overrun_j + self.beside[1],
        )

    def _left_j(self) -> float:
        try:
            return self.account.balance().left_j
        except LedgerError:  # what cannot be asked for cannot be reserved either
            return 0.0


def _finite(metric: float | None) -> float | None:
    return metric if metric is not None and math.isfinite(metric) else None
