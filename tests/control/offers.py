"""Options, states and pasts with which policies are tried."""

from __future__ import annotations

from typing import Any

from greentrain.budget import Balance
from greentrain.control import (
    SKIP,
    Action,
    Candidate,
    Estimate,
    Option,
    Past,
    State,
    UpdateMode,
)

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
HALF = Action(mode=UpdateMode.FULL_RETRAIN, step_fraction=0.5)
WARM = Action(mode=UpdateMode.WARM_START)
REPLAY = Action(mode=UpdateMode.REPLAY)


def option(
    action: Action,
    cost_j: float,
    gain: float = 0.0,
    *,
    sd: float = 0.0,
    upper_j: float | None = None,
) -> Option:
    upper = cost_j if upper_j is None else upper_j
    return Option(
        candidate=Candidate(action=action, steps=10),
        cost_j=Estimate(mean=cost_j, sd=0.0, upper=upper),
        gain=Estimate(mean=gain, sd=sd, upper=gain + 2 * sd),
    )


def options(full_j: float = 100.0, warm_j: float = 20.0, replay_j: float = 5.0) -> list[Option]:
    """Return SKIP, and four updates: a full retraining at half its step fraction costs half."""
    return [
        option(SKIP, 0.0),
        option(FULL, full_j, 0.3),
        option(HALF, full_j / 2, 0.25),
        option(WARM, warm_j, 0.2),
        option(REPLAY, replay_j, 0.1),
    ]


def past(
    mode: UpdateMode = UpdateMode.SKIP,
    *,
    new: float | None = None,
    after: float | None = None,
    cost_j: float = 0.0,
    n_new: int = 100,
    position: int = 0,
) -> Past:
    return Past(
        position=position,
        mode=mode,
        step_fraction=0.0 if mode is UpdateMode.SKIP else 1.0,
        steps=0 if mode is UpdateMode.SKIP else 10,
        cost_j=cost_j,
        n_new=n_new,
        metric_new=new,
        metric_before=None,
        metric_after=after,
    )


def trained(after: float | None = 0.9, *, new: float | None = None, cost_j: float = 100.0) -> Past:
    return past(UpdateMode.FULL_RETRAIN, new=new, after=after, cost_j=cost_j)


def state(*history: Past, **changes: Any) -> State:
    fields: dict[str, Any] = {
        "position": len(history),
        "num_experiences": 10,
        "has_model": True,
        "metric_before": None,
        "n_new": 100,
        "history": history,
    }
    return State(**{**fields, **changes})


def balance(left_j: float) -> Balance:
    return Balance(total_j=left_j, spent_j=0.0, reserved_j=0.0)
