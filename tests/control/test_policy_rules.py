"""The rules of the literature, worked out by hand and held against brute force."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from greentrain.control import (
    RCCDA,
    SKIP,
    UPF,
    Always,
    CaraCumulative,
    CaraPeriodic,
    CaraThreshold,
    CumulativeRegret,
    DriftTriggered,
    Greedy,
    Past,
    Periodic,
    Policy,
    RandomFit,
    Reason,
    State,
    UpdateMode,
    fit_cara,
)
from greentrain.control.policies.drift_triggered import _outcomes
from greentrain.control.policies.upf import beta_quantile
from greentrain.errors import ConfigurationError
from tests.control.offers import (
    FULL,
    HALF,
    REPLAY,
    WARM,
    balance,
    option,
    options,
    past,
    state,
    trained,
)

PLENTY = balance(1e9)
STALE_BY_AN_EIGHTH = {"metric_last": 0.875, "metric_new": 0.75}


def decide(policy: Policy, known: State, *, full_j: float = 100.0):
    return policy.decide(known, options(full_j=full_j), PLENTY)


# Always, periodic, greedy, at random


def test_always_takes_a_smaller_step_fraction_where_the_whole_one_is_too_dear():
    policy = Always(mode=UpdateMode.FULL_RETRAIN)
    assert policy.decide(state(), options(full_j=100.0), balance(100.0)).action is FULL
    decision = policy.decide(state(), options(full_j=100.0), balance(99.0))
    assert (decision.action, decision.reason) == (HALF, Reason.FIXED)
    lost = {str(each.action): each.why_lost for each in decision.alternatives}
    assert "more than is left" in lost["FULL_RETRAIN"]
    assert lost["WARM_START"] == "the rule uses FULL_RETRAIN"


def test_periodic_waits_for_its_turn():
    policy = Periodic(every=3, mode=UpdateMode.WARM_START)
    two = decide(policy, state(trained(), past()))
    assert (two.action, two.reason) == (SKIP, Reason.NOT_DUE)
    assert two.sentence == "Model age 2 experiences, update due at 3"
    three = decide(policy, state(trained(), past(), past()))
    assert (three.action, three.reason) == (WARM, Reason.SCHEDULED)
    assert decide(policy, state(trained(), past(), past(), past())).action is WARM  # still due


def test_the_age_of_a_model_older_than_the_history_is_what_the_state_says():
    policy = Periodic(every=7)
    assert decide(policy, state(past(), past(), since_update=7)).action is FULL
    assert decide(policy, state(past(), past(), since_update=6)).action is SKIP
    assert decide(policy, state(*[past()] * 6)).action is FULL  # it cannot be younger than that


def test_greedy_takes_the_largest_gain_that_fits_whatever_it_costs():
    decision = Greedy().decide(state(), options(full_j=100.0, warm_j=20.0), balance(100.0))
    assert (decision.action, decision.reason) == (FULL, Reason.LARGEST_GAIN)
    assert "+0.300 expected from FULL_RETRAIN" in decision.sentence
    assert Greedy().decide(state(), options(full_j=100.0), balance(30.0)).action is WARM


def test_greedy_takes_the_cheaper_of_equals_and_skips_what_gains_nothing():
    equal = [option(SKIP, 0.0), option(FULL, 9.0, 0.1), option(WARM, 3.0, 0.1)]
    assert Greedy().decide(state(), equal, PLENTY).action is WARM
    useless = [option(SKIP, 0.0), option(FULL, 9.0, -0.1), option(WARM, 3.0, float("nan"))]
    decision = Greedy().decide(state(), useless, PLENTY)
    assert (decision.action, decision.reason) == (SKIP, Reason.NO_GAIN)
    assert decision.alternatives[2].why_lost == "its gain is unknown"


def test_random_draws_everything_that_fits_about_equally_often():
    drawn = [
        RandomFit(seed=1).decide(state(position=position), options(), balance(60.0)).action
        for position in range(1000)
    ]
    counts = {action: drawn.count(action) for action in drawn}
    assert counts.keys() == {SKIP, HALF, WARM, REPLAY}
    assert all(abs(count - 250) < 60 for count in counts.values())  # four standard deviations


# Cara


@pytest.mark.parametrize(("threshold", "action"), [(0.125, SKIP), (0.124, FULL)])
def test_cara_retrains_above_its_threshold(threshold, action):
    policy = CaraThreshold(threshold=threshold)
    assert decide(policy, state(trained(), **STALE_BY_AN_EIGHTH)).action is action


def test_staleness_falls_back_to_held_out_data_and_then_to_none():
    policy = CaraThreshold(threshold=0.1)
    held_out = state(trained(), metric_last=0.875, metric_new=float("nan"), metric_before=0.75)
    assert "Staleness 0.1250" in decide(policy, held_out).sentence
    nothing = decide(policy, state(trained(), metric_last=0.875))
    assert nothing.action is SKIP
    assert "Staleness unknown, counted as 0" in nothing.sentence


def test_what_the_model_was_when_fresh_is_known_from_the_history_too():
    assert (
        decide(CaraThreshold(threshold=0.1), state(trained(0.875), metric_new=0.75)).action is FULL
    )


def test_cara_ct_sums_staleness_and_begins_anew_after_an_update():
    # 1/8 + 1/16 + 0 (it went better than when it was new) + 1/16 are 1/4.
    seen = [past(new=0.75), past(new=0.8125), past(new=0.9375)]
    now = {"metric_last": 0.875, "metric_new": 0.8125}
    assert decide(CaraCumulative(threshold=0.25), state(trained(), *seen, **now)).action is SKIP
    due = decide(CaraCumulative(threshold=0.2), state(trained(), *seen, **now))
    assert (due.action, due.reason) == (FULL, Reason.STALE)
    assert "Staleness sum 0.2500 over 4 experiences since the last update" in due.sentence
    renewed = state(trained(), *seen, trained(0.875, new=0.8125), **now)
    assert "Staleness sum 0.0625" in decide(CaraCumulative(threshold=0.2), renewed).sentence


def test_cara_ct_says_what_it_did_not_know():
    known = state(trained(), past(), past(new=0.75), **STALE_BY_AN_EIGHTH)
    decision = decide(CaraCumulative(threshold=0.2), known)
    assert "Staleness sum 0.2500 over 3 experiences" in decision.sentence
    assert "(unknown at 1 of 3, counted as 0)" in decision.sentence


def test_cara_p_retrains_in_its_rounds():
    policy = CaraPeriodic(period=3, offset=2)
    due = [
        position
        for position in range(1, 10)
        if decide(policy, state(position=position)).action is FULL
    ]
    assert due == [2, 5, 8]


def cost_of(policy: Policy, costs: list[list[float]]) -> float:
    """Drive a policy through the rounds of a cost matrix: its metric is 1 less the staleness."""
    history, model, total = [trained(1.0)], 0, 0.0
    for t in range(1, len(costs)):
        metric = 1.0 - costs[model][t]
        if decide(policy, state(*history, metric_last=1.0, metric_new=metric)).action is FULL:
            history.append(trained(1.0, new=metric))
            model = t
        else:
            history.append(past(new=metric))
        total += costs[model][t]
    return total


sixteenths = st.integers(0, 8).map(lambda n: n / 16)
matrices = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(sixteenths, min_size=n, max_size=n), min_size=n, max_size=n)
)


@given(costs=matrices)
def test_no_other_parameter_would_have_cost_less(costs):
    grid = [n / 16 for n in range(8 * len(costs) + 1)]
    others: dict[str, list[Policy]] = {
        "threshold": [CaraThreshold(threshold=each) for each in grid],
        "cumulative": [CaraCumulative(threshold=each) for each in grid],
        "periodic": [
            CaraPeriodic(period=period, offset=offset)
            for period in range(1, len(costs) + 1)
            for offset in range(period)
        ],
    }
    for rule, tried in others.items():
        fitted = fit_cara(costs, rule)
        assert cost_of(fitted, costs) == min(cost_of(each, costs) for each in tried)


def test_fitting_cara_worked_out_by_hand():
    # Kept, the model of round 0 costs 0 + 0.1 + 0.4 + 0.4. Retraining costs 0.3 whenever it is
    # done, and the model of round 2 or 3 is good to the end: 0 + 0.1 + 0.3 + 0 is the least.
    costs = [
        [0.3, 0.0, 0.1, 0.4, 0.4],
        [0.0, 0.3, 0.1, 0.4, 0.4],
        [0.0, 0.0, 0.3, 0.2, 0.2],
        [0.0, 0.0, 0.0, 0.3, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.3],
    ]
    assert fit_cara(costs, "threshold") == CaraThreshold(threshold=0.1)
    assert fit_cara(costs, "cumulative") == CaraCumulative(threshold=0.1)
    assert fit_cara(costs, "periodic") == CaraPeriodic(period=3)
    assert fit_cara(costs, "threshold", mode=UpdateMode.REPLAY).mode is UpdateMode.REPLAY


@pytest.mark.parametrize(
    ("costs", "rule", "named"),
    [
        ([[1.0]], "threshold", "has 1 rounds"),
        ([[1.0, 2.0], [1.0]], "threshold", "row 1 of costs has 1 entries"),
        ([[1.0, -2.0], [0.0, 1.0]], "periodic", r"costs\[0\]\[1\] is -2.0"),
        ([[1.0, 2.0], [0.0, 1.0]], "random", "rule is 'random'"),
    ],
    ids=["short", "ragged", "negative", "rule"],
)
def test_costs_that_cannot_be_fitted_are_refused(costs, rule, named):
    with pytest.raises(ConfigurationError, match=named):
        fit_cara(costs, rule)


# Cumulative regret


@pytest.mark.parametrize(("worth_j", "action"), [(0.125, SKIP), (0.25, FULL)])
def test_latency_is_the_area_under_the_samples_that_wait(worth_j, action):
    # 100, 200 and 300 samples have waited for an experience each: 600, against 100 J.
    waiting = state(trained(), past(n_new=100), past(n_new=200), n_new=300)
    decision = decide(CumulativeRegret(regret="latency", joules_per_regret=worth_j), waiting)
    assert decision.action is action
    assert "Regret 600 (latency) over 3 experiences" in decision.sentence


def test_misclassifications_are_those_that_the_fresh_model_would_not_have_made():
    waiting = state(trained(), past(n_new=80, new=0.75), **{**STALE_BY_AN_EIGHTH, "n_new": 160})
    decision = decide(CumulativeRegret(joules_per_regret=4.0), waiting)
    assert "Regret 30 (misclassifications) over 2" in decision.sentence  # 80 / 8 + 160 / 8
    assert (decision.action, decision.reason) == (FULL, Reason.STALE)  # 120 J against 100 J


def test_unless_given_all_samples_of_one_experience_are_worth_its_share_of_the_budget():
    # 400 J for 8 experiences: 50 J for the 100 samples of each. 100 and 200 waited: 150 J.
    waiting = state(trained(), past(n_new=100), n_new=200)
    policy = CumulativeRegret(regret="latency")
    assert policy.decide(waiting, options(full_j=150.0), balance(400.0)).action is FULL
    assert policy.decide(waiting, options(full_j=151.0), balance(400.0)).action is SKIP


@given(arrivals=st.lists(st.integers(0, 20), min_size=1, max_size=8), update_j=st.integers(1, 60))
def test_waiting_and_updating_cost_at_most_twice_what_is_best_in_hindsight(arrivals, update_j):
    policy = CumulativeRegret(regret="latency", joules_per_regret=1.0)

    def cost(updates: Callable[[int, State], bool]) -> int:
        history: list[Past] = [trained()]
        waiting = total = 0
        for t, arrived in enumerate(arrivals):
            waiting += arrived
            if updates(t, state(*history, n_new=waiting)):
                history.append(trained())
                total, waiting = total + update_j, 0
            else:
                history.append(past(n_new=waiting))
                total += waiting
        return total

    def ours(t: int, known: State) -> bool:
        return decide(policy, known, full_j=float(update_j)).action is FULL

    schedules = itertools.product((False, True), repeat=len(arrivals))
    best = min(cost(lambda t, known, each=each: each[t]) for each in schedules)
    assert cost(ours) <= 2 * best


# RCCDA


def test_rccda_keeps_its_queue():
    # An update costs 3 allowances: it is made if 100 * lost > 3 * (Q + 3/2 - 1) = 3 Q + 1.5.
    expected = [
        (0.01, 0.0, SKIP),  # 1 against 1.5; Q stays at 0
        (0.02, 0.0, FULL),  # 2 against 1.5; Q becomes 3 - 1
        (0.05, 2.0, SKIP),  # 5 against 7.5; Q becomes 1
        (0.05, 1.0, FULL),  # 5 against 4.5; Q becomes 1 + 3 - 1
        (0.10, 3.0, SKIP),  # 10 against 10.5
    ]
    policy = RCCDA(weight=100.0, rate_j=10.0)
    history = [trained(1.0, cost_j=500.0)]
    for lost, queue, action in expected:
        metric = 1.0 - lost
        known = state(*history, metric_last=1.0, metric_new=metric)
        decision = decide(policy, known, full_j=30.0)
        assert decision.action is action
        assert f"and spending is {queue:g} ahead" in decision.sentence
        history.append(
            past(new=metric) if action is SKIP else trained(1.0, new=metric, cost_j=30.0)
        )


def test_rccda_makes_a_cheap_update_while_nothing_was_lost():
    # Up to two allowances for an empty queue: saving is worth nothing to an average.
    policy = RCCDA(rate_j=10.0)
    known = state(trained(), metric_last=0.9, metric_new=0.9)
    assert decide(policy, known, full_j=19.0).action is FULL
    assert decide(policy, known, full_j=20.0).action is SKIP


def test_the_allowance_is_what_there_was_for_each_experience_once_there_was_a_model():
    # 276 J left for 8 experiences, and 84 J used in the two since the first training: 36 J each.
    known = state(
        trained(cost_j=500.0), trained(new=0.9, cost_j=84.0), past(new=0.9), num_experiences=11
    )
    decision = RCCDA().decide(known, options(full_j=72.0), balance(276.0))
    assert "Unknown loss, counted as 0," in decision.sentence
    assert "FULL_RETRAIN costs 2 allowances of 36 J" in decision.sentence
    assert "spending is 0.333 ahead" in decision.sentence  # 84 / 36 - 1 - 1


# UPF


@given(mean=st.floats(0.02, 0.98), share=st.floats(0.001, 0.5), quantile=st.floats(0.01, 0.99))
def test_the_beta_quantile_is_scipys(mean, share, quantile):
    variance = share * mean * (1 - mean)
    a = mean * (1 / share - 1)
    expected = stats.beta.ppf(quantile, a, (1 - mean) * (1 / share - 1))
    assert beta_quantile(mean, variance, quantile) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_quantile_of_a_mean_of_betas_is_near_that_of_a_sample():
    rng = np.random.default_rng(0)
    means, variance = np.linspace(0.05, 0.3, 8), 0.002
    weights = means * (1 - means) / variance - 1
    drawn = rng.beta(means * weights, (1 - means) * weights, size=(100_000, 8)).mean(axis=1)
    told = beta_quantile(float(means.mean()), variance / 8, 0.95)
    assert told == pytest.approx(np.quantile(drawn, 0.95), abs=0.001)


def ageing(per_experience: float, n: int = 4, **changes) -> State:
    metrics = [0.9 - per_experience * (age + 1) for age in range(n)]
    seen = [past(new=metric) for metric in metrics[:-1]]
    return state(trained(0.9), *seen, metric_new=metrics[-1], **changes)


def test_upf_retrains_what_ages_and_keeps_what_does_not():
    assert decide(UPF(), ageing(0.05)).reason is Reason.FORECAST
    assert decide(UPF(), ageing(0.0)).reason is Reason.NOT_DUE


def test_upf_forecasts_a_linear_loss():
    # Error 0.1 + 0.05 * age: kept from age 4 to 9, 0.3 to 0.55, six times 0.425 in the mean; of a
    # new model 0.1 to 0.35, six times 0.225. The 95 % quantiles lie somewhat above.
    sentence = decide(UPF(alpha=0.5), ageing(0.05)).sentence
    keep, retrain = (
        float(sentence.split(part)[1].split()[0]) for part in ("error is ", "kept and ")
    )
    assert 6 * 0.425 <= keep <= 6 * 0.425 + 0.7
    assert 6 * 0.225 + 0.5 - 0.2 <= retrain <= 6 * 0.225 + 0.5 + 0.7
    assert keep - (retrain - 0.5) == pytest.approx(6 * 0.2, abs=0.3)


def test_upf_fears_what_scatters():
    def keep(*metrics: float) -> float:
        seen = [past(new=metric) for metric in metrics]
        known = state(trained(0.9), *seen, metric_new=0.9, num_experiences=len(seen) + 2)
        return float(decide(UPF(), known).sentence.split("error is ")[1].split()[0])

    # A standard deviation of about 0.1 around the same mean, for the one experience to come.
    assert keep(0.8, 1.0, 1.0, 0.8, 0.8, 1.0, 1.0, 0.8) > keep(*[0.9] * 8) + 0.1


def test_upf_keeps_the_model_until_enough_errors_are_known():
    assert "1 errors known" in decide(UPF(), state(trained())).sentence
    loss = state(trained(-0.4), past(new=-0.9), past(new=-1.5), metric_new=-2.0)
    assert "0 errors known, 3 needed for a forecast" in decide(UPF(), loss).sentence


@given(
    ageing_by=st.floats(0.0, 0.1),
    alphas=st.tuples(st.floats(0, 5), st.floats(0, 5)).map(sorted),
    num_experiences=st.integers(5, 40),
)
def test_dearer_retraining_is_never_done_more_readily(ageing_by, alphas, num_experiences):
    cheap, dear = (
        decide(UPF(alpha=alpha), ageing(ageing_by, num_experiences=num_experiences)).action is FULL
        for alpha in alphas
    )
    assert cheap or not dear


# Drift


def of_accuracies(*metrics: float, updated_at: int | None = None) -> State:
    seen = [
        trained(new=metric) if index == updated_at else past(new=metric)
        for index, metric in enumerate(metrics[:-1])
    ]
    return state(trained(), *seen, metric_new=metrics[-1], n_new=256)


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
def test_a_fall_is_a_drift_and_a_rise_or_a_wobble_is_none(detector):
    policy = DriftTriggered(detector=detector)
    rng = random.Random(0)
    wobble = [0.9 + rng.gauss(0.0, 0.01) for _ in range(30)]
    assert decide(policy, of_accuracies(0.9, 0.9, 0.9, 0.5)).reason is Reason.DRIFT
    assert decide(policy, of_accuracies(*wobble)).reason is Reason.NOT_DUE
    assert decide(policy, of_accuracies(0.5, 0.5, 0.5, 0.9)).reason is Reason.NOT_DUE


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
def test_a_fall_stays_due_until_an_update(detector):
    policy = DriftTriggered(detector=detector)
    assert decide(policy, of_accuracies(0.9, 0.9, 0.9, 0.5, 0.5)).action is FULL
    assert decide(policy, of_accuracies(0.9, 0.9, 0.9, 0.5, 0.9, updated_at=3)).action is SKIP


def test_what_no_detector_can_be_fed_with_is_said():
    known = state(trained(-0.4), past(new=-0.5), metric_new=-0.9)
    assert "from 0 of 3 experiences" in decide(DriftTriggered(), known).sentence
    decision = decide(DriftTriggered(detector="page_hinkley"), known)
    assert "from 2 of 3 experiences" in decision.sentence
    assert decision.reason is Reason.DRIFT  # for a loss, too, 0.4 is a fall


@given(share=st.floats(0.0, 1.0), n=st.integers(0, 300))
def test_outcomes_are_as_many_as_the_accuracy_says_and_evenly_mixed(share, n):
    outcomes = list(_outcomes(share, n))
    assert set(outcomes) <= {0, 1}
    assert len(outcomes) == n
    for k in range(n + 1):
        assert abs(sum(outcomes[:k]) - k * share) <= 0.5 + 1e-9


def test_without_river_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "river.drift", None)
    with pytest.raises(ConfigurationError, match=r'pip install "[\w-]+\[drift\]"'):
        DriftTriggered()
