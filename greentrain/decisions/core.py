"""Decide about one update with ``ask``, and learn from its outcome with ``tell``.

All decisions are made here: those of ``StreamTrainer``, of training by the user's own code
(:func:`greentrain.open_controller`), of shadow mode and of baseline retrainings. An update is a
sequence of steps that pass values on::

    observe -> decide -> reserve -> train -> judge -> commit
    |-------- ask() ----------|                   |- tell() -|

``ask`` records its decision before the update starts. ``tell`` records the outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from greentrain.budget import Account
from greentrain.control import (
    Action,
    BudgetController,
    Candidate,
    Decision,
    Prospect,
    Reason,
    State,
    UpdateMode,
    broke,
)
from greentrain.decisions.budget_arguments import check_sha256
from greentrain.decisions.decision_content import decision_content
from greentrain.energy import EnergyTotal
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger import RunLog
from greentrain.payments import Payment
from greentrain.units import is_whole


class BudgetAccount(Account, Protocol):
    """An account of a budget in the ledger."""

    budget_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOutcome(EnergyTotal):
    """The outcome of an update. Metrics are as the model logs them.

    Args:
        steps: Steps that were trained.
        metric_before: The metric of the model before the update; ``None`` if unknown.
        metric_after: The metric of the model in use after the update; ``None`` if unknown.
        kept: Whether the trained model is in use from now on.
        energy_j: Joules that were used; ``None`` if unknown.
        weights_sha256: Hash of the trained model's weights; ``None`` if unknown.

    Raises:
        ConfigurationError: If a number is out of range.
    """

    steps: int
    metric_before: float | None = None
    metric_after: float | None = None
    kept: bool = True
    energy_j: float | None = None
    weights_sha256: str | None = None

    @property
    def total_j(self) -> float | None:
        """Joules that were used: the same as ``energy_j``."""
        return self.energy_j

    def __post_init__(self) -> None:
        if not is_whole(self.steps):
            raise ConfigurationError(
                f"steps is {self.steps!r}; it must be a whole number, 0 or more"
            )
        object.__setattr__(self, "steps", int(self.steps))
        if self.kept not in (True, False):
            raise ConfigurationError(f"kept is {self.kept!r}; it must be True or False")
        used_j = self.energy_j
        if used_j is not None and not (math.isfinite(used_j) and used_j >= 0):
            raise ConfigurationError(f"energy_j is {used_j!r}; it must be in joules, 0 or more")


class PendingUpdate:
    """An update whose decision is recorded, and whose outcome is not known yet.

    ``ControllerSession.update`` and ``decide`` return one.

    Args:
        experience_id: The experience.
        position: Its number in the stream, from 0.
        state: The state of the decision; ``None`` if the budget did not even pay for a probe.
        decision: The decision.
        account: The account that pays.
        reservation_id: The reservation in the ledger; ``None`` for ``SKIP`` and in shadow mode.
        metric_before: The metric before the update, as the model logs it; ``None`` if unknown.

    Attributes:
        payment: Measures the update; ``None`` for ``SKIP``, and if no meter can measure it.
        outcome: The outcome, once :meth:`done` was called.
    """

    def __init__(
        self,
        experience_id: str,
        *,
        position: int,
        state: State | None,
        decision: Decision,
        account: BudgetAccount,
        reservation_id: str | None = None,
        metric_before: float | None = None,
    ) -> None:
        self.experience_id = experience_id
        self.position = position
        self.state = state
        self.decision = decision
        self.account = account
        self.reservation_id = reservation_id
        self.metric_before = metric_before
        self.payment: Payment | None = None
        self.outcome: UpdateOutcome | None = None

    @property
    def action(self) -> Action:
        """The update mode and its step fraction."""
        return self.decision.action

    @property
    def steps(self) -> int:
        """Steps to train; 0 for ``SKIP``."""
        return self.decision.steps

    @property
    def reserved_j(self) -> float:
        """Joules reserved for the update, its cap; 0 for ``SKIP``."""
        return 0.0 if self.reservation_id is None else self.decision.cost_j.upper

    @property
    def left_j(self) -> float:
        """Joules left of the reservation; a training loop has to end before they are used up.

        If no meter can measure the update, this is the whole reservation.
        """
        used_j = 0.0 if self.payment is None else self.payment.used.total_j or 0.0
        return max(0.0, self.reserved_j - used_j)

    def done(
        self,
        *,
        steps: int | None = None,
        metric_after: float | None = None,
        kept: bool = True,
        energy_j: float | None = None,
        weights_sha256: str | None = None,
    ) -> None:
        """Report the outcome of the update, before its block ends.

        Args:
            steps: Steps that were trained; the planned steps unless given.
            metric_after: The new model's metric on the data of ``metric_before``, if known.
            kept: Whether the new model is in use from now on.
            energy_j: Joules that were used, only for training that is not measured here.
            weights_sha256: Hash by :func:`greentrain.training.weights_sha256`, if known.

        Raises:
            ConfigurationError: If the decision was ``SKIP``, or a value cannot be used.
        """
        if self.action.mode is UpdateMode.SKIP:
            raise ConfigurationError(
                f"{self.experience_id!r} was skipped: no energy is reserved for it, so nothing may "
                "be trained"
            )
        if energy_j is not None and self.payment is not None:
            raise ConfigurationError(
                f"energy_j is {energy_j!r} and the update is measured here; omit energy_j, or open "
                "the controller with elsewhere=True"
            )
        if energy_j is None and self.payment is None:
            raise ConfigurationError(
                "energy_j is missing, and no meter measured the training elsewhere; give its joules"
            )
        self.outcome = UpdateOutcome(
            steps=self.steps if steps is None else steps,
            metric_before=self.metric_before,
            metric_after=finite(metric_after),
            kept=kept,
            energy_j=None if energy_j is None else float(energy_j),
            weights_sha256=check_sha256(weights_sha256),
        )


class DecisionCore:
    """Decide about updates, and learn from their outcomes.

    Args:
        controller: Policy with its cost and utility models.
        run: The ledger's run that records decisions and outcomes.
        metric: Name of the metric.
        more_is_better: Whether a larger metric is a better one.
    """

    def __init__(
        self, controller: BudgetController, run: RunLog, *, metric: str, more_is_better: bool
    ) -> None:
        self.controller = controller
        self._run = run
        self._metric = metric
        self._sign = 1.0 if more_is_better else -1.0

    def decide(
        self,
        state: State,
        candidates: Sequence[Candidate],
        account: BudgetAccount,
        *,
        keep_j: float = 0.0,
        others: Sequence[Prospect] = (),
    ) -> tuple[State, Decision]:
        """Decide about one experience; nothing is reserved or recorded yet.

        Args:
            state: The state when the experience arrived.
            candidates: The feasible updates, without ``SKIP``.
            account: The account that pays.
            keep_j: Joules to leave for probes of later experiences.
            others: Options of the other streams that share the budget, with their weights.

        Returns:
            The state with the balance and the history, and the decision.
        """
        self.controller.account = account
        return self.controller.decide(state, candidates, keep_j=keep_j, others=others)

    def worth_of_probe_j(
        self,
        state: State,
        candidates: Sequence[Candidate],
        account: BudgetAccount,
        *,
        keep_j: float = 0.0,
        others: Sequence[Prospect] = (),
    ) -> float | None:
        """Return the joules that a probe is worth; ``None`` if the policy does not say."""
        self.controller.account = account
        return self.controller.worth_of_probe_j(state, candidates, keep_j=keep_j, others=others)

    def ask(
        self,
        experience_id: str,
        *,
        position: int,
        state: State | None,
        decision: Decision,
        account: BudgetAccount,
        metric_before: float | None = None,
        purpose: str | None = None,
        reserve: bool = True,
        predicted: bool = True,
    ) -> PendingUpdate:
        """Reserve the decision's upper bound, and record the decision.

        If another run used the budget in the meantime, the decision becomes a ``SKIP``.

        Args:
            experience_id: The experience.
            position: Its number in the stream.
            state: The state of the decision; ``None`` if there was none.
            decision: The decision.
            account: The account that pays.
            metric_before: The metric before the update, as the model logs it.
            purpose: Purpose of the reservation; by default the action and the experience.
            reserve: Whether to reserve; ``False`` in shadow mode.
            predicted: Whether the decision's cost was predicted.

        Raises:
            LedgerError: If nothing can be reserved or recorded. Then nothing may start.
        """
        reservation_id = None
        if reserve and decision.action.mode is not UpdateMode.SKIP:
            purpose = purpose or f"{decision.action} of {experience_id}"
            try:
                reservation_id = account.reserve(decision.cost_j.upper, purpose)
            except BudgetExceeded as error:  # another run has used the budget
                decision = broke(str(error))
        pending = PendingUpdate(
            experience_id,
            position=position,
            state=state,
            decision=decision,
            account=account,
            reservation_id=reservation_id,
            metric_before=finite(metric_before),
        )
        try:
            self._run.append("decision", **decision_content(pending, predicted=predicted))
        except BaseException:
            if reservation_id is not None:  # no energy was used for it
                with contextlib.suppress(LedgerError):
                    account.settle(reservation_id, 0.0)
            raise
        return pending

    def tell(
        self,
        pending: PendingUpdate,
        outcome: UpdateOutcome,
        *,
        action: Action | None = None,
        update_j: float | None = None,
        trained_metric: float | None = None,
        gain: float | None = None,
        gain_sd: float = 0.0,
    ) -> dict[str, Any]:
        """Learn from the outcome of an update, and return its row for :meth:`record`.

        A state that is saved between the two can be newer than the ledger, never older.

        Args:
            pending: The update.
            outcome: Its outcome.
            action: The action that was carried out; by default the one decided on. In shadow mode
                it is the action of the user's own job.
            update_j: Joules of the update alone; by default the outcome's, probe included.
            trained_metric: The metric of the trained model, kept or not, as the model logs it;
                ``None`` if unknown.
            gain: The gain on the samples of ``state.metric_before``; by default the difference of
                the two metrics.
            gain_sd: Standard error of the gain.
        """
        decision, state = pending.decision, pending.state
        if state is not None and decision.reason is not Reason.BUDGET_EXHAUSTED:
            if action is not None:
                decision = dataclasses.replace(decision, action=action, steps=outcome.steps)
            self.controller.learn(
                decision,
                state,
                steps=outcome.steps,
                # The cost model ignores 0, which an unknown energy becomes.
                actual_j=(outcome.energy_j if update_j is None else update_j) or 0.0,
                metric_after=self.oriented(trained_metric),
                gain=gain,
                gain_sd=gain_sd,
                kept=outcome.kept,
            )
        return self.outcome_row(pending, outcome, gain=gain, gain_sd=gain_sd)

    def outcome_row(
        self,
        pending: PendingUpdate,
        outcome: UpdateOutcome,
        *,
        gain: float | None = None,
        gain_sd: float = 0.0,
    ) -> dict[str, Any]:
        """Return the ledger's row of an outcome.

        Args:
            pending: The update.
            outcome: Its outcome.
            gain: The gain that was measured; ``None`` without a measurement.
            gain_sd: Standard error of the gain.
        """
        gain = finite(gain)
        return {
            "experience_id": pending.experience_id,
            "position": pending.position,
            "reservation_id": pending.reservation_id,
            "metric": self._metric,
            "metric_before": outcome.metric_before,
            "metric_after": outcome.metric_after,
            "steps": outcome.steps,
            "planned_steps": pending.steps,
            "energy_j": outcome.energy_j,
            "kept": outcome.kept,
            "gain": gain,
            "gain_sd": None if gain is None else finite(gain_sd),
            "config_sha256": self._run.config_sha256,
        }

    def record(self, row: dict[str, Any]) -> None:
        """Record an outcome in the ledger; a thread writes it."""
        self._run.note("outcome", **row)

    def oriented(self, metric: float | None) -> float | None:
        """Return a metric oriented so that higher is better; ``None`` if unknown or not finite."""
        known = finite(metric)
        return None if known is None else self._sign * known


def finite(metric: float | None) -> float | None:
    """Return a finite number unchanged, and ``None`` for any other: it carries no information."""
    return float(metric) if metric is not None and math.isfinite(metric) else None
