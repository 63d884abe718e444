"""Policies decide on plain numbers: worked out by hand, and by properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.budget import Balance
from greentrain.control import (
    SKIP,
    Action,
    Always,
    Option,
    OptionForecast,
    PricedPolicy,
    Reason,
    State,
    UpdateMode,
    solve_price,
)
from greentrain.errors import ConfigurationError
from tests.control.offers import FULL, REPLAY, WARM, option


def options(full: tuple[float, float], warm: tuple[float, float], replay: tuple[float, float]):
    return [
        option(SKIP, 0.0, 0.0),
        option(FULL, *full),
        option(WARM, *warm),
        option(REPLAY, *replay),
    ]


def state(**changes) -> State:
    fields = {
        "position": 1,
        "num_experiences": 2,
        "has_model": True,
        "metric_before": 0.5,
        "metric_new": 0.5,
        "metric_last": 0.5,
        "metric_ceiling": 1.0,
    }
    return State(**{**fields, **changes})


def forecast(*tables, weights: tuple[float, ...] | None = None) -> OptionForecast:
    return OptionForecast(tables=tables, weights=weights or (1.0,) * len(tables))


def balance(left_j: float) -> Balance:
    return Balance(total_j=left_j, spent_j=0.0, reserved_j=0.0)


def test_plenty_of_money_takes_the_largest_gain():
    offers = options((100.0, 0.30), (20.0, 0.25), (5.0, 0.10))
    decision = PricedPolicy().decide(state(), offers, balance(1000.0))
    assert decision.action is FULL
    assert decision.min_gain_per_j == 0.0


def test_a_price_makes_the_cheaper_update_the_better_one():
    # Two experiences to go and 60 J left: 30 J each. At 0.05 / 80 per joule a full retraining
    # nets as much as a warm start; from there on the warm start wins, and it costs 20 J.
    offers = options((100.0, 0.30), (20.0, 0.25), (5.0, 0.10))
    decision = PricedPolicy().decide(state(position=0), offers, balance(60.0))
    assert decision.action is WARM
    assert decision.reason is Reason.BEST_NET_GAIN
    assert decision.min_gain_per_j == pytest.approx(0.05 / 80)


def test_every_mode_is_the_best_somewhere():
    offers = options((100.0, 0.30), (20.0, 0.25), (5.0, 0.10))
    policy = PricedPolicy()
    chosen = {
        policy.decide(
            state(position=0, num_experiences=num_experiences), offers, balance(left)
        ).action.mode
        for num_experiences, left in ((1, 1000.0), (1, 50.0), (1, 10.0), (1, 1.0))
    }
    assert chosen == {option.action.mode for option in offers}


def test_what_is_to_come_sets_the_price():
    # Experiences to come offer ten times the gain for the same joules: the small current one is
    # left out although it could be paid, because the money is expected to buy more later.
    offers = [option(SKIP, 0.0, 0.0), option(WARM, 20.0, 0.02)]
    expensive = ((0.0, 0.0), (20.0, 0.2))
    decision = PricedPolicy().decide(
        state(position=0, num_experiences=4),
        offers,
        balance(60.0),
        forecast(expensive, expensive, expensive),
    )
    assert decision.action is SKIP
    assert decision.reason is Reason.NO_GAIN
    assert "no update brings 3.6 for each Wh" in decision.sentence  # 0.02 for 20 J


@pytest.mark.parametrize(("weight", "chosen"), [(1.0, WARM), (4.0, SKIP)])
def test_a_table_counts_for_as_many_experiences_as_it_stands_for(weight, chosen):
    # 0.2 and 0.02 for the same 20 J. With one experience like each, 20 J for both pay for one of
    # them per two: the expensive table takes its 20 J only if it represents more than that.
    offers = [option(SKIP, 0.0, 0.0), option(WARM, 20.0, 0.02)]
    expensive = ((0.0, 0.0), (20.0, 0.2))
    decision = PricedPolicy().decide(
        state(position=0, num_experiences=5),
        offers,
        balance(80.0 if weight > 1 else 100.0),  # 16 J and 20 J for each of the five
        forecast(expensive, weights=(weight,)),
    )
    assert decision.action is chosen


def test_a_dear_gain_has_to_be_sure():
    # 20 J are two even shares of the 20 J left for two: half a standard deviation is taken off.
    sure, vague = (
        [option(SKIP, 0.0, 0.0), option(WARM, 20.0, gain, sd=0.002)] for gain in (2e-3, 0.0)
    )
    now, later = state(position=0), forecast(((0.0, 0.0),))  # and nothing is to come
    assert PricedPolicy().decide(now, sure, balance(20.0), later).action is WARM
    assert PricedPolicy().decide(now, vague, balance(20.0), later).action is SKIP
    doubtful = [option(SKIP, 0.0, 0.0), option(WARM, 20.0, 0.0, sd=0.004)]
    assert PricedPolicy().decide(now, doubtful, balance(20.0), later).action is SKIP
    assert (
        PricedPolicy().decide(now, doubtful, balance(40.0), later).action is WARM
    )  # an even share


def test_nothing_to_gain_is_skipped_however_much_is_left():
    offers = options((100.0, 0.0009), (20.0, 0.0), (5.0, -0.1))
    decision = PricedPolicy().decide(state(), offers, balance(1e6))
    assert decision.action is SKIP
    assert decision.reason is Reason.NO_GAIN
    assert decision.sentence == (
        "No drop on the new data; no update brings at least 0.001 "
        "(best: +0.001 ± 0.000 from FULL_RETRAIN)"
    )


def test_nothing_affordable_is_skipped_and_says_what_was_missing():
    offers = options((3600.0 * 3, 0.3), (3600.0 * 2, 0.2), (3600.0, 0.1))
    decision = PricedPolicy().decide(state(), offers, balance(1800.0))
    assert decision.action is SKIP
    assert decision.reason is Reason.TOO_EXPENSIVE
    assert decision.sentence == "The cheapest REPLAY may use 1 Wh; 1,800 J left"


def test_without_a_model_the_largest_step_fraction_within_its_share_is_taken():
    half = Action(mode=UpdateMode.FULL_RETRAIN, step_fraction=0.5)
    offers = [option(SKIP, 0.0, 0.0), option(FULL, 100.0, 0.0), option(half, 50.0, 0.0)]
    first = state(position=0, has_model=False)
    assert PricedPolicy().decide(first, offers, balance(200.0)).action is FULL
    decision = PricedPolicy().decide(first, offers, balance(110.0))  # 60 % of it are 66 J
    assert decision.action is half
    assert decision.reason is Reason.NO_MODEL
    assert PricedPolicy().decide(first, offers, balance(40.0)).action is SKIP


def test_every_alternative_says_why_it_lost():
    offers = options((5000.0, 0.30), (20.0, 0.25), (5.0, 0.0009))
    decision = PricedPolicy().decide(state(), offers, balance(1000.0))
    lost = {str(each.action): each.why_lost for each in decision.alternatives}
    assert lost["WARM_START"] == ""
    assert "more than is left" in lost["FULL_RETRAIN"]
    assert lost["REPLAY"] == "kept gain of 0.0009 is below the minimum of 0.001"
    assert lost["SKIP"] == "net gain +0.000, WARM_START +0.250"


@pytest.mark.parametrize("mode", list(UpdateMode))
def test_always_takes_its_mode_once_there_is_a_model(mode):
    offers = options((100.0, 0.3), (20.0, 0.25), (5.0, 0.1))
    offers.append(option(Action(mode=UpdateMode.FINE_TUNE), 5.0, 0.1))
    policy = Always(mode=mode)
    assert policy.decide(state(), offers, balance(1000.0)).action.mode is mode
    first = policy.decide(state(has_model=False), offers, balance(1000.0))
    assert first.action.mode is UpdateMode.FULL_RETRAIN
    assert policy.decide(state(), offers, balance(1.0)).action is SKIP


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"min_gain": -1.0}, "min_gain"),
        ({"min_gain": float("nan")}, "min_gain"),
        ({"first_share": 0.0}, "first_share"),
        ({"explore": -1}, "explore"),
    ],
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
        state(position=0, has_model=model), offers, balance(left), forecast(*tables)
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

    before = PricedPolicy().decide(state(), offers, balance(left), forecast(*tables))
    after = PricedPolicy().decide(
        state(),
        [scaled(each) for each in offers],
        balance(left * scale),
        forecast(*(tuple((c * scale, g) for c, g in table) for table in tables)),
    )
    assert after.action == before.action


@given(
    costs=st.tuples(*[st.floats(1.0, 1e3)] * 3),
    gain=st.floats(0.01, 0.5),
    left=st.floats(1e3, 1e5),
    tables=some_tables,
)
def test_with_equal_gains_the_cheapest_wins(costs, gain, left, tables):
    offers = options(*((cost, gain) for cost in costs))
    decision = PricedPolicy().decide(state(position=0), offers, balance(left), forecast(*tables))
    assert decision.action is SKIP or decision.cost_j.mean == min(costs)
    if not tables and min(costs) <= left / 2:  # it is an even share, and nothing costs more
        assert decision.cost_j.mean == min(costs)


@pytest.mark.parametrize("metric", [None, float("nan"), float("inf")])
def test_what_is_not_known_is_said(metric):
    offers = options((100.0, 0.3), (20.0, 0.25), (5.0, 0.1))

    def sentence(**changes):
        return PricedPolicy().decide(state(**changes), offers, balance(1e6)).sentence

    assert "No drop on the new data;" in sentence()
    assert "Drop of 0.100 by the new data;" in sentence(metric_new=0.4, n_new=1)
    unprobed = "New data not probed: a drop as at earlier experiences expected"
    assert unprobed in sentence(metric_new=metric)
    looked = sentence(metric_new=metric, unseen=0.25, copies=0.5)
    assert "New data not probed: 25% of classes that were never seen and 50% copies;" in looked
    assert "Metric of the last update unknown: no drop assumed" in sentence(metric_last=metric)
    assert "(model error 0.1 assumed)" in sentence(metric_ceiling=metric)


@given(tables=some_tables, rate=st.floats(0.0, 1e4))
def test_the_price_keeps_the_mean_spend_within_the_rate(tables, rate):
    price = solve_price(tables, rate)
    assert price >= 0
    if tables:
        spent = [
            max(table, key=lambda row: (row[1] - price * row[0], -row[0]))[0] for table in tables
        ]
        assert sum(spent) / len(spent) <= rate * (1 + 1e-9) or price > 0


def test_exploring_draws_what_is_doubtful_and_only_at_first():
    offers = options((50.0, 0.10), (50.0, 0.10), (50.0, 0.10))
    offers[2] = option(WARM, 50.0, 0.09, sd=0.05)
    balance = Balance(total_j=200.0, spent_j=0.0, reserved_j=0.0)

    def chosen(seed: int, position: int) -> Action:
        policy = PricedPolicy(explore=2, seed=seed)
        now = state(position=position, num_experiences=position + 1)
        decisions = [policy.decide(now, offers, balance) for _ in range(2)]
        assert decisions[0] == decisions[1]  # a policy is pure
        return decisions[0].action

    at_first = {chosen(seed, 1) for seed in range(20)}
    assert WARM in at_first
    assert len(at_first) > 1
    assert {chosen(seed, 2) for seed in range(20)} == {chosen(0, 2)}
    assert chosen(0, 2) != WARM


@pytest.mark.parametrize("explore", [-1, 1.5, "2"])
def test_experiences_to_explore_are_counted(explore):
    with pytest.raises(ConfigurationError, match=r"explore is .*; set it to a whole"):
        PricedPolicy(explore=explore)


def test_the_drop_of_a_diverged_metric_is_short():
    offers = options((100.0, 0.3), (10.0, 0.1), (1.0, 0.01))
    diverged = state(metric_new=-1e28, n_new=1)
    sentence = PricedPolicy().decide(diverged, offers, balance(1e6)).sentence
    assert sentence.startswith("Drop of ")
    assert "e+2" in sentence
    assert len(sentence) < 160


# The worth of a probe.


def worth(offers, offered, left_j: float, *tables) -> float:
    return PricedPolicy().worth_of_probe_j(
        state(position=0, metric_new=None), offers, offered, balance(left_j), forecast(*tables)
    )


def test_a_probe_is_worth_the_joules_that_it_saves():
    # No drop or one of 0.2, each at a half: 0.1 is expected, and an update for 20 J takes all.
    calm, broken = ([option(SKIP, 0.0, 0.0), option(WARM, 20.0, gain)] for gain in (0.0, 0.2))
    blind = [option(SKIP, 0.0, 0.0), option(WARM, 20.0, 0.1)]
    later = ((0.0, 0.0), (20.0, 0.08))  # 20 J are left for each of two: energy has a price
    price = (
        PricedPolicy()
        .decide(state(position=0), blind, balance(39.0), forecast(later))
        .min_gain_per_j
    )
    assert price == pytest.approx(0.08 / 20)
    # Half of the time it saves an update that brings nothing: 20 J.
    found = worth(blind, [(calm, 0.5), (broken, 0.5)], 39.0, later)
    assert found == pytest.approx(0.5 * 20.0)


def test_a_probe_that_changes_nothing_is_worth_nothing():
    offers = [option(SKIP, 0.0, 0.0), option(WARM, 20.0, 0.1)]
    assert worth(offers, [(offers, 0.5), (offers, 0.5)], 30.0, ((0.0, 0.0), (20.0, 0.08))) == 0.0


def test_a_probe_is_worth_nothing_if_no_update_can_be_paid():
    calm, broken = ([option(SKIP, 0.0, 0.0), option(WARM, 20.0, gain)] for gain in (0.0, 0.2))
    assert worth(calm, [(calm, 0.5), (broken, 0.5)], 19.0) == 0.0


def test_any_use_pays_for_a_probe_if_joules_are_plentiful():
    calm, broken = ([option(SKIP, 0.0, 0.0), option(WARM, 20.0, gain)] for gain in (0.0, 0.2))
    blind = [option(SKIP, 0.0, 0.0), option(WARM, 20.0, 0.0005)]  # below the smallest gain
    assert worth(blind, [(calm, 0.9), (broken, 0.1)], 1e6) == math.inf
