"""The budget controller: a policy, its two models, and the account that it pays from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from greentrain.budget import Account, Balance
from greentrain.control.action import (
    SKIP,
    Candidate,
    Estimate,
    Option,
    State,
    Table,
    UpdateMode,
)
from greentrain.control.cost import CostModel
from greentrain.control.decision import Decision, Reason, decided, unweighed
from greentrain.control.policy import Policy, PricedPolicy
from greentrain.control.utility import UtilityModel

TABLES_KEPT = 8
EXPECTED_DROPS = (0.0, 0.05, 0.25)
"""Drops of the metric that experiences to come may bring: nothing new, a drift, a break."""

_ZERO = Estimate(mean=0.0, sd=0.0, upper=0.0)


class BudgetController:
    """Decide what each experience is worth, and learn from what it cost and brought.

    Args:
        account: Where joules are reserved and settled.
        policy: Decides; :class:`PricedPolicy` unless given.
        cost: Predicts joules.
        utility: Predicts gains.
        tables: What earlier experiences offered, newest last; the controller adds to it.
    """

    def __init__(
        self,
        account: Account,
        *,
        policy: Policy | None = None,
        cost: CostModel | None = None,
        utility: UtilityModel | None = None,
        tables: list[Table] | None = None,
    ) -> None:
        self.account = account
        self.policy = policy or PricedPolicy()
        self.cost = cost or CostModel()
        self.utility = utility or UtilityModel()
        self._tables = [] if tables is None else tables

    def decide(
        self, state: State, candidates: Sequence[Candidate], *, keep_j: float = 0.0
    ) -> tuple[State, Decision]:
        """Decide about one experience; nothing is reserved yet.

        Args:
            state: What is known; the controller adds what earlier experiences offered.
            candidates: The feasible updates, without ``SKIP``.
            keep_j: Joules to leave for looking at the experiences to come.

        Returns:
            The state as the policy saw it, and the decision.
        """
        options = [Option(candidate=Candidate(action=SKIP, steps=0), cost_j=_ZERO, gain=_ZERO)]
        for candidate in candidates:
            options.append(
                Option(
                    candidate=candidate,
                    cost_j=self.cost.predict(candidate.action.mode, candidate.steps),
                    gain=self.utility.predict(candidate.action, state),
                )
            )
        balance = _less(self.account.balance(), keep_j)
        state = dataclasses.replace(state, left_j=balance.left_j)
        if state.has_model:
            ahead = [self._imagine(options, state, drop) for drop in EXPECTED_DROPS]
            expected = ahead if state.remaining > 1 else []
            state = dataclasses.replace(state, tables=(*expected, *self._tables))
            self._tables.append(self._imagine(options, state, state.drop))
            del self._tables[:-TABLES_KEPT]
        decision = self.policy.decide(state, options, balance)
        if not decision.alternatives:  # whoever had no need to compare them
            decision = dataclasses.replace(decision, alternatives=unweighed(options))
        return state, decision

    def reserve(self, decision: Decision, purpose: str) -> str | None:
        """Set the decision's upper bound aside; ``None`` for ``SKIP``.

        Raises:
            BudgetExceeded: If another run took the joules in between.
        """
        if decision.action.mode is UpdateMode.SKIP:
            return None
        return self.account.reserve(decision.cost_j.upper, purpose)

    def learn(
        self, decision: Decision, state: State, *, steps: int, actual_j: float, gain: float | None
    ) -> None:
        """Take up what an update cost and brought.

        Args:
            decision: The decision that was carried out.
            state: The state it was taken in.
            steps: Steps that were taken.
            actual_j: Joules that were measured.
            gain: Measured change of the metric; ``None`` where it could not be measured.
        """
        self.cost.observe(decision.action.mode, steps, actual_j)
        if gain is not None and state.has_model:
            self.utility.observe(decision.action, state, gain)

    def _imagine(self, options: Sequence[Option], state: State, drop: float) -> Table:
        return tuple(
            (
                option.cost_j.mean,
                self.utility.predict(option.action, state, drop=drop).mean,
            )
            for option in options
        )


def broke(sentence: str) -> Decision:
    """Return the SKIP of a budget from which not even a look at the data can be paid."""
    option = Option(candidate=Candidate(action=SKIP, steps=0), cost_j=_ZERO, gain=_ZERO)
    return decided(option, Reason.BUDGET_EXHAUSTED, sentence)


def _less(balance: Balance, keep_j: float) -> Balance:
    return dataclasses.replace(balance, total_j=max(0.0, balance.total_j - keep_j))
