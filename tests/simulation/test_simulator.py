"""Policies on recorded tables."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.control import SKIP, Action, Always, PricedPolicy, Reason, State, UpdateMode
from greentrain.control.decision import decided
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.simulation.recorded_table import UNTRAINED, RecordedTable
from greentrain.simulation.simulator import (
    InMemoryAccount,
    always_full,
    calibration,
    follow,
    share_of_gap,
    simulate,
    train_once,
)
from tests.simulation.tables import FULL, HALF, WARM, by_hand, merged, probe, tables


class Scripted:
    """Take one action after the other, and note what was known."""

    def __init__(self, *actions) -> None:
        self.actions = actions
        self.states: list[State] = []

    def decide(self, state, options, balance, forecast):
        self.states.append(state)
        wanted = self.actions[state.position]
        option = next(each for each in options if each.action == wanted)
        return decided(option, Reason.FIXED, "as written down")


def scaled(table: RecordedTable, factor: float) -> RecordedTable:
    rows = {
        place: tuple(dataclasses.replace(row, energy_j=factor * row.energy_j) for row in rows)
        for place, rows in table.rows.items()
    }
    return RecordedTable(table.header, table.probes, rows)


def test_a_schedule_comes_to_what_the_table_says():
    outcome = follow(by_hand(), [FULL, SKIP, WARM])
    assert outcome.metrics == (0.8, 0.6, 0.7)
    assert outcome.energy_j == (10.0, 0.0, 5.0)
    assert outcome.spent_j == 15.0
    assert outcome.anytime == pytest.approx(0.7)


def test_once_and_full_are_the_ends_of_the_gap():
    assert train_once(by_hand()).metrics == (0.8, 0.6, 0.4)
    assert always_full(by_hand()).metrics == (0.8, 0.8, 0.8)
    assert always_full(by_hand()).spent_j == by_hand().full_j


def test_a_policy_pays_what_the_table_says():
    policy = Scripted(FULL, WARM, WARM)
    outcome = simulate(by_hand(), policy, 100.0)
    assert outcome.actions == (FULL, WARM, WARM)
    assert outcome.energy_j == (10.0, 4.0, 4.0)
    assert outcome.metrics == (0.8, 0.7, 0.7)
    assert outcome.violations == 0
    assert [decision.action for decision in outcome.decisions] == [FULL, WARM, WARM]


def test_a_policy_knows_where_it_stands():
    policy = Scripted(FULL, SKIP, WARM)
    simulate(by_hand(), policy, 100.0)
    first, second, third = policy.states
    assert (first.has_model, first.metric_last, first.since_update) == (False, None, 0)
    assert (second.has_model, second.metric_last, second.since_update) == (True, 0.8, 1)
    assert (third.since_update, third.since_full, third.warm_starts) == (2, 2, 0)
    assert (third.n_new, third.n_stored, third.n_pending) == (200, 100, 100)
    assert (third.metric_best, third.metric_ceiling) == (0.8, 1.0)
    assert [past.mode for past in third.history] == [UpdateMode.FULL_RETRAIN, UpdateMode.SKIP]
    assert third.left_j == 100.0 - 10.0
    assert all(state.num_experiences == 3 for state in policy.states)


def test_warm_starts_are_counted_since_the_last_full_retraining():
    policy = Scripted(FULL, WARM, WARM)
    simulate(by_hand(), policy, 100.0)
    assert [state.warm_starts for state in policy.states] == [0, 0, 1]
    assert [state.since_full for state in policy.states] == [0, 1, 2]


def test_all_that_a_probe_found_is_known():
    found = {
        "metric_past": 0.1,
        "loss_new": 0.2,
        "loss_past": 0.3,
        "unseen": 0.4,
        "shift": 0.5,
        "shift_by": "by hand",
        "weight_growth": 0.6,
        "slope": 0.7,
    }
    table = merged(
        {(0, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (10.0, 0.8)}},
        probes=lambda *place: probe(*place, **found),
    )
    policy = Scripted(SKIP)
    simulate(table, policy, 100.0)
    assert {name: getattr(policy.states[0], name) for name in found} == found


def test_looks_are_paid_for_until_they_cannot_be():
    outcome = simulate(by_hand(), Scripted(FULL, SKIP, SKIP), 34.0, probe_j=9.0)
    assert outcome.energy_j == (19.0, 9.0, 0.0)  # and no third look for the 6 J that are left
    assert outcome.decisions[2].reason is Reason.BUDGET_EXHAUSTED
    assert outcome.spent_j == 28.0
    assert outcome.violations == 0


def test_what_is_used_beyond_all_there_is_is_a_violation():
    # Four updates use 0.1 J a step; the one of 100 steps uses 50 J in place of 10 J.
    step_fractions = {
        steps: Action(mode=FULL.mode, step_fraction=steps / 1000) for steps in (50, 200, 300, 400)
    }
    table = merged(
        {
            (0, UNTRAINED): {
                SKIP: (0.0, 0.1),
                FULL: (10.0, 0.8),
                **{action: (steps / 10, 0.5) for steps, action in step_fractions.items()},
            }
        }
    )
    rows = tuple(
        dataclasses.replace(row, energy_j=50.0) if row.action == FULL else row
        for row in table.rows[0, UNTRAINED]
    )
    table = RecordedTable(table.header, table.probes, {(0, UNTRAINED): rows})
    outcome = simulate(table, Scripted(FULL), 45.0)
    assert outcome.spent_j == 50.0
    assert outcome.violations == 1
    assert outcome.overrun_j == pytest.approx(50.0 - outcome.decisions[0].cost_j.upper)
    assert outcome.overrun_j > 5.0


def test_without_a_calibration_the_first_training_is_cut_at_its_cap():
    # The cap is below 10 J of 12 J, and above 5 J: half of the steps remain.
    outcome = simulate(by_hand(), PricedPolicy(), 9.5, calibrated=False)
    assert outcome.actions[0] == HALF
    assert outcome.energy_j[0] == 5.0


def test_the_share_of_the_gap():
    assert share_of_gap(0.8, once=0.6, full=0.8) == 1.0
    assert share_of_gap(0.6, once=0.6, full=0.8) == 0.0
    assert share_of_gap(0.5, once=0.6, full=0.8) == pytest.approx(-0.5)
    assert share_of_gap(0.5, once=0.8, full=0.8) is None


def test_a_calibration_finds_the_line_through_the_updates():
    outcomes = {(0, UNTRAINED): {SKIP: (0.0, 0.1), HALF: (5.0, 0.5), FULL: (9.0, 0.8)}}
    table = merged(outcomes)
    skip, half, whole = table.rows[0, UNTRAINED]
    rows = (skip, dataclasses.replace(half, steps=20), dataclasses.replace(whole, steps=40))
    table = RecordedTable(table.header, table.probes, {(0, UNTRAINED): rows})
    # 5 J for 20 steps and 9 J for 40: 1 J and 0.2 J a step.
    assert calibration(table) == pytest.approx((1.0, 0.2))


def test_a_calibration_on_one_number_of_steps_has_no_fixed_part():
    table = merged({(0, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (10.0, 0.8)}})
    assert calibration(table) == (0.0, 0.1)  # 100 steps


@given(tables(), st.sampled_from([0.05, 0.2, 0.5, 1.5]), st.sampled_from([1e-6, 1 / 3, 1e6]))
def test_the_unit_of_energy_decides_nothing(table, share, factor):
    budget_j = share * table.full_j
    one = simulate(table, PricedPolicy(), budget_j)
    other = simulate(scaled(table, factor), PricedPolicy(), factor * budget_j)
    assert one.actions == other.actions


@given(tables(), st.sampled_from(list(UpdateMode)), st.sampled_from([0.05, 0.2, 0.5, 1.5]))
def test_what_is_spent_is_within_the_budget_or_an_overrun(table, mode, share):
    budget_j = share * table.full_j
    outcome = simulate(table, Always(mode=mode), budget_j, probe_j=0.01)
    assert outcome.spent_j <= (budget_j + outcome.overrun_j) * (1 + 1e-9)
    assert bool(outcome.violations) == (outcome.spent_j > budget_j * (1 + 1e-9))
    assert follow(table, outcome.actions).metrics == outcome.metrics


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(ConfigurationError, match="budget_j is 0"):
        simulate(by_hand(), PricedPolicy(), 0.0)
    with pytest.raises(ConfigurationError, match="probe_j is -1"):
        simulate(by_hand(), PricedPolicy(), 1.0, probe_j=-1.0)
    with pytest.raises(ConfigurationError, match="2 actions for 3 experiences"):
        follow(by_hand(), [FULL, SKIP])


def test_an_account_in_memory_refuses_what_is_not_left():
    account = InMemoryAccount(10.0)
    account.reserve(6.0, "first")
    with pytest.raises(BudgetExceeded, match="second needs 5 J, and 4 J are left") as raised:
        account.reserve(5.0, "second")
    assert (raised.value.requested_j, raised.value.left_j) == (5.0, 4.0)
