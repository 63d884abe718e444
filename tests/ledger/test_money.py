from __future__ import annotations

import math
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from greentrain.budget import Balance, Budget
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger import Ledger, LedgerAccount, RunLog, verify
from tests.ledger.events import window
from tests.prepared import CONTEXT

WORKERS = 4


@pytest.fixture
def account(ledger: Ledger) -> LedgerAccount:
    """One watt-hour, 3600 J, paid from by one run."""
    return ledger.account(
        ledger.open_budget("digits", Budget.parse("1 Wh")), ledger.open_run("stream", "digits")
    )


def test_what_is_reserved_counts_as_spent_until_it_is_settled(account: LedgerAccount) -> None:
    assert account.balance() == Balance(total_j=3600.0, spent_j=0.0, reserved_j=0.0)
    probe = account.reserve(600.0, "probe")
    update = account.reserve(2000.0, "update")
    assert account.balance() == Balance(total_j=3600.0, spent_j=0.0, reserved_j=2600.0)
    assert account.settle(probe, 250.0) == 0.0
    assert account.balance() == Balance(total_j=3600.0, spent_j=250.0, reserved_j=2000.0)
    assert account.settle(update, 1750.0) == 0.0
    assert account.balance().left_j == 1600.0


def test_an_overrun_is_named_and_leaves_less(account: LedgerAccount) -> None:
    reservation = account.reserve(600.0, "probe")
    assert account.settle(reservation, 700.0) == 100.0
    balance = account.balance()
    assert balance == Balance(total_j=3600.0, spent_j=700.0, reserved_j=0.0, overrun_j=100.0)
    assert (balance.left_j, balance.within) == (2900.0, True)


def test_an_overrun_of_the_last_reservation_leaves_nothing(account: LedgerAccount) -> None:
    assert account.settle(account.reserve(3600.0, "update"), 4000.0) == 400.0
    assert account.balance().left_j == 0.0
    assert account.balance().within
    with pytest.raises(BudgetExceeded):
        account.reserve(1e-9, "probe")


def test_the_last_joule_can_be_reserved_and_no_more(account: LedgerAccount, ledger: Ledger) -> None:
    account.reserve(3000.0, "update")
    account.reserve(600.0, "probe")
    before = ledger.heads()
    with pytest.raises(BudgetExceeded) as caught:
        account.reserve(36.0, "a second probe")
    assert (caught.value.requested_j, caught.value.left_j) == (36.0, 0.0)
    assert len(caught.value.held_by) == 2
    assert str(caught.value) == (
        "a second probe needs 36 J, and 0 Wh of 1 Wh are left (0 Wh spent, 1 Wh reserved)"
        "; held: 600 J by the run 'digits' for probe, 3,000 J by the run 'digits' for update"
    )
    assert ledger.heads() == before


@pytest.mark.parametrize("amount_j", [0.0, -1.0, float("nan"), float("inf")])
def test_a_reservation_is_positive_and_finite(account: LedgerAccount, amount_j: float) -> None:
    with pytest.raises(ConfigurationError, match="cannot reserve"):
        account.reserve(amount_j, "probe")
    assert account.balance().reserved_j == 0.0


@pytest.mark.parametrize("actual_j", [-1.0, float("nan"), float("inf"), -float("inf")])
def test_a_settlement_is_finite_and_gives_nothing_back(
    account: LedgerAccount, actual_j: float
) -> None:
    reservation = account.reserve(600.0, "probe")
    with pytest.raises(ConfigurationError, match="settle"):
        account.settle(reservation, actual_j)
    assert account.balance() == Balance(total_j=3600.0, spent_j=0.0, reserved_j=600.0)


def test_a_reservation_is_settled_once(account: LedgerAccount) -> None:
    reservation = account.reserve(600.0, "probe")
    account.settle(reservation, 0.0)
    with pytest.raises(LedgerError, match="settled already"):
        account.settle(reservation, 10.0)
    assert account.balance().spent_j == 0.0


def test_a_reservation_is_settled_from_its_own_budget(
    account: LedgerAccount, ledger: Ledger
) -> None:
    other = ledger.account(
        ledger.open_budget("letters", Budget(energy_j=50.0)), ledger.open_run("stream", "letters")
    )
    reservation = account.reserve(600.0, "probe")
    for unknown in (reservation, "nothing"):
        with pytest.raises(LedgerError, match="the budget has no reservation"):
            other.settle(unknown, 10.0)
    assert other.balance() == Balance(total_j=50.0, spent_j=0.0, reserved_j=0.0)


def test_what_earlier_runs_spent_stays_spent(tmp_path: Path) -> None:
    for spent_before_j in (0.0, 100.0, 200.0):
        ledger = Ledger(str(tmp_path / "again.db"))
        budget = ledger.open_budget("digits", Budget(energy_j=1000.0))
        with ledger.open_run("stream", "digits") as run:
            account = ledger.account(budget, run)
            assert account.balance().spent_j == spent_before_j
            account.settle(account.reserve(150.0, "update"), 100.0)
        ledger.close()


def pay(run: RunLog, account: LedgerAccount, reservation: str, actual_j: float) -> None:
    """Record the window that a settlement sums up, and settle."""
    run.record(window("probe", by_source={"cpu": actual_j}, reservation_id=reservation))
    account.settle(reservation, actual_j)


def _spend_until_it_is_gone(database: str, number: int) -> None:
    """Reserve 10 J at a time, draw 8 J or, now and then, 11 J, and look at the rule each time."""
    ledger = Ledger(database)
    budget = ledger.open_budget("shared", Budget(energy_j=500.0))
    settled = 0
    with ledger.open_run("fit", f"worker {number}") as run:
        account = ledger.account(budget, run)
        while True:
            try:
                reservation = account.reserve(10.0, f"step {settled}")
            except BudgetExceeded:
                break
            if not account.balance().within:
                raise RuntimeError("overdrawn")
            pay(run, account, reservation, 11.0 if settled % 5 == 4 else 8.0)
            settled += 1
    ledger.close()
    Path(f"{database}.{number}").write_text(str(settled))


def test_four_processes_on_one_budget_never_overdraw_it(tmp_path: Path) -> None:
    database = str(tmp_path / "shared.db")
    workers = [
        CONTEXT.Process(target=_spend_until_it_is_gone, args=(database, number))
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * WORKERS
    ledger = Ledger(database, create=False)
    counts = [int(Path(f"{database}.{number}").read_text()) for number in range(WORKERS)]
    settlements = ledger.rows("settlement")
    assert len(settlements) == len(ledger.rows("window")) == len(ledger.rows("reservation"))
    assert len(settlements) == sum(counts)
    (budget,) = ledger.rows("budget")
    balance = ledger.balance(budget["budget_id"])
    assert balance.spent_j == sum(row["actual_j"] for row in settlements)
    assert (balance.within, balance.reserved_j) == (True, 0.0)
    assert balance.left_j < 10.0
    found = verify(ledger)
    assert found.failures == ()
    assert len(found.notes) == sum(row["overrun_j"] > 0 for row in settlements)
    ledger.close()


def _reserve_and_be_killed(database: str) -> None:
    ledger = Ledger(database)
    budget = ledger.open_budget("shared", Budget(energy_j=100.0))
    ledger.account(budget, ledger.open_run("fit", "killed")).reserve(60.0, "an update")
    os.kill(os.getpid(), signal.SIGKILL)


def _be_killed_while_writing(database: str) -> None:
    ledger = Ledger(database)
    ledger.open_budget("shared", Budget(energy_j=100.0))
    content = {"run_id": "r", "kind": "fit", "name": "n", "environment": "{}"}
    with ledger.store.write() as connection:
        ledger.store.append(connection, "run", "runs", content)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("doomed", "reserved_j", "notes"),
    [
        (
            _reserve_and_be_killed,
            60.0,
            ["open: 60 J reserved for an update were never settled", "unclosed: run"],
        ),
        (_be_killed_while_writing, 0.0, []),
    ],
)
def test_what_a_killed_process_reserved_stays_spent(
    tmp_path: Path, doomed: object, reserved_j: float, notes: list[str]
) -> None:
    database = str(tmp_path / "shared.db")
    worker = CONTEXT.Process(target=doomed, args=(database,))  # type: ignore[arg-type]
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    ledger = Ledger(database, create=False)
    budget = ledger.open_budget("shared", Budget(energy_j=100.0))
    assert ledger.balance(budget) == Balance(total_j=100.0, spent_j=0.0, reserved_j=reserved_j)
    found = verify(ledger)
    assert found.failures == ()
    assert len(found.notes) == len(notes)
    assert all(note.startswith(begins) for note, begins in zip(found.notes, notes, strict=True))
    with ledger.open_run("fit", "the next") as run:
        account = ledger.account(budget, run)
        with pytest.raises(BudgetExceeded):
            account.reserve(100.1 - reserved_j, "too much")
        account.reserve(40.0, "an update")
    ledger.close()


class Money(RuleBasedStateMachine):
    """Reserve, settle and reopen in any order; a plain sum says what the ledger has to say."""

    reservations = Bundle("reservations")
    total_j = 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="greentrain-money-"))
        self.open: dict[str, float] = {}
        self.runs: dict[str, str] = {}
        self.settled: list[tuple[float, float]] = []
        self.begin()

    def begin(self) -> None:
        self.ledger = Ledger(str(self.folder / "ledger.db"))
        self.budget = self.ledger.open_budget("digits", Budget(energy_j=self.total_j))
        self.run = self.ledger.open_run("fit", "model")
        self.account = self.ledger.account(self.budget, self.run)

    def left_j(self) -> float:
        spent_j = math.fsum(actual_j for _, actual_j in self.settled)
        return max(0.0, self.total_j - spent_j - math.fsum(self.open.values()))

    @rule(target=reservations, amount_j=st.floats(0.001, 700.0))
    def reserve(self, amount_j: float) -> str:
        try:
            reservation = self.account.reserve(amount_j, "an update")
        except BudgetExceeded as refused:
            assert amount_j > self.left_j() - 1e-9
            assert refused.left_j == pytest.approx(self.left_j())
            return "refused"
        assert amount_j <= self.left_j() + 1e-9
        self.open[reservation] = amount_j
        self.runs[reservation] = self.run.run_id
        return reservation

    @rule(reservation=consumes(reservations), share=st.floats(0.0, 1.5))
    def settle(self, reservation: str, share: float) -> None:
        if reservation == "refused":
            with pytest.raises(LedgerError):
                self.account.settle(reservation, share)
            return
        reserved_j = self.open.pop(reservation)
        actual_j = share * reserved_j
        if self.runs[reservation] == self.run.run_id:
            pay(self.run, self.account, reservation, actual_j)
        else:  # only the run that reserved settles
            self.ledger.release(reservation, actual_j)
        self.settled.append((reserved_j, actual_j))

    @rule()
    def reopen(self) -> None:
        self.run.close()
        self.ledger.close()
        self.begin()

    @invariant()
    def the_ledger_says_what_the_sums_say(self) -> None:
        balance = self.account.balance()
        beyond_j = math.fsum(max(0.0, actual - reserved) for reserved, actual in self.settled)
        assert balance.within
        assert balance.left_j == pytest.approx(self.left_j())
        assert balance.reserved_j == pytest.approx(math.fsum(self.open.values()))
        assert balance.overrun_j == pytest.approx(beyond_j)

    def teardown(self) -> None:
        self.run.close()
        found = verify(self.ledger)
        self.ledger.close()
        shutil.rmtree(self.folder)
        assert found.failures == ()


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
