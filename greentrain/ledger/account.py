"""The account through which one run pays from one budget."""

from __future__ import annotations

import logging
import math
import uuid
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, select

from greentrain.budget import Balance, overrun
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger.budgets import (
    exceeded,
    holders,
    read_status,
    read_terms,
    read_totals,
    sums_of,
)
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import reservations, run_chain, settlements, windows
from greentrain.ledger.store import Store
from greentrain.money import period

_log = logging.getLogger(__name__)

_LEAST_G_PER_J = 1e-12
"""What a joule stands for at least: no energy is so clean that any amount of it could be had."""
_ROUNDING = 1e-12


class CarbonRate(Protocol):
    """Knows what a joule may cost, such as a :class:`greentrain.carbon.CarbonAccount`."""

    def upper_g_per_j(self, moment: datetime) -> float | None:
        """Return the grams that a joule drawn from now on may stand for; ``None`` if unknown."""
        ...


class LedgerAccount:
    """The :class:`greentrain.budget.Account` of one budget, paid from by one run.

    A budget of carbon holds grams, and control speaks of joules: what is reserved becomes grams at
    the upper bound of the present intensity, what is settled is the grams of the windows as they
    were recorded, and the balance is what the grams left allow at that upper bound.

    Args:
        store: The ledger's store.
        budget_id: The budget.
        run: The run that pays.
        carbon: What a joule may stand for; needed for a budget of carbon.

    Raises:
        ConfigurationError: If the budget is of carbon and no intensity is known.
        LedgerError: If there is no such budget.
    """

    def __init__(
        self, store: Store, budget_id: str, run: RunLog, *, carbon: CarbonRate | None = None
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
        """Return where the budget stands now, in joules.

        Of a budget of carbon nothing is left while no intensity is known.
        """
        now = self._store.clock()
        known = self._rate(now) is not None
        with self._store.read() as connection:
            status = read_status(connection, self._terms, now)
        balance = status.balance(self._per_j)
        return balance if known else _nothing_left(balance)

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Set joules aside, in one transaction, or refuse.

        Raises:
            ConfigurationError: If the amount is not positive.
            BudgetExceeded: If less is left, or the budget's time is over.
        """
        if not (math.isfinite(upper_bound_j) and upper_bound_j > 0):
            raise ConfigurationError(
                f"cannot reserve {upper_bound_j!r} J for {purpose}; it has to be more than zero"
            )
        reservation_id = str(uuid.uuid4())
        grams = self._terms.budget.unit == "g"
        with self._store.write() as connection:
            now = self._store.clock()
            rate = self._rate(now)
            status = read_status(connection, self._terms, now)
            amount = upper_bound_j * self._per_j
            if grams and math.isclose(amount, status.left, rel_tol=_ROUNDING):
                amount = status.left  # all of it, asked for in joules
            if rate is not None and amount <= status.left:
                content = {
                    "reservation_id": reservation_id,
                    "budget_id": self.budget_id,
                    "period": period(self._terms.budget, now),
                    "run_id": self._run.run_id,
                    "amount_j": upper_bound_j,
                    "amount_g": amount if grams else None,
                    "purpose": purpose,
                    **sums_of(status.taken.reserve(amount)),
                }
                self._store.append(connection, "reservation", self._run.chain, content)
                return reservation_id
        with self._store.read() as connection:
            held_by = holders(connection, self._terms, now)
        if rate is None:
            purpose = f"no carbon intensity is known now; {purpose}"
        raise exceeded(purpose, self._terms, status, amount, held_by, per_j=self._per_j)

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
            row = open_reservation(connection, reservation)
            if row["budget_id"] != self.budget_id:
                raise LedgerError(f"the reservation {reservation!r} is not known to this budget")
            actual_g = None
            if row["amount_g"] is not None:
                actual_g = _grams(connection, row, actual_j)
            append_settlement(self._store, connection, row, actual_j=actual_j, actual_g=actual_g)
        return overrun(row["amount_j"], actual_j)

    def _rate(self, now: datetime) -> float | None:
        """Return and keep the budget's amount in one joule; ``None`` while it is not known."""
        if self._terms.budget.unit == "J":
            return self._per_j
        rate = None if self._carbon is None else self._carbon.upper_g_per_j(now)
        if rate is not None:
            self._per_j = max(rate, _LEAST_G_PER_J)
        return rate


def open_reservation(connection: Connection, reservation: str) -> dict[str, Any]:
    """Return the row of a reservation that is not settled.

    Raises:
        LedgerError: If there is none.
    """
    query = select(reservations).where(reservations.c.reservation_id == reservation)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise LedgerError(f"the reservation {reservation!r} is not known to this budget")
    query = select(settlements.c.released).where(settlements.c.reservation_id == reservation)
    settled = connection.execute(query).first()
    if settled is not None:
        how = "settled" if settled.released is None else f"released ({settled.released})"
        raise LedgerError(f"the reservation {reservation!r} is {how} already")
    return {str(name): value for name, value in row.items()}


def append_settlement(
    store: Store,
    connection: Connection,
    row: dict[str, Any],
    *,
    actual_j: float | None,
    actual_g: float | None,
    released: str | None = None,
) -> None:
    """Settle a reservation, in its own run's chain.

    Args:
        store: The ledger's store.
        connection: Inside a transaction that writes.
        row: The reservation's row.
        actual_j: Joules; ``None`` if only the grams are known.
        actual_g: Grams, for a budget of carbon.
        released: How the amount is known that somebody else than the run settles.
    """
    of_carbon = row["amount_g"] is not None
    amount, actual = (
        (row["amount_g"], actual_g or 0.0) if of_carbon else (row["amount_j"], actual_j or 0.0)
    )
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
        **sums_of(totals.settle(amount, actual)),
    }
    store.append(connection, "settlement", run_chain(row["run_id"]), content)


def _grams(connection: Connection, row: dict[str, Any], actual_j: float) -> float:
    """Return the grams of a reservation's windows, or what the joules stood for at most."""
    query = select(windows.c.emissions_g, windows.c.complete).where(
        windows.c.reservation_id == row["reservation_id"]
    )
    of_it = connection.execute(query).all()
    known_g = math.fsum(window.emissions_g or 0.0 for window in of_it)
    if of_it and all(window.complete and window.emissions_g is not None for window in of_it):
        return known_g
    return max(known_g, actual_j * float(row["amount_g"]) / float(row["amount_j"]))


def _nothing_left(balance: Balance) -> Balance:
    return Balance(
        total_j=balance.total_j,
        spent_j=balance.spent_j,
        reserved_j=balance.reserved_j,
        overrun_j=balance.overrun_j,
        promised_j=balance.promised_j,
        over=True,
    )
