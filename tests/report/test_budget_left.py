"""The amount left of a budget never rises between two renewals, in whichever order rows arrive."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentrain.budget import Budget
from greentrain.ledger import Ledger
from greentrain.report import build
from tests.report.ledgers import come, decide


def lefts(ledger: Ledger) -> list[float]:
    return [one["budget_left_after_j"] for one in build(ledger)["experiences"]]


def test_a_late_outcome_does_not_show_the_reservation_of_the_next_experience(ledger):
    run = ledger.open_run("stream", "digits")
    budget = ledger.open_budget("digits", Budget.parse("100 J", num_experiences=2))
    account = ledger.account(budget, run)
    first = account.reserve(40.0, "first")
    decide(run, budget, 0, reservation_id=first)
    account.settle(first, 30.0)
    second = account.reserve(60.0, "second")  # before the outcome of the first is written
    come(run, 0, reservation_id=first, energy_j=30.0)
    decide(run, budget, 1, reservation_id=second)
    account.settle(second, 20.0)
    come(run, 1, reservation_id=second, energy_j=20.0)
    run.close()
    assert lefts(ledger) == [70.0, 50.0]  # 10 and 50 by the outcomes' own places


@pytest.mark.parametrize("late", range(5))
@pytest.mark.parametrize("skipped", [False, True])
def test_outcomes_that_wait_change_nothing(ledger, late, skipped):
    run = ledger.open_run("stream", "digits")
    budget = ledger.open_budget("digits", Budget.parse("100 J", num_experiences=5))
    account, waiting = ledger.account(budget, run), []
    for position in range(5):
        skips = skipped and position == 2
        reservation = None if skips else account.reserve(19.0, "update")
        decide(run, budget, position, reservation_id=reservation)
        if reservation is not None:
            account.settle(reservation, 10.0)
        waiting.append((position, reservation))
        if len(waiting) > late:
            place, paid = waiting.pop(0)
            come(run, place, reservation_id=paid)
    for place, paid in waiting:
        come(run, place, reservation_id=paid)
    run.close()
    expected = [90.0, 80.0, 80.0, 70.0, 60.0] if skipped else [90.0, 80.0, 70.0, 60.0, 50.0]
    assert lefts(ledger) == expected


def test_an_update_that_was_killed_keeps_its_place(ledger):
    budget = ledger.open_budget("digits", Budget.parse("100 J", num_experiences=5))
    run = ledger.open_run("stream", "digits")
    account = ledger.account(budget, run)
    dead = account.reserve(50.0, "killed")
    decide(run, budget, 0, reservation_id=dead)
    later = ledger.open_run("stream", "digits")
    account = ledger.account(budget, later)
    paid = account.reserve(20.0, "again")
    decide(later, budget, 0, reservation_id=paid)
    account.settle(paid, 15.0)
    come(later, 0, reservation_id=paid, energy_j=15.0)
    assert lefts(ledger) == [100.0, 85.0]
    later.close()


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 9.0), st.floats(0.0, 12.0), st.integers(0, 3)), min_size=2)
)
def test_the_amount_left_never_rises(tmp_path_factory, payments):
    with closing(Ledger(f"sqlite:///{tmp_path_factory.mktemp('left') / 'ledger.db'}")) as ledger:
        run = ledger.open_run("stream", "digits")
        budget = ledger.open_budget("digits", Budget.parse("10 kJ", num_experiences=99))
        account, waiting = ledger.account(budget, run), []
        for position, (reserved_j, used_j, late) in enumerate(payments[:6]):
            reservation = account.reserve(reserved_j, "update")
            while len(waiting) > late:
                come(run, waiting[0][0], reservation_id=waiting.pop(0)[1])
            decide(run, budget, position, reservation_id=reservation)
            account.settle(reservation, used_j)
            waiting.append((position, reservation))
        for place, paid in waiting:
            come(run, place, reservation_id=paid)
        run.close()
        assert all(later <= earlier for earlier, later in pairwise(lefts(ledger)))
