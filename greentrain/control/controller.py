"""The budget controller: a policy, its two models, and the account that it pays from."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from greentrain.budget import Account, Balance
from greentrain.control.action import (
    HISTORY_KEPT,
    SKIP,
    Candidate,
    Estimate,
    Option,
    Past,
    State,
    UpdateMode,
)
from greentrain.control.cost import CostModel
from greentrain.control.decision import Decision, Reason, decided, unweighed
from greentrain.control.policies.priced import Policy, PricedPolicy
from greentrain.control.shared_forecast import Prospect, shared_outlook
from greentrain.control.utility import UtilityModel
from greentrain.units import format_energy

FIRST_SHARES = 2.0
"""Even shares of the budget that the first training may draw, while its cost is unknown."""
MOST_OF_IT = 0.6
"""The most of what is left that it may draw, if more experiences are to come."""

_ZERO = Estimate(mean=0.0, sd=0.0, upper=0.0)
_NOTHING = Option(candidate=Candidate(action=SKIP, steps=0), cost_j=_ZERO, gain=_ZERO)


class BudgetController:
    """Decide what each experience is worth, and learn from what it cost and brought.

    Args:
        account: Where joules are reserved and settled.
        policy: Decides; :class:`PricedPolicy` unless given.
        cost: Predicts joules.
        utility: Predicts gains.

    Attributes:
        account: As given; a stream gives another one as its budget becomes known.
        cost: As given.
        utility: As given.
    """

    def __init__(
        self,
        account: Account | None = None,
        *,
        policy: Policy | None = None,
        cost: CostModel | None = None,
        utility: UtilityModel | None = None,
    ) -> None:
        self.account = account
        self.policy = policy or PricedPolicy()
        self.cost = cost or CostModel()
        self.utility = utility or UtilityModel()
        self._stale: list[float] = []
        self._history: list[Past] = []

    def decide(
        self,
        state: State,
        candidates: Sequence[Candidate],
        *,
        keep_j: float = 0.0,
        others: Sequence[Prospect] = (),
    ) -> tuple[State, Decision]:
        """Decide about one experience; nothing is reserved yet.

        Args:
            state: What is known; the controller adds what there was before and what is left.
            candidates: The feasible updates, without ``SKIP``.
            keep_j: Joules to leave for looking at the experiences to come.
            others: What other streams of the budget were offered, and how many of the experiences
                to come each of these offers stands for.

        Returns:
            The state as the policy saw it, and the decision.
        """
        balance = _less(self._paying().balance(), keep_j)
        if not self.cost.calibrated:
            state = dataclasses.replace(state, left_j=balance.left_j)
            return state, _untried(state, candidates, balance.left_j)
        options = [_NOTHING]
        for candidate in candidates:
            options.append(
                Option(
                    candidate=candidate,
                    cost_j=self.cost.predict(candidate.action.mode, candidate.steps),
                    gain=self.utility.predict(candidate.action, state),
                )
            )
        tables, weights = shared_outlook(
            options, state, self.utility, self._stale, balance.left_j, others
        )
        state = dataclasses.replace(
            state,
            left_j=balance.left_j,
            since_update=_since(self._history, _TRAINED),
            since_full=_since(self._history, {UpdateMode.FULL_RETRAIN}),
            tables=tables,
            table_weights=weights,
            history=tuple(self._history),
        )
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
        return self._paying().reserve(decision.cost_j.upper, purpose)

    def settle(
        self,
        decision: Decision,
        state: State,
        reservation: str | None,
        *,
        steps: int,
        actual_j: float,
        metric_after: float | None,
    ) -> float:
        """Pay for what a decision drew, and learn from it: for training of one's own.

        Args:
            decision: The decision.
            state: The state it was taken in, as :meth:`decide` returned it.
            reservation: What :meth:`reserve` returned.
            steps: Steps that were taken.
            actual_j: Joules that were measured.
            metric_after: The metric after the update, oriented; ``None`` if it is unknown.

        Returns:
            Joules drawn beyond the reservation.
        """
        overrun_j = 0.0
        if reservation is not None:
            overrun_j = self._paying().settle(reservation, actual_j)
        self.learn(decision, state, steps=steps, actual_j=actual_j, metric_after=metric_after)
        return overrun_j

    def learn(
        self,
        decision: Decision,
        state: State,
        *,
        steps: int,
        actual_j: float,
        metric_after: float | None,
        gain: float | None = None,
        gain_sd: float = 0.0,
        kept: bool = True,
    ) -> None:
        """Take up what a decision cost and brought, that of a ``SKIP`` too.

        Args:
            decision: The decision that was carried out.
            state: The state it was taken in.
            steps: Steps that were taken.
            actual_j: Joules that were measured.
            metric_after: The metric of what was trained, oriented; ``None`` if it is unknown.
            gain: What it gained on the samples that ``state.metric_before`` is of; the difference
                of the two metrics unless given.
            gain_sd: Standard error of the gain.
            kept: Whether what was trained is the model now.
        """
        before = state.metric_before
        if state.metric_new is not None and state.has_model:
            self._stale.append(state.staleness)
            del self._stale[:-HISTORY_KEPT]
        if decision.action.mode is not UpdateMode.SKIP:
            self.cost.observe(decision.action.mode, steps, actual_j)
            if gain is None and metric_after is not None and before is not None:
                gain = metric_after - before
            if gain is not None and state.has_model:
                self.utility.observe(decision.action, state, gain, gain_sd)
        self._history.append(
            Past(
                position=state.position,
                mode=decision.action.mode,
                step_fraction=decision.action.step_fraction,
                steps=steps,
                cost_j=actual_j,
                n_new=state.n_new,
                metric_new=state.metric_new,
                metric_before=before,
                metric_after=metric_after if kept and steps else before,
            )
        )
        del self._history[:-HISTORY_KEPT]

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as plain values."""
        return {
            "cost": self.cost.state_dict(),
            "utility": self.utility.state_dict(),
            "stale": list(self._stale),
            "history": [past.as_dict() for past in self._history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.cost.load_state_dict(state["cost"])
        self.utility.load_state_dict(state["utility"])
        self._stale = list(state["stale"])
        self._history = [Past.from_dict(past) for past in state["history"]]

    def _paying(self) -> Account:
        if self.account is None:
            raise ValueError("the controller has no account to pay from")
        return self.account


_TRAINED = set(UpdateMode) - {UpdateMode.SKIP}


def _since(history: Sequence[Past], modes: Collection[UpdateMode]) -> int:
    """Return the experiences since one of some modes was taken, this one included; 0 for never."""
    for count, past in enumerate(reversed(history), start=1):
        if past.mode in modes:
            return count
    return 0


def broke(sentence: str) -> Decision:
    """Return the SKIP of a budget from which not even a look at the data can be paid."""
    return decided(_NOTHING, Reason.BUDGET_EXHAUSTED, sentence)


def _untried(state: State, candidates: Sequence[Candidate], left_j: float) -> Decision:
    """Return the first training, while nothing says what a step costs: its cap is all there is.

    A model has to exist before anything else is worth something, and what is there early is there
    for longest: so it may draw two even shares.
    """
    full = [each for each in candidates if each.action.mode is UpdateMode.FULL_RETRAIN]
    if not full or left_j <= 0:
        return broke(f"{format_energy(left_j)} are left: nothing starts")
    share = min(FIRST_SHARES / state.remaining, MOST_OF_IT) if state.remaining > 1 else 1.0
    cap_j = share * left_j
    option = Option(
        candidate=max(full, key=lambda each: each.action.step_fraction),
        cost_j=Estimate(mean=cap_j, sd=cap_j, upper=cap_j),
        gain=_ZERO,
    )
    sentence = (
        f"there is no trained model yet, and nothing says what a step costs; {option.action} may "
        f"draw {format_energy(cap_j)} of the {format_energy(left_j)} left, and ends there"
    )
    return decided(option, Reason.NO_MODEL, sentence, alternatives=unweighed([_NOTHING, option]))


def _less(balance: Balance, keep_j: float) -> Balance:
    return dataclasses.replace(balance, total_j=max(0.0, balance.total_j - keep_j))
