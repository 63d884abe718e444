"""The budget controller: a policy, its cost and utility models, and the account that pays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from greentrain.budget import Account, Balance
from greentrain.control.action import NOTHING, SKIP_OPTION, Action, Candidate, Estimate, Option
from greentrain.control.cost import CostModel
from greentrain.control.decision import Decision, Reason, decided, unweighed
from greentrain.control.forecast import Prospect, forecast_options
from greentrain.control.policies.policy import DecisionOutcome, Policy
from greentrain.control.policies.priced import PricedPolicy
from greentrain.control.staleness import Case, drop_cases, staleness_found, staleness_of
from greentrain.control.state import HISTORY_KEPT, Past, State
from greentrain.control.update_modes import UpdateMode
from greentrain.control.utility import UtilityModel
from greentrain.units import format_energy

FIRST_SHARES = 2.0
"""Even shares of the budget that the first training may use while its cost is unknown."""
FIRST_LEAST = 0.1
"""Share of the budget that it may use at least: its model is in use for longest."""
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
        state = self._informed(state, candidates, balance)
        options = self._options(state, candidates, drop_cases(state, self._stale))
        forecast = forecast_options(
            options, state, self.utility, self._stale, balance.left_j, others
        )
        decision = self.policy.decide(state, options, balance, forecast)
        return state, dataclasses.replace(
            decision,
            alternatives=decision.alternatives or unweighed(options),
            forecast=forecast,
        )

    def worth_of_probe_j(
        self,
        state: State,
        candidates: Sequence[Candidate],
        *,
        keep_j: float = 0.0,
        others: Sequence[Prospect] = (),
    ) -> float | None:
        """Return the joules that a probe of the new data is worth.

        A probe finds which of the possible drops the new data cause. With it, the best option for
        that drop is chosen; without it, the option that is best on average. The value of the
        information is the difference of their expected net gains (Howard 1966, "Information value
        theory"). Divided by the price of a joule it is the worth in joules.

        Args:
            state: The state before a probe.
            candidates: The feasible updates, without ``SKIP``.
            keep_j: Joules for this probe and for those of later experiences.
            others: As for :meth:`decide`.

        Returns:
            0 if no update is affordable, or each drop has the same best option; infinity if joules
            are plentiful. ``None`` if the policy does not say what a probe is worth.
        """
        worth = getattr(self.policy, "worth_of_probe_j", None)
        if worth is None or not self.cost.calibrated:
            return None
        balance = _less(self._paying().balance(), keep_j)
        state = self._informed(state, candidates, balance)
        cases = drop_cases(state, self._stale)
        options = self._options(state, candidates, cases)
        forecast = forecast_options(
            options, state, self.utility, self._stale, balance.left_j, others
        )
        offered = [
            (self._options(state, candidates, [(drop, 1.0)]), weight) for drop, weight in cases
        ]
        found: float = worth(state, options, offered, balance, forecast)
        return found

    def _informed(self, state: State, candidates: Sequence[Candidate], balance: Balance) -> State:
        """Add the balance and the history to a state."""
        steps = {each.action: each.steps for each in candidates}
        whole = steps.get(Action(mode=UpdateMode.FULL_RETRAIN))
        warm = steps.get(Action(mode=UpdateMode.WARM_START))
        return dataclasses.replace(
            state,
            left_j=balance.left_j,
            effort=_share(_effort(self._history), whole),
            last_share=_share(_last_steps(self._history), whole),
            warm_share=_share(warm, whole) or state.warm_share,
            since_update=_since(self._history, _TRAINED),
            since_full=_since(self._history, {UpdateMode.FULL_RETRAIN}),
            history=tuple(self._history),
        )

    def _options(
        self, state: State, candidates: Sequence[Candidate], drops: Sequence[Case]
    ) -> list[Option]:
        """Return ``SKIP``, and the candidates with their predicted cost and gain."""
        gains = self.utility.predict_all([each.action for each in candidates], state, drops)
        options = [SKIP_OPTION]
        for candidate, gain in zip(candidates, gains, strict=True):
            action, steps = candidate.action, candidate.plain_steps
            cost_j = self.cost.predict(action.mode, steps, method=action.method)
            options.append(Option(candidate=candidate, cost_j=cost_j, gain=gain))
        return options

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
        if state.has_model and not (state.estimated_by and metric_after is None):
            self._learn_staleness(state, metric_after, gain)
        if decision.action.mode is not UpdateMode.SKIP:
            self.cost.observe(
                decision.action.mode,
                decision.plain_steps(steps),
                actual_j,
                method=decision.action.method,
            )
            if gain is None and metric_after is not None and before is not None:
                gain = metric_after - before
            if gain is not None and state.has_model:
                cases = drop_cases(state, self._stale)
                drop = math.fsum(drop * weight for drop, weight in cases)
                scatter = math.fsum(weight * (each - drop) ** 2 for each, weight in cases)
                sd = math.hypot(gain_sd, math.sqrt(scatter))
                self.utility.observe(decision.action, state, gain, sd, drop=drop)
        self._history.append(
            Past(
                position=state.position,
                mode=decision.action.mode,
                step_fraction=decision.action.step_fraction,
                steps=_effective(decision, steps),
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

    def _learn_staleness(
        self, state: State, metric_after: float | None, gain: float | None
    ) -> None:
        stale = staleness_of(state, self._stale)
        if state.metric_new is None or state.estimated_by:
            found = staleness_found(state, metric_after, gain)
            stale = stale if found is None else found
        if stale is not None:
            self._stale.append(stale)
            del self._stale[:-HISTORY_KEPT]

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


def _effort(history: Sequence[Past]) -> int:
    """Return the steps since the last full retraining, its own included."""
    steps = 0
    for past in reversed(history):
        steps += past.steps
        if past.mode is UpdateMode.FULL_RETRAIN:
            break
    return steps


def _last_steps(history: Sequence[Past]) -> int | None:
    """Return the steps of the last update that was kept; ``None`` if there was none."""
    for past in reversed(history):
        if past.steps and (past.metric_before is None or past.metric_after != past.metric_before):
            return past.steps
    return None


def _effective(decision: Decision, steps: int) -> int:
    """Return trained steps; with a method, as plain ones that cost as much, but 1 at least."""
    plain = decision.plain_steps(steps)
    return max(1, round(plain)) if steps and decision.work is not None else steps


def _share(steps: int | None, whole: int | None) -> float | None:
    return steps / whole if steps is not None and whole else None


def broke(sentence: str) -> Decision:
    """Return the ``SKIP`` of a budget that cannot pay for a probe of the data."""
    return decided(SKIP_OPTION, Reason.BUDGET_EXHAUSTED, sentence)


def no_labels(wanted: Decision) -> Decision:
    """Return the ``SKIP`` in place of an update of an experience that has no label.

    Example:
        >>> option = Option(candidate=Candidate(action=Action(mode=UpdateMode.REPLAY), steps=9),
        ...     cost_j=NOTHING, gain=NOTHING)
        >>> no_labels(decided(option, Reason.DRIFT, "Drop of 0.1")).sentence
        'No label has arrived, so nothing can be trained; with labels: REPLAY. Drop of 0.1'
    """
    sentence = (
        f"No label has arrived, so nothing can be trained; with labels: {wanted.action}. "
        f"{wanted.sentence}"
    )
    skipped = decided(SKIP_OPTION, Reason.NO_LABELS, sentence, alternatives=wanted.alternatives)
    return dataclasses.replace(
        skipped, min_gain_per_j=wanted.min_gain_per_j, forecast=wanted.forecast
    )


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
    shares = max(FIRST_SHARES / state.remaining, FIRST_LEAST)
    share = min(shares, MOST_OF_IT) if state.remaining > 1 else 1.0
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
