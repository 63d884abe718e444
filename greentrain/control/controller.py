"""The budget controller: a policy, its cost and utility models, and the account that pays."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from greentrain.budget import Account, Balance
from greentrain.control.action import NOTHING, SKIP_OPTION, Candidate, Estimate, Option
from greentrain.control.cost import CostModel
from greentrain.control.decision import Decision, Reason, decided, unweighed
from greentrain.control.forecast import Prospect, forecast_options
from greentrain.control.policies.policy import DecisionOutcome, Policy
from greentrain.control.policies.priced import PricedPolicy
from greentrain.control.state import HISTORY_KEPT, Past, State
from greentrain.control.update_modes import UpdateMode
from greentrain.control.utility import UtilityModel
from greentrain.units import format_energy

FIRST_SHARES = 2.0
"""Even shares of the budget that the first training may use while its cost is unknown."""
MOST_OF_IT = 0.6
"""Largest share of what is left that it may use, if more experiences are to come."""

_TRAINED = set(UpdateMode) - {UpdateMode.SKIP}


class BudgetController:
    """Decide the update of each experience, and learn from its cost and gain.

    Args:
        account: Account where joules are reserved and settled.
        policy: The policy; :class:`PricedPolicy` by default.
        cost: Predicts joules.
        utility: Predicts gains.

    Attributes:
        account: As given; a stream replaces it once its budget is known.
        policy: As given.
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
            state: The state; the controller adds the history and the joules that are left.
            candidates: The feasible updates, without ``SKIP``.
            keep_j: Joules to leave for probes of later experiences.
            others: Options of the other streams of the budget, and the number of experiences to
                come that they represent.

        Returns:
            The state as given to the policy, and the decision.
        """
        balance = _less(self._paying().balance(), keep_j)
        if not self.cost.calibrated:
            state = dataclasses.replace(state, left_j=balance.left_j)
            return state, _untried(state, candidates, balance.left_j)
        gains = self.utility.predict_all([each.action for each in candidates], state)
        options = [SKIP_OPTION]
        for candidate, gain in zip(candidates, gains, strict=True):
            cost_j = self.cost.predict(candidate.action.mode, candidate.steps)
            options.append(Option(candidate=candidate, cost_j=cost_j, gain=gain))
        forecast = forecast_options(
            options, state, self.utility, self._stale, balance.left_j, others
        )
        state = dataclasses.replace(
            state,
            left_j=balance.left_j,
            since_update=_since(self._history, _TRAINED),
            since_full=_since(self._history, {UpdateMode.FULL_RETRAIN}),
            history=tuple(self._history),
        )
        decision = self.policy.decide(state, options, balance, forecast)
        return state, dataclasses.replace(
            decision,
            alternatives=decision.alternatives or unweighed(options),
            forecast=forecast,
        )

    def reserve(self, decision: Decision, purpose: str) -> str | None:
        """Reserve the upper bound of the decision; return ``None`` for ``SKIP``.

        Raises:
            BudgetExceeded: If another run reserved the joules in between.
        """
        if decision.action.mode is UpdateMode.SKIP:
            return None
        return self._paying().reserve(decision.cost_j.upper, purpose)

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
        """Learn from the cost and the gain of a decision, also of a ``SKIP``.

        The policy receives the outcome too, if it has a method ``observe``: see :class:`Policy`.

        Args:
            decision: The decision that was carried out.
            state: The state that :meth:`decide` returned.
            steps: Steps that were trained.
            actual_j: Joules that were measured.
            metric_after: The metric of the trained model, oriented; ``None`` if unknown.
            gain: Its gain on the samples of ``state.metric_before``; by default the difference of
                the two metrics.
            gain_sd: Standard error of the gain.
            kept: Whether the trained model is in use from now on.
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
        observe = getattr(self.policy, "observe", None)
        if observe is not None:
            observe(
                DecisionOutcome(
                    decision=decision,
                    state=state,
                    steps=steps,
                    energy_j=actual_j,
                    metric_after=metric_after,
                    gain=gain,
                    gain_sd=gain_sd,
                    kept=kept,
                )
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the models, the history and the policy as plain values."""
        policy = getattr(self.policy, "state_dict", None)
        return {
            "cost": self.cost.state_dict(),
            "utility": self.utility.state_dict(),
            "stale": list(self._stale),
            "history": [past.as_dict() for past in self._history],
            "policy": None if policy is None else policy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from :meth:`state_dict`."""
        self.cost.load_state_dict(state["cost"])
        self.utility.load_state_dict(state["utility"])
        self._stale = list(state["stale"])
        self._history = [Past.from_dict(past) for past in state["history"]]
        load = getattr(self.policy, "load_state_dict", None)
        if load is not None and state.get("policy") is not None:
            load(state["policy"])

    def _paying(self) -> Account:
        if self.account is None:
            raise ValueError("the controller has no account; set its attribute `account` first")
        return self.account


def _since(history: Sequence[Past], modes: Collection[UpdateMode]) -> int:
    """Return the experiences since an update by one of the modes, this one included; or 0."""
    for count, past in enumerate(reversed(history), start=1):
        if past.mode in modes:
            return count
    return 0


def broke(sentence: str) -> Decision:
    """Return the ``SKIP`` of a budget that cannot pay for a probe of the data."""
    return decided(SKIP_OPTION, Reason.BUDGET_EXHAUSTED, sentence)


def set_aside(sentence: str) -> Decision:
    """Return the ``SKIP`` of an experience whose update failed again."""
    return decided(SKIP_OPTION, Reason.SET_ASIDE, sentence)


def _untried(state: State, candidates: Sequence[Candidate], left_j: float) -> Decision:
    """Return the first training, within a cap because the cost of a step is unknown.

    The cap is two even shares. Every other update needs a model, and a model that exists early is
    in use for longest.
    """
    full = [each for each in candidates if each.action.mode is UpdateMode.FULL_RETRAIN]
    if not full or left_j <= 0:
        return broke(f"Budget exhausted: {format_energy(left_j)} left")
    share = min(FIRST_SHARES / state.remaining, MOST_OF_IT) if state.remaining > 1 else 1.0
    cap_j = share * left_j
    option = Option(
        candidate=max(full, key=lambda each: each.action.step_fraction),
        cost_j=Estimate(mean=cap_j, sd=cap_j, upper=cap_j),
        gain=NOTHING,
    )
    sentence = (
        f"No trained model yet, cost per step unknown; {option.action} may use "
        f"{format_energy(cap_j)} of the {format_energy(left_j)} left"
    )
    return decided(option, Reason.NO_MODEL, sentence, alternatives=unweighed([SKIP_OPTION, option]))


def _less(balance: Balance, keep_j: float) -> Balance:
    return dataclasses.replace(balance, total_j=max(0.0, balance.total_j - keep_j))
