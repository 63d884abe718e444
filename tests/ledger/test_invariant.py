"""Whatever is reserved, settled, released, promised or renewed, no scope is ever overdrawn."""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from greentrain.budget import Budget
from greentrain.errors import BudgetExceeded, LedgerError
from greentrain.ledger import Ledger, LedgerAccount, verify
from greentrain.ledger.events import window_content
from tests.ledger.events import window

DAILY = {"per": "day"}
CARRIED = {"per": "day", "carry_over": True}
TERMS = [{}, DAILY, CARRIED]
AMOUNTS = st.floats(0.001, 700.0)


@dataclasses.dataclass
class Payment:
    """What the machine knows of a reservation."""

    scope: str
    day: int
    amount: float
    actual: float | None = None

    @property
    def counted(self) -> float:
        return self.amount if self.actual is None else min(self.amount, self.actual)

    @property
    def taken(self) -> float:
        return self.amount if self.actual is None else self.actual


@dataclasses.dataclass
class Scope:
    """What the machine knows of a budget."""

    budget: Budget
    opened: int


class Scopes(RuleBasedStateMachine):
    """A project, budgets out of it and out of those, and plain sums that say what has to hold."""

    scopes = Bundle("scopes")
    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="greentrain-scopes-"))
        self.now = datetime(2026, 2, 27, 12, tzinfo=UTC)
        self.ledger = Ledger(str(self.folder / "ledger.db"), clock=lambda: self.now)
        self.known: dict[str, Scope] = {}
        self.payments: dict[str, Payment] = {}
        self.accounts: dict[str, LedgerAccount] = {}
        self.begin()

    def begin(self) -> None:
        """Begin a run; the one before is forgotten, as a process that was killed forgets it."""
        self.run = self.ledger.open_run("fit", "model")
        for name, scope in self.known.items():
            self.enter(name, scope.budget)

    def enter(self, name: str, budget: Budget) -> None:
        self.accounts[name] = self.ledger.account(self.ledger.open_budget(name, budget), self.run)

    @property
    def day(self) -> int:
        return self.now.toordinal()

    def total(self, name: str) -> float:
        scope = self.known[name]
        amount = scope.budget.energy_j or 0.0
        return amount * (self.day - scope.opened + 1) if scope.budget.carry_over else amount

    def promised(self, name: str) -> float:
        parent = self.known[name].budget
        return math.fsum(
            (child.budget.energy_j or 0.0)
            * (self.day - child.opened + 1 if parent.carry_over and child.budget.per else 1)
            for child in self.known.values()
            if child.budget.parent == name
        )

    def of(self, name: str) -> list[Payment]:
        budget = self.known[name].budget
        present = budget.per is not None and not budget.carry_over
        return [
            one
            for one in self.payments.values()
            if one.scope == name and (one.day == self.day or not present)
        ]

    def overdrawn(self, name: str) -> float:
        """What the children of a budget have drawn beyond their promise, by overruns."""
        children = [key for key, one in self.known.items() if one.budget.parent == name]
        return math.fsum(max(0.0, self.spent(key) - self.total(key)) for key in children)

    def spent(self, name: str) -> float:
        of_it = math.fsum(one.taken for one in self.of(name))
        return of_it + self.promised(name) + self.overdrawn(name)

    def left(self, name: str) -> float:
        return max(0.0, self.total(name) - self.spent(name))

    @initialize(target=scopes, terms=st.sampled_from(TERMS))
    def project(self, terms: dict[str, object]) -> str:
        self.open("project", Budget(energy_j=1000.0, **terms))  # type: ignore[arg-type]
        return "project"

    def open(self, name: str, budget: Budget) -> None:
        self.enter(name, budget)
        self.known[name] = Scope(budget, self.day)

    @rule(target=scopes, parent=scopes, amount=AMOUNTS, terms=st.sampled_from(TERMS))
    def child(self, parent: str, amount: float, terms: dict[str, object]) -> object:
        above = self.known[parent].budget
        if above.per is None or (terms and not above.carry_over):
            terms = {"per": above.per}
        elif not above.carry_over:
            terms = DAILY
        budget = Budget(energy_j=amount, parent=parent, **terms)  # type: ignore[arg-type]
        left = self.left(parent)
        if budget.per is not None:
            renewed = [
                one.budget.energy_j or 0.0
                for one in self.known.values()
                if one.budget.parent == parent and one.budget.per is not None
            ]
            left = min(left, (above.energy_j or 0.0) - math.fsum(renewed))
        name = f"{parent}/{len(self.known)}"
        try:
            self.open(name, budget)
        except BudgetExceeded:
            assert amount > left - 1e-9
            return multiple()
        assert amount <= left + 1e-9
        return name

    @rule(target=reservations, scope=scopes, amount=AMOUNTS)
    def reserve(self, scope: str, amount: float) -> object:
        left = self.left(scope)
        try:
            reservation = self.accounts[scope].reserve(amount, "an update")
        except BudgetExceeded as refused:
            assert amount > left - 1e-9
            assert refused.left_j == pytest.approx(left, abs=1e-9)
            return multiple()
        assert amount <= left + 1e-9
        self.payments[reservation] = Payment(scope, self.day, amount)
        return reservation

    def draw(self, reservation: str, actual_j: float) -> None:
        drawn = window("probe", by_source={"cpu": actual_j}, reservation_id=reservation)
        self.run.append("window", **window_content(self.run.run_id, drawn, None))

    def run_of(self, reservation: str) -> str:
        return self.ledger.rows("reservation", reservation_id=reservation)[0]["run_id"]

    @rule(reservation=consumes(reservations), share=st.floats(0.0, 1.5))
    def settle(self, reservation: str, share: float) -> None:
        payment = self.payments[reservation]
        actual = share * payment.amount
        if self.run_of(reservation) != self.run.run_id:
            with pytest.raises(LedgerError, match="belongs to the run"):
                self.accounts[payment.scope].settle(reservation, actual)
            self.ledger.release(reservation, actual)
        else:
            self.draw(reservation, actual)
            self.accounts[payment.scope].settle(reservation, actual)
        payment.actual = actual

    @rule(reservation=consumes(reservations), share=st.floats(0.0, 1.5))
    def release_as_given(self, reservation: str, share: float) -> None:
        payment = self.payments[reservation]
        payment.actual = share * payment.amount
        self.ledger.release(reservation, payment.actual)

    @rule(reservation=consumes(reservations), share=st.floats(0.0, 1.5))
    def release_as_measured(self, reservation: str, share: float) -> None:
        if self.run_of(reservation) != self.run.run_id:  # its process is gone, and recorded nothing
            return
        payment = self.payments[reservation]
        payment.actual = share * payment.amount
        self.draw(reservation, payment.actual)
        self.now += timedelta(seconds=31)
        assert self.ledger.release(reservation).actual == payment.actual

    @rule()
    def crash(self) -> None:
        self.begin()

    @rule(hours=st.integers(1, 60))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @invariant()
    def no_scope_is_overdrawn(self) -> None:
        for name, account in self.accounts.items():
            counted = math.fsum(one.counted for one in self.of(name))
            assert counted + self.promised(name) <= self.total(name) * (1 + 1e-12)
            balance = account.balance()
            assert balance.within
            assert balance.total_j == pytest.approx(self.total(name))
            assert balance.left_j == pytest.approx(self.left(name), abs=1e-9)
            still_open = [one.amount for one in self.of(name) if one.actual is None]
            assert balance.reserved_j == pytest.approx(math.fsum(still_open), abs=1e-9)
            assert balance.promised_j == pytest.approx(self.promised(name))

    def teardown(self) -> None:
        found = verify(self.ledger)
        self.ledger.close()
        shutil.rmtree(self.folder)
        assert found.failures == ()


TestScopes = Scopes.TestCase
TestScopes.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
