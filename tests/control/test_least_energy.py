"""The least joules that reach a target, decided on plain numbers."""

from __future__ import annotations

import pytest

from greentrain.budget import Balance
from greentrain.control import SKIP, LeastEnergy, Reason, State, UpdateMode
from greentrain.errors import ConfigurationError
from tests.control.offers import FULL, REPLAY, WARM, option, past

PLENTY = Balance(total_j=1000.0, spent_j=0.0, reserved_j=0.0)


OPTIONS = [
    option(SKIP, 0.0, 0.0),
    option(FULL, 100.0, 0.10, sd=0.01),
    option(WARM, 20.0, 0.06, sd=0.01),
    option(REPLAY, 5.0, 0.02, sd=0.01),
]


def state(before: float | None = 0.90, **changes) -> State:
    fields = {"position": 3, "num_experiences": 6, "has_model": True, "metric_before": before}
    return State(**{**fields, **changes})


def decide(target, now: State, balance: Balance = PLENTY, options=OPTIONS):
    return LeastEnergy(target_metric=target).decide(now, options, balance)


@pytest.mark.parametrize(
    ("target", "chosen", "reason"),
    [
        (0.90, SKIP, Reason.NOT_DUE),  # it is reached
        (0.905, REPLAY, Reason.BELOW_TARGET),  # 0.90 + 0.02 - 0.01
        (0.911, WARM, Reason.BELOW_TARGET),  # of a replay that is not sure
        (0.96, FULL, Reason.BELOW_TARGET),
        (0.999, FULL, Reason.BELOW_TARGET),  # nothing is enough: the most that can be had
    ],
)
def test_the_cheapest_that_is_sure_to_reach_the_target_is_taken(target, chosen, reason):
    decision = decide(target, state())
    assert (decision.action, decision.reason) == (chosen, reason)
    assert {each.option.action for each in decision.alternatives} == {FULL, WARM, REPLAY, SKIP}
    assert all(each.why_lost for each in decision.alternatives if each.option.action != chosen)


def test_the_budget_stays_a_cap():
    poor = Balance(total_j=1000.0, spent_j=985.0, reserved_j=0.0)  # 15 J are left
    decision = decide(0.96, state(), poor)
    assert decision.action == REPLAY
    assert "may not be enough" in decision.sentence
    broke = Balance(total_j=1000.0, spent_j=999.0, reserved_j=0.0)
    assert decide(0.96, state(), broke).action == SKIP


def test_without_a_probe_the_metric_is_what_the_last_update_reached_less_the_drop():
    unseen = state(None, metric_last=0.95, metric_new=0.90, n_new=10)
    assert decide(0.94, unseen).reason is Reason.BELOW_TARGET
    assert decide(0.89, unseen).reason is Reason.NOT_DUE
    nothing = decide(0.94, state(None))
    assert (nothing.action, nothing.reason) == (SKIP, Reason.NO_GAIN)
    assert "Metric unknown" in nothing.sentence


@pytest.mark.parametrize(
    ("reached", "chosen", "told"),
    [
        (0.904, SKIP, "last measured"),  # half a point below is 0.899
        (0.914, REPLAY, "last measured"),
        (None, FULL, "expected"),  # 0.90 and the 0.10 that full retraining may gain
    ],
)
def test_a_target_below_full_retraining(reached, chosen, told):
    history = () if reached is None else (past(UpdateMode.FULL_RETRAIN, after=reached),)
    decision = decide("full - 0.5", state(history=history))
    assert decision.action == chosen
    assert told in decision.sentence


@pytest.mark.parametrize("target", ["fuller", "full - x", "", float("nan"), float("inf"), True])
def test_a_target_that_is_none_is_refused(target):
    with pytest.raises(ConfigurationError, match=r"such as 0\.97, or to 'full - 0.5' in points"):
        LeastEnergy(target_metric=target)
