"""Properties of every policy."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentrain.control import (
    RCCDA,
    SKIP,
    UPF,
    Always,
    BudgetController,
    CaraCumulative,
    CaraPeriodic,
    CaraThreshold,
    CostModel,
    CumulativeRegret,
    DriftTriggered,
    Estimate,
    Greedy,
    Option,
    Past,
    Periodic,
    Policy,
    RandomFit,
    Reason,
    State,
    UpdateMode,
)
from greentrain.control import policies as baselines
from greentrain.errors import ConfigurationError
from tests.control.offers import FULL, HALF, REPLAY, WARM, balance, option, options, state
from tests.control.test_controller import CANDIDATES, ShadowAccount

WARM_MODE = UpdateMode.WARM_START
POLICIES: dict[str, Policy] = {
    "always-full": Always(mode=UpdateMode.FULL_RETRAIN),
    "always-replay": Always(mode=UpdateMode.REPLAY),
    "always-skip": Always(mode=UpdateMode.SKIP),
    "periodic": Periodic(every=3),
    "drift-adwin": DriftTriggered(),
    "drift-page-hinkley": DriftTriggered(detector="page_hinkley", mode=WARM_MODE),
    "greedy": Greedy(),
    "cara-threshold": CaraThreshold(threshold=0.05),
    "cara-cumulative": CaraCumulative(threshold=0.2, mode=WARM_MODE),
    "cara-periodic": CaraPeriodic(period=2, offset=1),
    "regret-misclassifications": CumulativeRegret(),
    "regret-latency": CumulativeRegret(regret="latency", joules_per_regret=0.125),
    "rccda": RCCDA(),
    "rccda-rate": RCCDA(rate_j=64.0, mode=WARM_MODE),
    "upf": UPF(),
    "random": RandomFit(seed=3),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
every_rule = pytest.mark.parametrize(
    "policy",
    [each for name, each in POLICIES.items() if not name.startswith(("always", "greedy", "ran"))],
    ids=[name for name in POLICIES if not name.startswith(("always", "greedy", "ran"))],
)

joules = st.floats(1.0, 1e4)
metric = st.one_of(
    st.none(), st.floats(0.0, 1.0), st.sampled_from([math.nan, math.inf, -math.inf, -3.0, 2.0])
)
updates = st.builds(
    lambda action, cost_j, gain: option(action, cost_j, gain, upper_j=1.25 * cost_j),
    st.sampled_from([FULL, HALF, WARM, REPLAY]),
    joules,
    st.one_of(st.floats(-0.5, 0.5), st.just(math.nan)),
)
some_options = st.lists(updates, max_size=5).map(lambda found: [option(SKIP, 0.0), *found])
pasts = st.builds(
    lambda mode, cost_j, n_new, new, before, after: Past(
        position=0,
        mode=mode,
        step_fraction=0.0 if mode is UpdateMode.SKIP else 1.0,
        steps=0 if mode is UpdateMode.SKIP else 10,
        cost_j=0.0 if mode is UpdateMode.SKIP else cost_j,
        n_new=n_new,
        metric_new=new,
        metric_before=before,
        metric_after=after,
    ),
    st.sampled_from(list(UpdateMode)),
    joules,
    st.integers(0, 500),
    metric,
    metric,
    metric,
)
states = st.builds(
    lambda history, ahead, **fields: State(
        position=len(history),
        num_experiences=len(history) + ahead,
        history=tuple(history),
        **fields,
    ),
    st.lists(pasts, max_size=12),
    st.integers(0, 8),
    has_model=st.booleans(),
    metric_before=metric,
    metric_new=metric,
    metric_last=metric,
    metric_best=metric,
    n_new=st.integers(0, 500),
    n_stored=st.integers(0, 500),
    since_update=st.integers(0, 5),
)


@every_policy
@settings(max_examples=50)
@given(offers=some_options, left_j=st.floats(0.0, 1e5), known=states)
def test_no_decision_costs_more_than_is_left(policy, offers, left_j, known):
    decision = policy.decide(known, offers, balance(left_j))
    assert decision.cost_j.upper <= left_j
    taken = [each.option for each in decision.alternatives if not each.why_lost]
    assert [each.action for each in taken] == [decision.action]
    assert [each.option for each in decision.alternatives] == offers
    assert decision.sentence


@every_policy
@settings(max_examples=50)
@given(
    offers=some_options,
    left_j=st.floats(0.0, 1e5),
    known=states,
    exponent=st.integers(-20, 20),
)
def test_scaling_all_joules_changes_no_decision(policy, offers, left_j, known, exponent):
    scale = 2.0**exponent  # a power of two, so that no rounding is involved
    before = policy.decide(known, offers, balance(left_j))
    after = _scaled_policy(policy, scale).decide(
        dataclasses.replace(
            known,
            history=tuple(
                dataclasses.replace(each, cost_j=each.cost_j * scale) for each in known.history
            ),
        ),
        [_scaled(each, scale) for each in offers],
        balance(left_j * scale),
    )
    assert (after.action, after.reason) == (before.action, before.reason)


@every_policy
@settings(max_examples=50)
@given(offers=some_options, left_j=st.floats(0.0, 1e5), known=states)
def test_a_decision_can_be_taken_again_from_what_was_written_down(policy, offers, left_j, known):
    decision = policy.decide(known, offers, balance(left_j))
    again = State.from_dict(json.loads(json.dumps(known.as_dict())))
    assert repr(policy.decide(again, offers, balance(left_j))) == repr(decision)


@every_policy
def test_the_first_model_is_trained_at_the_largest_step_fraction_that_can_be_paid(policy):
    first = state(has_model=False)
    decision = policy.decide(first, options(full_j=100.0), balance(1000.0))
    assert (decision.action, decision.reason) == (FULL, Reason.NO_MODEL)
    decision = policy.decide(first, options(full_j=100.0), balance(60.0))
    assert (decision.action, decision.reason) == (HALF, Reason.NO_MODEL)
    decision = policy.decide(first, options(full_j=100.0), balance(49.0))
    assert (decision.action, decision.reason) == (SKIP, Reason.TOO_EXPENSIVE)


@every_policy
@pytest.mark.parametrize("model", [False, True], ids=["first", "later"])
def test_the_upper_bound_has_to_be_left_and_not_the_mean(policy, model):
    stale = state(metric_last=0.9, metric_new=0.1, has_model=model, since_update=9, n_new=10_000)
    offers = [
        option(SKIP, 0.0),
        *(option(action, 10.0, 0.1, upper_j=12.0) for action in (FULL, WARM, REPLAY)),
    ]
    assert policy.decide(stale, offers, balance(11.0)).action is SKIP


@every_policy
def test_skip_is_needed_exactly_once(policy):
    for offers in ([], [option(FULL, 1.0)], [option(SKIP, 0.0)] * 2):
        with pytest.raises(ConfigurationError, match="SKIP once"):
            policy.decide(state(), offers, balance(10.0))


@every_policy
def test_with_nothing_but_skip_it_is_taken(policy):
    assert policy.decide(state(), [option(SKIP, 0.0)], balance(10.0)).action is SKIP


@every_rule
def test_what_cannot_be_paid_or_done_is_said(policy):
    mode = policy.mode
    offers = [option(SKIP, 0.0), option(FULL, 7200.0), option(WARM, 7200.0)]
    decision = policy.decide(state(), offers, balance(3600.0))
    assert (decision.action, decision.reason) == (SKIP, Reason.TOO_EXPENSIVE)
    assert decision.sentence == f"The cheapest {mode} may use 2 Wh; 1 Wh left"
    decision = policy.decide(state(), [option(SKIP, 0.0), option(REPLAY, 1.0)], balance(9.0))
    assert (decision.action, decision.reason) == (SKIP, Reason.NOT_FEASIBLE)
    assert f"{mode} is not possible" in decision.sentence


@every_rule
def test_a_rule_that_is_to_skip_is_refused(policy):
    with pytest.raises(ConfigurationError, match="mode is SKIP"):
        dataclasses.replace(policy, mode=UpdateMode.SKIP)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Periodic(every=0), "every is 0"),
        (lambda: DriftTriggered(detector="eddm"), "detector is 'eddm'; set it to adwin or page"),
        (lambda: CaraThreshold(threshold=-0.1), "threshold is -0.1"),
        (lambda: CaraCumulative(threshold=math.nan), "threshold is nan"),
        (lambda: CaraPeriodic(period=0), "period is 0"),
        (lambda: CaraPeriodic(period=2, offset=-1), "offset is -1"),
        (lambda: CumulativeRegret(regret="shame"), "regret is 'shame'"),
        (lambda: CumulativeRegret(joules_per_regret=0.0), "joules_per_regret is 0.0"),
        (lambda: RCCDA(weight=0.0), "weight is 0.0"),
        (lambda: RCCDA(rate_j=-1.0), "rate_j is -1.0"),
        (lambda: UPF(alpha=-1.0), "alpha is -1.0"),
        (lambda: UPF(quantile=1.0), "quantile is 1.0"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_wrong_arguments_are_named(make, named):
    with pytest.raises(ConfigurationError, match=named):
        make()


@every_policy
def test_a_stream_is_kept_within_its_budget(policy):
    # A model of accuracy 0.9 when new, that loses 0.02 with each experience and 0.3 in a break.
    cost = CostModel()
    cost.calibrate(fixed_j=1.0, step_j=1.0)
    account = ShadowAccount(4000.0)
    control = BudgetController(account, policy=policy, cost=cost)
    age, model = 0, False
    for position in range(12):
        metric = 0.9 - 0.02 * age - (0.3 if age and position >= 8 else 0.0)
        known = State(
            position=position,
            num_experiences=12,
            has_model=model,
            metric_before=metric,
            metric_new=metric if model else None,
            metric_last=0.9 if model else None,
            metric_best=0.9 if model else None,
            metric_ceiling=1.0,
            n_new=100 * (age + 1),
            n_stored=100 * (position - age),
        )
        before, decision = control.decide(known, CANDIDATES)
        reservation = control.reserve(decision, str(position))
        updated = reservation is not None
        actual_j = 1.0 + decision.steps if updated else 0.0
        if reservation is not None:
            account.settle(reservation, actual_j)
        control.learn(
            decision,
            before,
            steps=decision.steps,
            actual_j=actual_j,
            metric_after=0.9 if updated else metric,
        )
        age, model = (0 if updated else age + 1), model or updated
    assert model
    assert 0 < account.balance().spent_j <= 4000.0


def test_the_page_on_policies_has_all_of_them():
    page = Path(__file__).parents[2] / "docs" / "reference" / "policies.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    for name in {type(policy).__name__ for policy in POLICIES.values()}:
        assert any(row.startswith(f"| `{name}(") for row in rows), name


def test_every_baseline_is_tried_here():
    policies = {name for name in baselines.__all__ if name[0].isupper()}
    assert policies == {type(policy).__name__ for policy in POLICIES.values()}


def _scaled(each: Option, scale: float) -> Option:
    cost = each.cost_j
    return dataclasses.replace(
        each,
        cost_j=Estimate(mean=cost.mean * scale, sd=cost.sd * scale, upper=cost.upper * scale),
    )


def _scaled_policy(policy: Policy, scale: float) -> Policy:
    carrying = {
        field.name: getattr(policy, field.name) * scale
        for field in dataclasses.fields(policy)
        if field.name in ("joules_per_regret", "rate_j") and getattr(policy, field.name)
    }
    return dataclasses.replace(policy, **carrying)
