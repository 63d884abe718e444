"""What a stream of one's own training knows: from turn to turn, and from the ledger at a start."""

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
from greentrain.control.decision import decided, options_of, unweighed

_FIELDS = {each.name for each in dataclasses.fields(State)}
_FIXED_SHARE = 0.1
"""Share of the first update that is taken for its fixed part: no update is steps alone."""
_NOTHING = Estimate(mean=0.0, sd=0.0, upper=0.0)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A decision that was carried out, and what came of it. Metrics are oriented.

    Args:
        experience_id: The experience.
        state: What was known when it was decided.
        decision: The decision.
        steps: Steps that were trained.
        energy_j: Joules that the update drew; ``None`` if unknown.
        metric_after: The metric of the model in use after it; ``None`` if unknown.
        kept: Whether what was trained is that model.
        decided: When it was decided, in UTC.
    """

    experience_id: str
    state: State
    decision: Decision
    steps: int
    energy_j: float | None
    metric_after: float | None
    kept: bool
    decided: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Where a stream stands before its next turn. Metrics are oriented: higher is better.

    Args:
        has_model: Whether there is a trained model.
        metric_last: What the last update reached; ``None`` before the first.
        metric_best: The best that any has reached; ``None`` before the first.
        n_stored: Samples that updates have seen.
        pending: New samples of each experience that no update has seen yet.
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
        """Return what is known when an experience has arrived.

        A metric before the update shows that there is a model. Of one that comes from elsewhere
        nothing better is known of its last update than what it reaches now.

        Args:
            experience_id: The experience; its samples count once, however often it is tried.
            position: Its number.
            num_experiences: Experiences that the budget has to last for.
            metric_before: The metric on held-out data; ``None`` before there is a model.
            metric_new: The metric on the new data; ``None`` if unknown.
            n_new: Its samples.
            n_stored: Stored samples that an update has seen; as counted so far if ``None``.
            more_is_better: Whether a larger metric was a better one, before it was oriented.
            signals: Further fields of the state.

        Example:
            >>> known = Known(has_model=True, metric_last=0.75, n_stored=100, pending={"a": 10})
            >>> state = known.state("b", position=3, num_experiences=8, metric_before=0.75,
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

    def after(self, turn: PastDecision) -> Known:
        """Return where the stream stands after a turn.

        Example:
            >>> state = State(position=0, num_experiences=8, has_model=False, metric_before=None, n_new=50)
            >>> decision = Decision(
            ...     action=Action(mode=UpdateMode.FULL_RETRAIN), reason=Reason.NO_MODEL,
            ...     sentence="", cost_j=_NOTHING, gain=_NOTHING)
            >>> turn = PastDecision(experience_id="a", state=state, decision=decision, steps=10,
            ...     energy_j=5.0, metric_after=0.75, kept=True, decided=datetime(2026, 1, 1))
            >>> known = Known().after(turn)
            >>> known.has_model, known.n_stored, known.metric_best, known.warm_starts
            (True, 50, 0.75, 0)
        """
        state = turn.state
        if not (turn.kept and turn.steps):
            own = state.n_new - state.n_pending
            return dataclasses.replace(
                self,
                has_model=state.has_model,
                metric_last=state.metric_last,
                metric_best=state.metric_best,
                n_stored=state.n_stored,
                pending={**self.pending, turn.experience_id: own},
            )
        full = turn.decision.action.mode is UpdateMode.FULL_RETRAIN
        last = state.metric_last if turn.metric_after is None else turn.metric_after
        best = [each for each in (last, state.metric_best) if each is not None]
        return Known(
            has_model=True,
            metric_last=last,
            metric_best=max(best, default=None),
            n_stored=state.n_stored + state.n_new,
            warm_starts=0 if full else self.warm_starts + 1,
            last_update=state.position,
            last_full=state.position if full else self.last_full,
        )


def teach(controller: BudgetController, turn: PastDecision) -> None:
    """Let a controller learn from a turn; the first update says what a step costs, if nobody did.

    An update that is not kept brought nothing: the model in use is the one before.
    """
    cost_j = turn.energy_j or 0.0
    if turn.steps and cost_j > 0 and not controller.cost.calibrated:
        fixed_j = _FIXED_SHARE * cost_j
        controller.cost.calibrate(fixed_j=fixed_j, step_j=(cost_j - fixed_j) / turn.steps)
    controller.learn(
        turn.decision,
        turn.state,
        steps=turn.steps,
        actual_j=cost_j,
        metric_after=turn.metric_after if turn.steps else None,
        kept=turn.kept,
    )


def recall(controller: BudgetController, turns: Iterable[PastDecision]) -> Known:
    """Teach a fresh controller the turns of earlier processes; return where the stream stands."""
    known = Known()
    for turn in turns:
        teach(controller, turn)
        known = known.after(turn)
    return known


def turns_of(
    decisions: Iterable[Row], outcomes: Iterable[Row], *, more_is_better: bool
) -> list[PastDecision]:
    """Read the turns of a budget from the ledger's rows, in order.

    A decision without an outcome was begun and not finished: it counts as none. So does one that
    knew nothing, because not even a look at the data could be paid.

    Args:
        decisions: Rows of decisions.
        outcomes: Rows of outcomes of the same runs.
        more_is_better: Whether a larger metric is a better one.
    """
    sign = 1.0 if more_is_better else -1.0
    came = {(row["run_id"], row["position"]): row for row in outcomes}
    found = []
    for row in decisions:
        outcome = came.get((row["run_id"], row["position"]))
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
            )
        )
    return found


def state_of(recorded: str) -> State | None:
    """Read a recorded state, also of a release that knew fewer fields or more; ``None`` of none.

    What it says of earlier experiences is left out: their own rows say it.

    Example:
        >>> state_of('{"position":2,"num_experiences":8,"has_model":true,"metric_before":0.75}').n_new
        0
        >>> state_of("null") is None
        True
    """
    held = json.loads(recorded)
    if held is None:
        return None
    known = {name: value for name, value in held.items() if name in _FIELDS}
    return State(**{**known, "tables": (), "history": ()})


def _decision_of(row: Row) -> Decision:
    options = options_of(json.loads(row["alternatives"]))
    reason, sentence = Reason(row["reason"]), row["sentence"]
    for option in options:
        action = option.action
        if (action.mode, action.step_fraction) == (row["update_mode"], row["step_fraction"]):
            return decided(
                option,
                reason,
                sentence,
                price_per_j=row["price_per_j"],
                alternatives=unweighed(options),
            )
    return Decision(
        action=Action(mode=UpdateMode(row["update_mode"]), step_fraction=row["step_fraction"]),
        reason=reason,
        sentence=sentence,
        cost_j=_NOTHING,
        gain=_NOTHING,
        alternatives=unweighed(options),
    )


def _since(last: int | None, position: int) -> int:
    return 0 if last is None else position - last
