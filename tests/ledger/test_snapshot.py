"""A snapshot is the ledger at one moment, and can be cut back to an earlier one."""

from __future__ import annotations

from greentrain.budget import Budget
from greentrain.ledger import Ledger, verify, verify_snapshot
from greentrain.ledger.schema import CONTENT
from tests.ledger.test_verify import tell


def test_a_snapshot_holds_what_the_ledger_holds(ledger: Ledger) -> None:
    assert ledger.snapshot().heads() == ledger.heads() == {}
    tell(ledger, ledger.open_budget("digits", Budget.parse("1 Wh", num_experiences=2)), "a")
    snapshot = ledger.snapshot()
    assert snapshot.heads() == ledger.heads()
    for kind in CONTENT:
        assert snapshot.rows(kind) == ledger.rows(kind), kind
    assert verify_snapshot(snapshot, ledger) == verify(ledger)


def test_it_can_be_cut_back_to_the_heads_of_an_earlier_moment(ledger: Ledger) -> None:
    budget = ledger.open_budget("digits", Budget.parse("1 Wh", num_experiences=4))
    tell(ledger, budget, "a")
    heads, rows = ledger.heads(), {kind: ledger.rows(kind) for kind in CONTENT}
    tell(ledger, budget, "b")
    ledger.open_budget("another", Budget.parse("1 Wh"))
    now = ledger.snapshot()
    assert now.as_of(now.heads()) is now
    then = now.as_of(heads)
    assert then.heads() == heads
    assert {kind: then.rows(kind) for kind in CONTENT} == rows
    assert verify_snapshot(then, ledger).ok
    assert now.as_of({}).heads() == {}
