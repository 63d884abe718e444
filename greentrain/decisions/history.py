"""Restore a stream from the decisions and outcomes in its ledger."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from greentrain.control import (
    Action,
    BudgetController,
    Decision,
    Estimate,
    Reason,
    State,
    UpdateMode,
)
from greentrain.control.decision import chosen_method, decided, options_of, unweighed
from greentrain.ledger import DecisionRow, Ledger, OutcomeRow

_FIXED_SHARE = 0.1
"""Share of the first update's energy that counts as its fixed part, besides its steps."""
_NOTHING = Estimate(mean=0.0, sd=0.0, upper=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A decision that was carried out, with its outcome. Metrics are oriented.

    Args:
        experience_id: The experience.
        state: The state of the decision.
        decision: The decision.
        steps: Steps that were trained.
        energy_j: Joules that the update used; ``None`` if unknown.
        metric_after: The metric of the model in use after it; ``None`` if unknown.
        kept: Whether the trained model is in use.
        decided: Time of the decision, in UTC.
        gain: Gain that was measured for the update; ``None`` if none was.
        gain_sd: Its standard deviation.
        weights_sha256: Hash of the weights in use after it; ``None`` if unknown.
    """

    experience_id: str
    state: State
    decision: Decision
    steps: int
    energy_j: float | None
    metric_after: float | None
    kept: bool
    decided: datetime
    gain: float | None = None
    gain_sd: float | None = None
    weights_sha256: str | None = None

    @property
    def metric_trained(self) -> float | None:
        """The metric of the trained model, also if it was not kept; ``None`` if unknown."""
        if self.kept or self.metric_after is None or self.gain is None:
            return self.metric_after
        return self.metric_after + self.gain


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """The status of a stream before its next decision. Metrics are oriented: higher is better.

    Args:
        has_model: Whether there is a trained model.
        metric_last: The metric after the last update; ``None`` before the first.
        metric_best: The best metric after any update; ``None`` before the first.
        n_stored: Samples that updates have trained on.
        pending: New samples of each experience that no update has trained on yet.
        warm_starts: Updates since the last full retraining.
        last_update: Position of the last update; ``None`` before the first.
        last_full: Position of the last full retraining; ``None`` before the first.
    """

    has_model: bool = False
    metric_last: float | None = None
    metric_best: float | None = None
    n_stored: int = 0
    pending: Mapping[str, int] = field(default_factory=dict)
    warm_starts: int = 0
    last_update: int | None = None
    last_full: int | None = None

    def state(
        self,
        experience_id: str,
        *,
        position: int,
        num_experiences: int,
        metric_before: float | None,
        metric_new: float | None,
        n_new: int,
        n_stored: int | None,
        more_is_better: bool,
        signals: Mapping[str, Any],
    ) -> State:
        """Return the state when an experience has arrived.

        A metric before the update implies a model. If this stream did not train it, the metric of
        its last update is taken to be the present one.

        Args:
            experience_id: The experience; its samples count once, however often it is tried.
            position: Its number in the stream.
            num_experiences: Experiences that the budget has to last for.
            metric_before: The metric on held-out data; ``None`` before there is a model.
            metric_new: The metric on the new data; ``None`` if unknown.
            n_new: Number of its new samples.
            n_stored: Stored samples that an update has trained on; counted here if ``None``.
            more_is_better: Whether a larger metric was a better one, before it was oriented.
            signals: Further fields of the state.

        Example:
            >>> status = StreamStatus(
            ...     has_model=True, metric_last=0.75, n_stored=100, pending={"a": 10}
            ... )
            >>> state = status.state("b", position=3, num_experiences=8, metric_before=0.75,
            ...     metric_new=0.5, n_new=5, n_stored=None, more_is_better=True, signals={})
            >>> state.n_new, state.n_pending, state.n_stored
            (15, 10, 100)
        """
        has_model = self.has_model or metric_before is not None
        last = metric_before if self.metric_last is None else self.metric_last
        pending = sum(n for name, n in self.pending.items() if name != experience_id)
        ceiling = 1.0 if more_is_better else 0.0
        return State(
            position=position,
            num_experiences=num_experiences,
            has_model=has_model,
            metric_before=metric_before,
            metric_new=metric_new if has_model else None,
            metric_last=last,
            metric_best=last if self.metric_best is None else self.metric_best,
            metric_ceiling=ceiling
            if metric_before is not None and metric_before <= ceiling
            else None,
            n_new=n_new + pending,
            n_stored=self.n_stored if n_stored is None else n_stored,
            n_pending=pending,
            warm_starts=self.warm_starts,
            since_update=_since(self.last_update, position),
            since_full=_since(self.last_full, position),
            **signals,
        )

    def after(self, past: PastDecision) -> StreamStatus:
        """Return the status after a decision.

        Example:
            >>> state = State(
            ...     position=0, num_experiences=8, has_model=False, metric_before=None, n_new=50
            ... )
            >>> decision = Decision(
            ...     action=Action(mode=UpdateMode.FULL_RETRAIN), reason=Reason.NO_MODEL,
            ...     sentence="", cost_j=_NOTHING, gain=_NOTHING)
            >>> past = PastDecision(experience_id="a", state=state, decision=decision, steps=10,
            ...     energy_j=5.0, metric_after=0.75, kept=True, decided=datetime(2026, 1, 1))
            >>> status = StreamStatus().after(past)
            >>> status.has_model, status.n_stored, status.metric_best, status.warm_starts
            (True, 50, 0.75, 0)
        """
        state = past.state
        if not (past.kept and past.steps):
            own = state.n_new - state.n_pending
            return dataclasses.replace(
                self,
                has_model=state.has_model,
                metric_last=state.metric_last,
                metric_best=state.metric_best,
                n_stored=state.n_stored,
                pending={**self.pending, past.experience_id: own},
            )
        full = past.decision.action.mode is UpdateMode.FULL_RETRAIN
        last = state.metric_last if past.metric_after is None else past.metric_after
        best = [each for each in (last, state.metric_best) if each is not None]
        return StreamStatus(
            has_model=True,
            metric_last=last,
            metric_best=max(best, default=None),
            n_stored=state.n_stored + state.n_new,
            warm_starts=0 if full else self.warm_starts + 1,
            last_update=state.position,
            last_full=state.position if full else self.last_full,
        )


def read_history(
    ledger: Ledger, stream: str, budget_id: str, *, more_is_better: bool
) -> list[PastDecision]:
    """Read a stream's finished decisions from the ledger, in order.

    A decision without an outcome was never finished, and is left out. So is a decision without a
    state, taken when the budget did not even pay for a probe.

    Args:
        ledger: The ledger.
        stream: Name of the stream; its runs have this name.
        budget_id: The budget that paid.
        more_is_better: Whether a larger metric is a better one.
    """
    own = {row["run_id"] for row in ledger.rows("run", name=stream)}
    decisions = [
        row for row in ledger.rows("decision", budget_id=budget_id) if row["run_id"] in own
    ]
    runs = dict.fromkeys(row["run_id"] for row in decisions)
    outcomes = [row for run_id in runs for row in ledger.rows("outcome", run_id=run_id)]
    return past_decisions(decisions, outcomes, more_is_better=more_is_better)


def past_decisions(
    decisions: Iterable[DecisionRow], outcomes: Iterable[OutcomeRow], *, more_is_better: bool
) -> list[PastDecision]:
    """Join decisions with their outcomes; see :func:`read_history`.

    A baseline retraining is no decision about its experience, and is left out.

    Args:
        decisions: Rows of decisions.
        outcomes: Rows of outcomes of the same runs.
        more_is_better: Whether a larger metric is a better one.
    """
    sign = 1.0 if more_is_better else -1.0
    by_reservation = {row["reservation_id"]: row for row in outcomes if row["reservation_id"]}
    skipped = {
        (row["run_id"], row["position"]): row for row in outcomes if not row["reservation_id"]
    }
    found = []
    for row in decisions:
        if row["reason"] == Reason.BASELINE:
            continue
        outcome = (
            by_reservation.get(row["reservation_id"])
            if row["reservation_id"]
            else skipped.get((row["run_id"], row["position"]))
        )
        state = state_of(row["state"])
        if outcome is None or state is None:
            continue
        metric_after = outcome["metric_after"]
        found.append(
            PastDecision(
                experience_id=row["experience_id"],
                state=state,
                decision=_decision_of(row),
                steps=outcome["steps"],
                energy_j=outcome["energy_j"],
                metric_after=None if metric_after is None else sign * metric_after,
                kept=outcome["kept"],
                decided=datetime.fromisoformat(row["recorded_utc"]),
                gain=outcome["gain"],
                gain_sd=outcome["gain_sd"],
                weights_sha256=outcome["weights_sha256"],
            )
        )
    return found


def relearn(controller: BudgetController, history: Iterable[PastDecision]) -> StreamStatus:
    """Train a fresh controller on past decisions, and return the stream's status."""
    status = StreamStatus()
    for past in history:
        learn_step_cost(controller, past.steps, past.energy_j)
        if past.decision.reason is not Reason.BUDGET_EXHAUSTED:
            controller.learn(
                past.decision,
                past.state,
                steps=past.steps,
                actual_j=past.energy_j or 0.0,
                metric_after=past.metric_after if past.steps else None,
                kept=past.kept,
            )
        status = status.after(past)
    return status


def learn_step_cost(controller: BudgetController, steps: int, energy_j: float | None) -> None:
    """Derive the cost of a step from a first update's total, if nothing calibrated it before."""
    if steps and energy_j and not controller.cost.calibrated:
        fixed_j = _FIXED_SHARE * energy_j
        controller.cost.calibrate(fixed_j=fixed_j, step_j=(energy_j - fixed_j) / steps)


def state_of(recorded: str) -> State | None:
    """Read a recorded state, also one with the fields of another release; ``None`` for none.

    Its history of earlier experiences is left out, because they have rows in the ledger.

    Example:
        >>> recorded = (
        ...     '{"position":2,"num_experiences":8,"has_model":true,"metric_before":0.75}'
        ... )
        >>> state_of(recorded).n_new
        0
        >>> state_of("null") is None
        True
    """
    held = json.loads(recorded)
    if held is None:
        return None
    return State.from_dict({**held, "history": ()})


def _decision_of(row: DecisionRow) -> Decision:
    alternatives = json.loads(row["alternatives"])
    options = options_of(alternatives)
    reason, sentence = Reason(row["reason"]), row["sentence"]
    action = Action(
        mode=UpdateMode(row["update_mode"]),
        step_fraction=row["step_fraction"],
        method=chosen_method(alternatives),
    )
    for option in options:
        if option.action == action:
            return decided(
                option,
                reason,
                sentence,
                min_gain_per_j=row["min_gain_per_j"],
                alternatives=unweighed(options),
            )
    return Decision(
        action=action,
        reason=reason,
        sentence=sentence,
        cost_j=_NOTHING,
        gain=_NOTHING,
        alternatives=unweighed(options),
    )


def _since(last: int | None, position: int) -> int:
    return 0 if last is None else position - last
