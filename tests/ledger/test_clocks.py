"""Clocks that are ahead, behind, or set back: no joule is granted twice, and it is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from greentrain.budget import Budget
from greentrain.errors import BudgetExceeded, LedgerError
from greentrain.ledger import Ledger, LedgerAccount, postgres, sql_store, verify
from greentrain.ledger import ledger as ledger_module
from greentrain.units import utc_now
from tests.ledger.cluster import Cluster
from tests.ledger.events import window

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAILY = Budget.parse("100 J", num_experiences=5, per="day")


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def dated(url: str, hands: Hands) -> Iterator[Ledger]:
    with closing(Ledger(url, clock=hands)) as ledger:
        yield ledger


def use(account: LedgerAccount, joules: float) -> None:
    account.settle(account.reserve(joules, "update"), joules)


def test_a_clock_that_is_set_back_opens_no_earlier_period(dated: Ledger, hands: Hands) -> None:
    with dated.open_run("stream", "one") as run:
        account = dated.account(dated.open_budget("daily", DAILY), run)
        use(account, 60.0)
        hands.now += timedelta(days=3)
        use(account, 70.0)
        hands.now = NOON
        assert account.balance().left_j == 30.0
        with pytest.raises(BudgetExceeded, match="30 J of 100 J are left"):
            account.reserve(40.0, "update")
        use(account, 30.0)
        hands.now += timedelta(days=2)  # still in the period that was opened too early
        assert account.balance().left_j == 0.0
        hands.now += timedelta(days=2)
        use(account, 100.0)
    found = verify(dated)
    assert found.ok
    (clock,) = [note for note in found.notes if note.startswith("clock")]
    assert "are dated up to 259200 s before a row that precedes them" in clock


def test_a_reservation_from_a_period_that_never_was_is_found(
    dated: Ledger, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dated.open_run("stream", "one") as run:
        account = dated.account(dated.open_budget("daily", DAILY), run)
        use(account, 100.0)
        monkeypatch.setattr(
            "greentrain.ledger.account.present", lambda *_: NOON + timedelta(days=9)
        )
        use(account, 100.0)
    assert [one for one in verify(dated).failures if "was not taken from the period" in one]


def ahead(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the clock of this host."""
    clock: Callable[[], datetime] = lambda: utc_now() + timedelta(seconds=seconds)  # noqa: E731
    for module in (postgres, sql_store, ledger_module):
        monkeypatch.setattr(module, "utc_now", clock)


def test_a_host_whose_clock_is_ahead_releases_no_live_run(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.new()
    with closing(Ledger(url)) as ledger, ledger.open_run("stream", "one") as run:
        account = ledger.account(
            ledger.open_budget("one", Budget.parse("1000 J", num_experiences=1)), run
        )
        reservation = account.reserve(990.0, "update")
        run.record(window(by_source={"cpu": 900.0}, reservation_id=reservation))
        run.flush()
        ahead(monkeypatch, 45.0)
        with closing(Ledger(url)) as other:
            assert abs(other.now() - ledger.now()) < timedelta(seconds=10)
            with pytest.raises(LedgerError, match="may still be active"):
                other.release(reservation)


def test_a_window_after_a_release_is_named(dated: Ledger, hands: Hands) -> None:
    run = dated.open_run("stream", "one")
    account = dated.account(
        dated.open_budget("one", Budget.parse("1000 J", num_experiences=1)), run
    )
    reservation = account.reserve(990.0, "update")
    run.record(window(by_source={"cpu": 10.0}, reservation_id=reservation))
    run.flush()
    hands.now += timedelta(minutes=5)
    dated.release(reservation)
    run.record(window(by_source={"cpu": 900.0}, reservation_id=reservation, epoch=1))
    run.close()
    (late,) = [note for note in verify(dated).notes if note.startswith("late")]
    assert f"1 window(s) with 900 J of {reservation} were recorded after it was released" in late


def test_what_a_killed_update_used_beyond_its_reservation_counts(
    dated: Ledger, hands: Hands
) -> None:
    budget = dated.open_budget("one", Budget.parse("1000 J", num_experiences=1))
    run = dated.open_run("stream", "killed")
    reservation = dated.account(budget, run).reserve(14.0, "update")
    for epoch in range(3):
        run.record(window(by_source={"cpu": 7.0}, reservation_id=reservation, epoch=epoch))
    run.flush()
    balance = dated.balance(budget)
    assert (balance.reserved_j, balance.spent_j, balance.overrun_j) == (14.0, 7.0, 7.0)
    assert balance.left_j == 1000.0 - 21.0
    (overrun,) = [note for note in verify(dated).notes if note.startswith("overrun")]
    assert overrun == (
        f"overrun: {reservation} is open, and its windows hold 7 J more than was reserved"
    )
    hands.now += timedelta(minutes=5)
    dated.release(reservation)
    balance = dated.balance(budget)
    assert (balance.reserved_j, balance.spent_j, balance.overrun_j) == (0.0, 21.0, 7.0)
    run.close()
