"""One experience's turn: all that is at hand while it is decided about and trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from greentrain.control import Decision, State
from greentrain.errors import LedgerError
from greentrain.ledger import LedgerAccount
from greentrain.streams import Experience
from greentrain.updating.material import Batch
from greentrain.updating.payments import Payment
from greentrain.updating.probe import Look
from greentrain.updating.result import UpdateResult
from greentrain.updating.session import Session


@dataclass(slots=True, kw_only=True)
class Turn:
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
    """

    experience: Experience
    position: int
    batch: Batch
    session: Session
    account: LedgerAccount
    look: Look | None = None
    beside: tuple[float, float] = (0.0, 0.0)
    reservation: str | None = None

    def paid(self, payment: Payment) -> None:
        """Count what was drawn besides the update."""
        energy_j, overrun_j = self.beside
        self.beside = (energy_j + payment.actual_j, overrun_j + payment.overrun_j)

    def decided(self, decision: Decision, state: State | None) -> None:
        """Record the decision, before anything of it starts."""
        self.session.decided(
            self.experience.id, self.position, self.account, decision, state, self.reservation
        )

    def skipped(self, decision: Decision, state: State | None = None) -> UpdateResult:
        """Record the decision to train nothing, and return what that comes to."""
        self.decided(decision, state)
        metric = None if self.look is None else self.look.metric
        return self._end(decision, metric, None, steps=0, kept=True)

    def trained(
        self,
        decision: Decision,
        payment: Payment,
        *,
        metric_after: float,
        steps: int,
        kept: bool,
    ) -> UpdateResult:
        """Return what an update came to; one that is not kept leaves the metric as it was."""
        before = None if self.look is None else self.look.metric
        after = metric_after if kept else before
        return self._end(decision, after, payment, steps=steps, kept=kept)

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
