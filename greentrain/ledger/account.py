"""Reserve and settle amounts of one budget for one run."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

from greentrain.budget import Balance, overrun
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger.budgets import (
    budget_exceeded,
    holders,
    present,
    read_status,
    read_terms,
    read_totals,
    total_columns,
)
from greentrain.ledger.rows import ReservationRow
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import run_chain
from greentrain.ledger.sql_store import TransactionRows
from greentrain.ledger.store import LedgerStore
from greentrain.money import BudgetStatus, period_name
from greentrain.texts import get_logger

_log = get_logger(__name__)

_LEAST_G_PER_J = 1e-12
"""Least grams per joule, so that energy without emissions is not unlimited."""
_ROUNDING = 1e-12
_NOTHING_LEFT = 1e-6
"""Share of a budget below which the rest is rounding, and no fit can be paid from it."""


class CarbonRate(Protocol):
    """An upper bound of the grams per joule, such as a :class:`greentrain.carbon.CarbonAccount`."""

    def upper_g_per_j(self, moment: datetime) -> float | None:
        """Return the most grams that a joule used from now on may cause; ``None`` if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedPart:
    """A part of a budget that was reserved.

    Args:
        reservation_id: Id of the reservation.
        amount_j: Joules reserved.
        amount: The same in the budget's unit.
    """

    reservation_id: str
    amount_j: float
    amount: float


class LedgerAccount:
    """The :class:`greentrain.budget.Account` of one budget for one run.

    The methods take and return joules, also for a budget of carbon. Joules are reserved as grams at
    the upper bound of the present intensity. They are settled at the grams of the recorded windows.
    The balance is the energy that the remaining grams allow at the upper bound.

    Args:
        store: Store of the ledger.
        budget_id: The budget.
        run: The run that pays.
        carbon: Upper bound of the grams per joule; required for a budget of carbon.

    Raises:
        ConfigurationError: If the budget is of carbon and no intensity is known.
        LedgerError: If there is no such budget.
    """

    def __init__(
        self, store: LedgerStore, budget_id: str, run: RunLog, *, carbon: CarbonRate | None = None
    ) -> None:
        self._store = store
        self._run = run
        self._carbon = carbon
        self.budget_id = budget_id
        with store.read() as connection:
            self._terms = read_terms(connection, budget_id)
        self._per_j = 1.0
        if self._terms.budget.unit == "g" and self._rate(store.clock()) is None:
            raise ConfigurationError(
                f"the budget {self._terms.name!r} is of carbon ({self._terms.budget}) and no "
                "carbon intensity is known; give a zone such as 'DE', or an intensity that covers "
                "the present"
            )

    def balance(self) -> Balance:
        """Return the present balance in joules.

        While no intensity is known, a budget of carbon has nothing left.
        """
        known = self._rate(self._store.clock()) is not None
        with self._store.read() as connection:
            now = present(connection, self._terms, self._store.clock())
            status = read_status(connection, self._terms, now)
        balance = status.balance(self._per_j)
        return balance if known else replace(balance, over=True)

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Reserve an amount in one transaction, and return the reservation's id.

        Args:
            upper_bound_j: Joules that will be used at most.
            purpose: Text that says what they are for.

        Raises:
            ConfigurationError: If the amount is not positive.
            BudgetExceeded: If less is left, or the budget has ended.
        """
        if not (math.isfinite(upper_bound_j) and upper_bound_j > 0):
            raise ConfigurationError(
                f"cannot reserve {upper_bound_j!r} J for {purpose}; give an amount above 0"
            )
        with self._store.write() as connection:
            rate = self._rate(self._store.clock())
            now = present(connection, self._terms, self._store.clock())
            status = read_status(connection, self._terms, now)
            amount = upper_bound_j * self._per_j
            if self._terms.budget.unit == "g" and math.isclose(
                amount, status.left, rel_tol=_ROUNDING
            ):
                amount = status.left  # all of it, converted to joules and back
            if rate is not None and amount <= status.left:
                return self._append(connection, status, now, amount, purpose)
        raise self._exceeded(purpose, status, amount, now, known=rate is not None)

    def reserve_part(self, parts: int, purpose: str) -> ReservedPart:
        """Reserve an equal part of what is left in one transaction.

        The amount left is divided by the parts that were not reserved yet. So what one part does
        not use goes to the later parts. After as many reservations as parts, a reservation takes
        all that is left.

        Args:
            parts: Parts of the budget, or of each period of a budget that is renewed; 1 or more.
            purpose: Text that says what the joules are for.

        Raises:
            BudgetExceeded: If nothing is left, or the budget has ended.
        """
        with self._store.write() as connection:
            now = self._store.clock()
            rate = self._rate(now)
            status = read_status(connection, self._terms, now)
            period = period_name(self._terms.budget, now)
            taken = TransactionRows(connection).rows(
                "reservation", budget_id=self.budget_id, period=period
            )
            amount = status.left / max(1, parts - len(taken))
            if rate is not None and status.left > _NOTHING_LEFT * status.total:
                reservation_id = self._append(connection, status, now, amount, purpose)
                return ReservedPart(
                    reservation_id=reservation_id, amount_j=amount / self._per_j, amount=amount
                )
        raise self._exceeded(purpose, status, None, now, known=rate is not None)

    def settle(self, reservation: str, actual_j: float) -> float:
        """Settle a reservation at the measured amount, and return the overrun in joules.

        Raises:
            ConfigurationError: If the amount is negative or not finite.
            LedgerError: If there is no such open reservation, or another run made it.
        """
        if not (math.isfinite(actual_j) and actual_j >= 0):
            raise ConfigurationError(f"cannot settle {actual_j!r} J; give 0 or more, and finite")
        self._run.flush()
        with self._store.write() as connection:
            row = open_reservation(connection, reservation)
            if row["budget_id"] != self.budget_id:
                raise LedgerError(f"the budget has no reservation {reservation!r}")
            if row["run_id"] != self._run.run_id:
                raise LedgerError(
                    f"the reservation {reservation!r} belongs to the run {row['run_id']!r}, which "
                    "has to settle it; if that run died, release it: greentrain ledger release"
                )
            actual_g = None
            if row["amount_g"] is not None:
                actual_g = _grams(connection, row, actual_j)
            append_settlement(self._store, connection, row, actual_j=actual_j, actual_g=actual_g)
        return overrun(row["amount_j"], actual_j)

    def _append(
        self,
        connection: Connection,
        status: BudgetStatus,
        now: datetime,
        amount: float,
        purpose: str,
    ) -> str:
        reservation_id = str(uuid.uuid4())
        content = {
            "reservation_id": reservation_id,
            "budget_id": self.budget_id,
            "period": period_name(self._terms.budget, now),
            "run_id": self._run.run_id,
            "amount_j": amount / self._per_j,
            "amount_g": amount if self._terms.budget.unit == "g" else None,
            "purpose": purpose,
            **total_columns(status.taken.reserve(amount)),
        }
        self._store.append(connection, "reservation", self._run.chain, content)
        return reservation_id

    def _exceeded(
        self,
        purpose: str,
        status: BudgetStatus,
        amount: float | None,
        now: datetime,
        *,
        known: bool,
    ) -> BudgetExceeded:
        with self._store.read() as connection:
            held_by = holders(connection, self._terms, now)
        if not known:
            purpose = f"no carbon intensity is known now; {purpose}"
        return budget_exceeded(purpose, self._terms, status, amount, held_by, per_j=self._per_j)

    def _rate(self, now: datetime) -> float | None:
        """Return and store the amount in the budget's unit for one joule; ``None`` if unknown."""
        if self._terms.budget.unit == "J":
            return self._per_j
        rate = None if self._carbon is None else self._carbon.upper_g_per_j(now)
        if rate is not None:
            self._per_j = max(rate, _LEAST_G_PER_J)
        return rate


def open_reservation(connection: Connection, reservation: str) -> ReservationRow:
    """Return the row of an open reservation.

    Raises:
        LedgerError: If there is none of this id, or it is settled.
    """
    rows = TransactionRows(connection)
    found = rows.rows("reservation", reservation_id=reservation)
    if not found:
        raise LedgerError(f"the budget has no reservation {reservation!r}")
    for settled in rows.rows("settlement", reservation_id=reservation):
        how = "settled" if settled["released"] is None else f"released ({settled['released']})"
        raise LedgerError(f"the reservation {reservation!r} is {how} already")
    return found[0]


def append_settlement(
    store: LedgerStore,
    connection: Connection,
    row: ReservationRow,
    *,
    actual_j: float | None,
    actual_g: float | None,
    released: str | None = None,
) -> None:
    """Append a settlement to the chain of the run that reserved.

    Args:
        store: Store of the ledger.
        connection: Connection of a write transaction.
        row: Row of the reservation.
        actual_j: Joules; ``None`` if only the grams are known.
        actual_g: Grams, for a budget of carbon.
        released: Origin of the amount if another process settles it than the run.
    """
    amount_g, of_carbon = row["amount_g"], row["amount_g"] is not None
    amount, actual = row["amount_j"], actual_j or 0.0
    if amount_g is not None:
        amount, actual = amount_g, actual_g or 0.0
    totals = read_totals(connection, row["budget_id"], row["period"])
    content = {
        "reservation_id": row["reservation_id"],
        "budget_id": row["budget_id"],
        "period": row["period"],
        "run_id": row["run_id"],
        "actual_j": actual_j,
        "actual_g": actual_g if of_carbon else None,
        "overrun_j": None if actual_j is None else overrun(row["amount_j"], actual_j),
        "overrun_g": overrun(amount, actual) if of_carbon else None,
        "released": released,
        **total_columns(totals.settle(amount, actual)),
    }
    store.append(connection, "settlement", run_chain(row["run_id"]), content)


def _grams(connection: Connection, row: ReservationRow, actual_j: float) -> float:
    """Return the grams of a reservation's windows; if some are unknown, an upper bound."""
    reservation = row["reservation_id"]
    measured = TransactionRows(connection).rows("window", reservation_id=reservation)
    known_g = math.fsum(window["emissions_g"] or 0.0 for window in measured)
    if measured and all(one["complete"] and one["emissions_g"] is not None for one in measured):
        return known_g
    return max(known_g, actual_j * (row["amount_g"] or 0.0) / row["amount_j"])
