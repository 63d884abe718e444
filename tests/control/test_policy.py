"""Policies decide on plain numbers: worked out by hand, and by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.budget import Balance
from greentrain.control import (
    SKIP,
    Action,
    Always,
    Candidate,
    Estimate,
    Option,
    PricedPolicy,
    Reason,
    State,
    UpdateMode,
    solve_price,
)
from greentrain.errors import ConfigurationError

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
WARM = Action(mode=UpdateMode.WARM_START)
REPLAY = Action(mode=UpdateMode.REPLAY)


def option(action: Action, cost_j: float, gain: float) -> Option:
    return Option(
        candidate=Candidate(action=action, steps=10),
        cost_j=Estimate(mean=cost_j, sd=0.0, upper=cost_j),
        gain=Estimate(mean=gain, sd=0.0, upper=gain),
    )


def options(full: tuple[float, float], warm: tuple[float, float], replay: tuple[float, float]):
    return [
        option(SKIP, 0.0, 0.0),
        option(FULL, *full),
        option(WARM, *warm),
        option(REPLAY, *replay),
    ]


def state(**changes) -> State:
    fields = {"position": 1, "horizon": 2, "has_model": True, "metric_before": 0.5}
    return State(**{**fields, **changes})


def balance(left_j: float) -> Balance:
    return Balance(total_j=left_j, spent_j=0.0, reserved_j=0.0)


def test_plenty_of_money_takes_the_largest_gain():
    offers = options((100.0, 0.30), (20.0, 0.25), (5.0, 0.10))
    decision = PricedPolicy().decide(state(), offers, balance(1000.0))
    assert decision.action is FULL
    assert decision.price_per_j == 0.0


def test_a_price_makes_the_cheaper_update_the_better_one():
    # Two experiences to go and 60 J left: 30 J each. At 0.05 / 80 per joule a full retraining
    # nets as much as a warm start; from there on the warm start wins, and it costs 20 J.
    offers = options((100.0, 0.30), (20.0, 0.25), (5.0, 0.10))
    decision = PricedPolicy().decide(state(position=0), offers, balance(60.0))
    assert decision.action is WARM
    assert decision.reason is Reason.BEST_NET_GAIN
    assert decision.price_per_j == pytest.approx(0.05 / 80)


def test_every_mode_is_the_best_somewhere():
    offers = options((100.0, 0.30), (20.0, 0.25), (5.0, 0.10))
    policy = PricedPolicy()
    chosen = {
        policy.decide(state(position=0, horizon=horizon), offers, balance(left)).action.mode
        for horizon, left in ((1, 1000.0), (1, 50.0), (1, 10.0), (1, 1.0))
    }
    assert chosen == set(UpdateMode)


def test_what_the_past_offered_sets_the_price():
    # Earlier experiences offered ten times the gain for the same joules: the little one at hand is
    # left out although it could be paid, because the money is expected to buy more later.
    offers = [option(SKIP, 0.0, 0.0), option(WARM, 20.0, 0.02)]
    dear = ((0.0, 0.0), (20.0, 0.2))
    decision = PricedPolicy().decide(
        state(position=0, horizon=4, tables=(dear, dear, dear)), offers, balance(60.0)
    )
    assert decision.action is SKIP
    assert decision.reason is Reason.NO_GAIN


def test_nothing_to_gain_is_skipped_however_much_is_left():
    offers = options((100.0, 0.004), (20.0, 0.0), (5.0, -0.1))
    decision = PricedPolicy().decide(state(), offers, balance(1e6))
    assert decision.action is SKIP
    assert "no update is expected to gain 0.005" in decision.sentence


def test_nothing_affordable_is_skipped_and_says_what_was_missing():
    offers = options((3600.0 * 3, 0.3), (3600.0 * 2, 0.2), (3600.0, 0.1))
    decision = PricedPolicy().decide(state(), offers, balance(1800.0))
    assert decision.action is SKIP
    assert decision.reason is Reason.TOO_DEAR
    assert "REPLAY, may cost 1 Wh, and 0.5 Wh are left" in decision.sentence


def test_without_a_model_the_largest_effort_within_its_share_is_taken():
    half = Action(mode=UpdateMode.FULL_RETRAIN, effort=0.5)
    offers = [option(SKIP, 0.0, 0.0), option(FULL, 100.0, 0.0), option(half, 50.0, 0.0)]
    first = state(position=0, has_model=False)
    assert PricedPolicy().decide(first, offers, balance(200.0)).action is FULL
    decision = PricedPolicy().decide(first, offers, balance(110.0))  # 60 % of it are 66 J
    assert decision.action is half
    assert decision.reason is Reason.NO_MODEL
    assert PricedPolicy().decide(first, offers, balance(40.0)).action is SKIP


def test_every_alternative_says_why_it_lost():
    offers = options((5000.0, 0.30), (20.0, 0.25), (5.0, 0.001))
    decision = PricedPolicy().decide(state(), offers, balance(1000.0))
    lost = {str(each.action): each.why_lost for each in decision.alternatives}
    assert lost["WARM_START"] == ""
    assert "more than is left" in lost["FULL_RETRAIN"]
    assert "too little to start for" in lost["REPLAY"]
    assert "nets +0.000 against +0.250" in lost["SKIP"]


@pytest.mark.parametrize("mode", list(UpdateMode))
def test_always_takes_its_mode_once_there_is_a_model(mode):
    offers = options((100.0, 0.3), (20.0, 0.25), (5.0, 0.1))
    policy = Always(mode=mode)
    assert policy.decide(state(), offers, balance(1000.0)).action.mode is mode
    first = policy.decide(state(has_model=False), offers, balance(1000.0))
    assert first.action.mode is UpdateMode.FULL_RETRAIN
    assert policy.decide(state(), offers, balance(1.0)).action is SKIP


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"min_gain": -1.0}, "min_gain"), ({"first_share": 0.0}, "first_share")],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        PricedPolicy(**arguments)


def test_a_policy_needs_skip_among_its_options():
    with pytest.raises(ConfigurationError, match="SKIP once"):
        PricedPolicy().decide(state(), [option(FULL, 1.0, 1.0)], balance(10.0))


offer = st.tuples(st.floats(1.0, 1e4), st.floats(-0.5, 0.5))
some_options = st.tuples(offer, offer, offer).map(lambda three: options(*three))
some_tables = st.lists(
    st.lists(offer, min_size=1, max_size=4).map(lambda rows: ((0.0, 0.0), *rows)), max_size=5
).map(tuple)


@given(offers=some_options, left=st.floats(0.0, 1e5), tables=some_tables, model=st.booleans())
def test_no_decision_costs_more_than_is_left(offers, left, tables, model):
    decision = PricedPolicy().decide(
        state(position=0, tables=tables, has_model=model), offers, balance(left)
    )
    assert decision.cost_j.upper <= left


@given(
    offers=some_options,
    left=st.floats(0.0, 1e5),
    tables=some_tables,
    exponent=st.integers(-20, 20),
)
def test_scaling_all_joules_changes_no_decision(offers, left, tables, exponent):
    scale = 2.0**exponent  # a power of two, so that no rounding is involved

    def scaled(each: Option) -> Option:
        return option(each.action, each.cost_j.mean * scale, each.gain.mean)

    before = PricedPolicy().decide(state(tables=tables), offers, balance(left))
    after = PricedPolicy().decide(
        state(tables=tuple(tuple((c * scale, g) for c, g in table) for table in tables)),
        [scaled(each) for each in offers],
        balance(left * scale),
    )
    assert after.action == before.action


@given(costs=st.tuples(*[st.floats(1.0, 1e3)] * 3), gain=st.floats(0.01, 0.5))
def test_with_equal_gains_the_cheapest_wins_when_joules_have_a_price(costs, gain):
    offers = options(*((cost, gain) for cost in costs))
    dear = ((0.0, 0.0), (100.0, 1e-6))  # later experiences offer a little for every joule
    decision = PricedPolicy().decide(
        state(position=0, horizon=1, tables=(dear,)), offers, balance(max(*costs, 99.0))
    )
    if decision.price_per_j:
        assert decision.cost_j.mean == min(costs)


@given(tables=some_tables, rate=st.floats(0.0, 1e4))
def test_the_price_keeps_the_mean_spend_within_the_rate(tables, rate):
    price = solve_price(tables, rate)
    assert price >= 0
    if tables:
        spent = [
            max(table, key=lambda row: (row[1] - price * row[0], -row[0]))[0] for table in tables
        ]
        assert sum(spent) / len(spent) <= rate * (1 + 1e-9) or price > 0
