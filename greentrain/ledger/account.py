"""The account through which one run pays from one budget."""

from __future__ import annotations

import math
import uuid

from sqlalchemy import Connection, func, select

from greentrain.budget import Balance, overrun
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import budgets, reservations, settlements
from greentrain.ledger.store import Store
from greentrain.units import format_energy


class LedgerAccount:
    """The :class:`greentrain.budget.Account` of one budget, paid from by one run."""

    def __init__(self, store: Store, budget_id: str, run: RunLog) -> None:
        self._store = store
        self._run = run
        self.budget_id = budget_id

    def balance(self) -> Balance:
        """Return where the budget stands now."""
        with self._store.write() as connection:
            return read_balance(connection, self.budget_id)

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Set joules aside, in one transaction, or refuse.

        Raises:
            ConfigurationError: If the amount is not positive.
            BudgetExceeded: If fewer joules are left.
        """
        if not (math.isfinite(upper_bound_j) and upper_bound_j > 0):
            raise ConfigurationError(
                f"cannot reserve {upper_bound_j!r} J for {purpose}; it has to be more than zero"
            )
        reservation_id = str(uuid.uuid4())
        with self._store.write() as connection:
            balance = read_balance(connection, self.budget_id)
            if upper_bound_j > balance.left_j:
                raise BudgetExceeded(
                    f"{purpose} asks for {format_energy(upper_bound_j)}, and "
                    f"{format_energy(balance.left_j)} of {format_energy(balance.total_j)} are left "
                    f"({format_energy(balance.spent_j)} spent, "
                    f"{format_energy(balance.reserved_j)} reserved)",
                    asked_j=upper_bound_j,
                    left_j=balance.left_j,
                )
            content = {
                "reservation_id": reservation_id,
                "budget_id": self.budget_id,
                "run_id": self._run.run_id,
                "amount_j": upper_bound_j,
                "purpose": purpose,
            }
            self._store.append(connection, "reservation", self._run.chain, content)
        return reservation_id

    def settle(self, reservation: str, actual_j: float) -> float:
        """Record what was measured, and return the overrun in joules.

        Raises:
            ConfigurationError: If the amount is negative or not finite.
            LedgerError: If there is no such open reservation.
        """
        if not (math.isfinite(actual_j) and actual_j >= 0):
            raise ConfigurationError(f"cannot settle {actual_j!r} J; it is finite, 0 or more")
        self._run.flush()
        with self._store.write() as connection:
            row = connection.execute(
                select(reservations).where(
                    reservations.c.reservation_id == reservation,
                    reservations.c.budget_id == self.budget_id,
                )
            ).first()
            settled = connection.execute(
                select(settlements.c.entry_id).where(settlements.c.reservation_id == reservation)
            ).first()
            if row is None or settled is not None:
                raise LedgerError(
                    f"the reservation {reservation!r} is "
                    + ("settled already" if settled else "not known to this budget")
                )
            overrun_j = overrun(row.amount_j, actual_j)
            content = {
                "reservation_id": reservation,
                "budget_id": self.budget_id,
                "run_id": self._run.run_id,
                "actual_j": actual_j,
                "overrun_j": overrun_j,
            }
            self._store.append(connection, "settlement", self._run.chain, content)
        return overrun_j


def read_balance(connection: Connection, budget_id: str) -> Balance:
    """Sum up a budget inside a transaction.

    Raises:
        LedgerError: If there is no such budget.
    """
    total_j = connection.execute(
        select(budgets.c.energy_j).where(budgets.c.budget_id == budget_id)
    ).scalar()
    if total_j is None:
        raise LedgerError(f"the ledger has no budget {budget_id!r}")
    reserved_j = connection.execute(
        select(func.coalesce(func.sum(reservations.c.amount_j), 0.0))
        .outerjoin(settlements, settlements.c.reservation_id == reservations.c.reservation_id)
        .where(reservations.c.budget_id == budget_id, settlements.c.reservation_id.is_(None))
    ).scalar_one()
    spent_j, overrun_j = connection.execute(
        select(
            func.coalesce(func.sum(settlements.c.actual_j), 0.0),
            func.coalesce(func.sum(settlements.c.overrun_j), 0.0),
        ).where(settlements.c.budget_id == budget_id)
    ).one()
    return Balance(total_j=total_j, spent_j=spent_j, reserved_j=reserved_j, overrun_j=overrun_j)
