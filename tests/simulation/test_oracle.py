"""The best schedule of a table, against every schedule that there is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.budget import Balance
from greentrain.control import SKIP, Always, Past, PricedPolicy, State, UpdateMode
from greentrain.control.state import HISTORY_KEPT
from greentrain.errors import ConfigurationError
from greentrain.simulation.oracle import Oracle, best_schedule
from greentrain.simulation.recorded_table import UNTRAINED, RecordedTable
from greentrain.simulation.simulator import follow, simulate
from tests.simulation.tables import FULL, WARM, by_hand, tables

BUDGETS = st.integers(0, 24).map(float)


def schedules(table: RecordedTable, position: int = 0, key: str = UNTRAINED) -> Iterator[list]:
    """Every schedule of a table."""
    if position == table.num_experiences:
        yield []
        return
    for row in table.rows[position, key]:
        for rest in schedules(table, position + 1, row.after):
            yield [row.action, *rest]


def by_brute_force(table, budget_j, modes=None, step_fractions=None):
    """The highest anytime metric, and the fewest joules that it can be had for."""
    best = (-math.inf, 0.0)
    for actions in schedules(table):
        updates = [action for action in actions if action != SKIP]
        if modes is not None and any(action.mode not in modes for action in updates):
            continue
        if step_fractions is not None and any(
            action.step_fraction not in step_fractions for action in updates
        ):
            continue
        outcome = follow(table, actions)
        if outcome.spent_j <= budget_j:
            best = max(best, (outcome.anytime, -outcome.spent_j))
    return best[0], -best[1]


@given(tables(), BUDGETS)
def test_no_schedule_is_better_than_the_best(table, budget_j):
    best = best_schedule(table, budget_j)
    anytime, spent_j = by_brute_force(table, budget_j)
    assert best.anytime == pytest.approx(anytime, abs=1e-12)
    assert best.spent_j == pytest.approx(spent_j)


@given(tables(), BUDGETS, st.sets(st.sampled_from(list(UpdateMode))), st.sampled_from([0.5, 1.0]))
def test_nor_of_those_that_may_be_used(table, budget_j, modes, step_fraction):
    best = best_schedule(table, budget_j, modes=modes, step_fractions=[step_fraction])
    anytime, _ = by_brute_force(table, budget_j, modes, [step_fraction])
    assert best.anytime == pytest.approx(anytime, abs=1e-12)
    assert all(action == SKIP or action.mode in modes for action in best.actions)


@given(tables(), BUDGETS.filter(bool))
def test_the_oracle_takes_the_best_schedule(table, budget_j):
    outcome = simulate(table, Oracle(table), budget_j)
    assert outcome.violations == 0
    assert outcome.overrun_j == pytest.approx(0.0, abs=1e-9)
    assert outcome.anytime == pytest.approx(best_schedule(table, budget_j).anytime, abs=1e-12)


@given(tables(), BUDGETS.filter(bool), st.sampled_from(list(UpdateMode)))
def test_no_policy_that_stays_within_its_budget_is_better(table, budget_j, mode):
    for policy in (PricedPolicy(), Always(mode=mode)):
        outcome = simulate(table, policy, budget_j)
        if not outcome.violations:
            assert outcome.anytime <= best_schedule(table, budget_j).anytime + 1e-12


def test_the_best_schedules_by_hand():
    # 18 J buy the first full retraining and both warm starts; with 15 J only the last can be had.
    assert best_schedule(by_hand(), 18.0).actions == (FULL, WARM, WARM)
    assert best_schedule(by_hand(), 17.9).actions == (FULL, SKIP, WARM)
    assert best_schedule(by_hand(), 0.0).actions == (SKIP, SKIP, SKIP)
    # Of retraining in full, 0.8 + 0.6 + 0.4 cost 10 J; 0.8 + 0.8 + 0.5 cost 30 J.
    only = {UpdateMode.FULL_RETRAIN}
    assert best_schedule(by_hand(), 29.0, modes=only, step_fractions={1.0}).actions == (
        FULL,
        SKIP,
        SKIP,
    )
    assert best_schedule(by_hand(), 30.0, modes=only, step_fractions={1.0}).actions == (
        FULL,
        FULL,
        SKIP,
    )


def test_looks_come_out_of_the_oracles_budget():
    outcome = simulate(by_hand(), Oracle(by_hand()), 21.0, probe_j=1.0)
    assert outcome.actions == (FULL, WARM, WARM)
    assert outcome.spent_j == 21.0
    assert simulate(by_hand(), Oracle(by_hand()), 20.9, probe_j=1.0).actions == (FULL, SKIP, WARM)


def test_what_was_not_decided_about_was_skipped():
    past = Past(
        position=0,
        mode=FULL.mode,
        step_fraction=1.0,
        steps=100,
        cost_j=10.0,
        n_new=100,
        metric_new=None,
        metric_before=None,
        metric_after=0.8,
    )
    state = State(position=2, num_experiences=3, has_model=True, metric_before=0.4, history=(past,))
    oracle, balance = Oracle(by_hand()), Balance(total_j=9.0, spent_j=0.0, reserved_j=0.0)
    with pytest.raises(ConfigurationError, match=r"WARM_START at experience 2, which is not"):
        oracle.decide(state, [], balance)  # that of a model updated at 0: 5 J for 0.7


def test_an_oracle_is_lost_on_another_stream():
    balance = Balance(total_j=9.0, spent_j=0.0, reserved_j=0.0)
    late = State(position=3, num_experiences=4, has_model=False, metric_before=None)
    with pytest.raises(ConfigurationError, match="experience 3 is not in the table"):
        Oracle(by_hand()).decide(late, [], balance)


def test_an_oracle_is_lost_where_history_no_longer_reaches():
    past = Past(
        position=1,
        mode=UpdateMode.SKIP,
        step_fraction=0.0,
        steps=0,
        cost_j=0.0,
        n_new=1,
        metric_new=None,
        metric_before=None,
        metric_after=None,
    )
    state = State(
        position=2,
        num_experiences=3,
        has_model=True,
        metric_before=0.4,
        history=(past,) * HISTORY_KEPT,
    )
    with pytest.raises(ConfigurationError, match="no longer reaches back"):
        Oracle(by_hand()).decide(state, [], Balance(total_j=9.0, spent_j=0.0, reserved_j=0.0))


def test_a_budget_below_zero_is_refused():
    with pytest.raises(ConfigurationError, match="budget_j is -1"):
        best_schedule(by_hand(), -1.0)
