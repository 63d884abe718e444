"""The controller joins policy, models and account."""

from __future__ import annotations

import dataclasses
import json

import pytest

from greentrain.budget import Balance
from greentrain.control import (
    Action,
    Always,
    BudgetController,
    Candidate,
    CostModel,
    PricedPolicy,
    Reason,
    State,
    UpdateMode,
    options_of,
)
from greentrain.errors import BudgetExceeded


class PaperAccount:
    """An account in memory."""

    def __init__(self, total_j: float) -> None:
        self.total_j = total_j
        self.spent_j = 0.0
        self.open: dict[str, float] = {}

    def balance(self) -> Balance:
        return Balance(
            total_j=self.total_j, spent_j=self.spent_j, reserved_j=sum(self.open.values())
        )

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        left_j = self.balance().left_j
        if upper_bound_j > left_j:
            raise BudgetExceeded(purpose, asked_j=upper_bound_j, left_j=left_j)
        self.open[purpose] = upper_bound_j
        return purpose

    def settle(self, reservation: str, actual_j: float) -> float:
        reserved_j = self.open.pop(reservation)
        self.spent_j += actual_j
        return max(0.0, actual_j - reserved_j)


CANDIDATES = [
    Candidate(action=Action(mode=UpdateMode.FULL_RETRAIN), steps=1000),
    Candidate(action=Action(mode=UpdateMode.WARM_START), steps=200),
    Candidate(action=Action(mode=UpdateMode.REPLAY), steps=50),
]


def arrival(position: int, metric_new: float = 0.9) -> State:
    return State(
        position=position,
        horizon=8,
        has_model=True,
        metric_before=0.9,
        metric_new=metric_new,
        metric_last=0.9,
        metric_best=0.9,
        n_new=100,
        n_stored=100 * (position + 1),
    )


def controller(total_j: float) -> BudgetController:
    cost = CostModel()
    cost.calibrate(fixed_j=1.0, step_j=1.0)
    return BudgetController(PaperAccount(total_j), cost=cost)


def test_a_break_is_trained_and_more_of_the_same_is_not():
    control = controller(2000.0)
    _, calm = control.decide(arrival(1, metric_new=0.92), CANDIDATES)
    assert calm.action.mode is UpdateMode.SKIP
    _, broken = control.decide(arrival(2, metric_new=0.1), CANDIDATES)
    assert broken.action.mode is not UpdateMode.SKIP
    assert broken.reason is Reason.BEST_NET_GAIN


@pytest.mark.parametrize(
    "policy", [PricedPolicy(), Always(mode=UpdateMode.REPLAY), Always(mode=UpdateMode.SKIP)]
)
def test_the_recorded_state_gives_the_recorded_decision(policy):
    cost = CostModel()
    cost.calibrate(fixed_j=1.0, step_j=1.0)
    control = BudgetController(PaperAccount(400.0), policy=policy, cost=cost)
    first = dataclasses.replace(arrival(0, metric_new=0.1), has_model=False)
    arrivals = [first, *(arrival(position, metric_new=0.3) for position in range(1, 6))]
    for position, arrived in enumerate(arrivals):
        state, decision = control.decide(arrived, CANDIDATES, keep_j=3.0)
        assert len(state.tables) == (
            3 + position - 1 if position else 0
        )  # 3 imagined, and the past
        recorded = json.loads(json.dumps([state.as_dict(), decision.alternatives_as_dicts()]))
        found, options = State.from_dict(recorded[0]), options_of(recorded[1])
        assert found.left_j == pytest.approx(397.0 - control.account.balance().reserved_j)
        balance = Balance(total_j=found.left_j, spent_j=0.0, reserved_j=0.0)
        again = policy.decide(found, options, balance)
        assert dataclasses.replace(again, alternatives=decision.alternatives) == decision
        control.reserve(decision, str(position))


def test_skip_reserves_nothing_and_an_update_its_upper_bound():
    control = controller(2000.0)
    _, calm = control.decide(arrival(1, metric_new=0.92), CANDIDATES)
    assert control.reserve(calm, "calm") is None
    _, broken = control.decide(arrival(2, metric_new=0.1), CANDIDATES)
    assert control.reserve(broken, "broken") == "broken"
    assert control.account.balance().reserved_j == broken.cost_j.upper


def test_joules_kept_for_later_looks_cannot_be_decided_away():
    control = controller(2000.0)
    _, decision = control.decide(arrival(1, metric_new=0.1), CANDIDATES, keep_j=1990.0)
    assert decision.reason is Reason.TOO_DEAR


def test_a_stream_never_spends_more_than_its_budget():
    control = controller(700.0)
    account = control.account
    for position in range(1, 8):
        state, decision = control.decide(arrival(position, metric_new=0.2), CANDIDATES)
        reservation = control.reserve(decision, f"update {position}")
        assert account.balance().within
        if reservation is not None:
            actual_j = decision.cost_j.mean * 1.04
            account.settle(reservation, actual_j)
            control.learn(decision, state, steps=decision.steps, actual_j=actual_j, metric_after=0.6)
    assert 0 < account.balance().spent_j <= 700.0
    assert account.balance().reserved_j == pytest.approx(0.0)
