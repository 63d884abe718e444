"""Create the budgets of a ledger, and read their terms and status in a transaction."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select

from greentrain.budget import Budget, format_amount, overrun
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger.rows import BudgetRow, PaymentRow
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    budgets,
    entries,
    reservations,
    runs,
    settlements,
    windows,
)
from greentrain.ledger.store import LedgerStore
from greentrain.money import (
    BudgetStatus,
    BudgetTotals,
    check_child,
    is_over,
    period_name,
    promised,
    total,
)
from greentrain.units import utc_text

_NAMED = 3
"""Number of open reservations that a refusal lists; it counts the others."""
_TOTALS = tuple(field.name for field in fields(BudgetTotals))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A budget in a ledger.

    Args:
        budget_id: Its id.
        name: Its name.
        budget: Its amount, period and end.
        opened: Time at which it was created.
    """

    budget_id: str
    name: str
    budget: Budget
    opened: datetime


def open_budget(store: LedgerStore, name: str, budget: Budget) -> str:
    """Return the id of the budget of this name, and create it if there is none.

    The errors are those of ``Ledger.open_budget``.
    """
    if budget.amount is None:
        raise ConfigurationError(f"the budget {budget} has no amount yet; measure it first")
    with store.write() as connection:
        known = find_terms(connection, name)
        if known is None:
            parent_id = None
            if budget.parent is not None:
                parent_id = _promise(connection, store, name, budget)
            budget_id = str(uuid.uuid4())
            content = {
                "budget_id": budget_id,
                "name": name,
                "parent_id": parent_id,
                "energy_j": budget.energy_j,
                "carbon_g": budget.carbon_g,
                "num_experiences": budget.num_experiences,
                "until_utc": None if budget.until is None else utc_text(budget.until),
                "per": budget.per,
                "carry_over": budget.carry_over,
                "given_as": str(budget),
            }
            store.append(connection, "budget", BUDGET_CHAIN, content)
            return budget_id
    if known.budget != budget:
        raise ConfigurationError(
            f"the ledger {store.name!r} has a budget {name!r} of {_in_words(known.budget)}, and "
            f"{_in_words(budget)} was requested; give the stream another name or another ledger"
        )
    return known.budget_id


def read_terms(connection: Connection, budget_id: str) -> Terms:
    """Return the terms of a budget.

    Raises:
        LedgerError: If there is no such budget.
    """
    row = connection.execute(_TERMS.where(budgets.c.budget_id == budget_id)).mappings().first()
    if row is None:
        raise LedgerError(f"the ledger has no budget {budget_id!r}")
    return terms_of(row, row["parent"])


def find_terms(connection: Connection, name: str) -> Terms | None:
    """Return the terms of the budget of this name; ``None`` if there is none."""
    row = connection.execute(_TERMS.where(budgets.c.name == name)).mappings().first()
    return None if row is None else terms_of(row, row["parent"])


def read_status(connection: Connection, terms: Terms, now: datetime) -> BudgetStatus:
    """Return the status of a budget, in the budget's unit.

    Args:
        connection: Connection of a transaction.
        terms: Terms of the budget.
        now: Its :func:`present` time.
    """
    budget = terms.budget
    children = _children(connection, terms)
    period = period_name(budget, now)
    taken = read_totals(connection, terms.budget_id, period)
    return BudgetStatus(
        unit=budget.unit,
        total=total(budget, opened=terms.opened, now=now),
        taken=taken,
        unsettled=_beyond_reservations(connection, terms, period, taken.open),
        promised=math.fsum(
            promised(budget, child.budget, opened=child.opened, now=now) for child in children
        ),
        overdrawn=math.fsum(read_status(connection, child, now).overdraft for child in children),
        over=is_over(budget, now),
    )


def present(connection: Connection, terms: Terms, now: datetime) -> datetime:
    """Return the present time of a budget, which never goes back to an earlier period.

    A clock that was ahead may have opened a later period. After it was set back, that period goes
    on until it ends: an earlier one would pay a second time.
    """
    if not period_name(terms.budget, now):
        return now
    query = select(func.max(reservations.c.period)).where(
        reservations.c.budget_id == terms.budget_id
    )
    latest = connection.execute(query).scalar()
    return now if latest is None else max(now, datetime.fromisoformat(latest))


def read_totals(connection: Connection, budget_id: str, period: str) -> BudgetTotals:
    """Return the totals of a budget in a period, which its last payment row holds."""
    newest: RowMapping | None = None
    for table in (reservations, settlements):
        query = (
            select(table.c.entry_id, *(table.c[f"sum_{name}"] for name in _TOTALS))
            .where(table.c.budget_id == budget_id, table.c.period == period)
            .order_by(table.c.entry_id.desc())
            .limit(1)
        )
        row = connection.execute(query).mappings().first()
        if row is not None and (newest is None or row["entry_id"] > newest["entry_id"]):
            newest = row
    return BudgetTotals() if newest is None else totals_of(newest)


def totals_of(row: PaymentRow | RowMapping) -> BudgetTotals:
    """Return the totals of a budget after a reservation or a settlement."""
    return BudgetTotals(
        open=row["sum_open"],
        reserved=row["sum_reserved"],
        spent=row["sum_spent"],
        overrun=row["sum_overrun"],
    )


def total_columns(totals: BudgetTotals) -> dict[str, Any]:
    """Return the columns of a reservation or a settlement that hold the totals after it."""
    return {f"sum_{name}": getattr(totals, name) for name in _TOTALS}


def holders(connection: Connection, terms: Terms, now: datetime) -> tuple[str, ...]:
    """Return what is reserved or promised as texts: the newest reservations, then the children."""
    unit = terms.budget.unit
    amount = itemgetter("amount_j" if unit == "J" else "amount_g")
    period = period_name(terms.budget, now)
    columns = (reservations.c.amount_j, reservations.c.amount_g, reservations.c.purpose, runs)
    count = read_totals(connection, terms.budget_id, period).open
    still_open = _open_reservations(terms, period, min(count, _NAMED), *columns).join(
        runs, runs.c.run_id == reservations.c.run_id
    )
    named = [
        f"{format_amount(amount(row), unit)} by the run {row['name']!r} for {row['purpose']}"
        for row in (connection.execute(still_open).mappings() if count else ())
    ]
    if count > len(named):
        named.append(f"{count - len(named)} more")
    for child in _children(connection, terms):
        promise = format_amount(child.budget.amount or 0.0, unit)
        named.append(f"{promise} promised to the budget {child.name!r}")
    return tuple(named)


def _open_reservations(terms: Terms, period: str, count: int, *columns: Any) -> Select[Any]:
    """Return the query of the newest open reservations.

    Args:
        terms: Terms of the budget.
        period: The period.
        count: How many to find. The search ends with the last of them, which are the newest rows
            unless a run was killed, so it does not grow with the ledger.
        *columns: Columns to return.
    """
    return (
        select(*columns)
        .select_from(reservations)
        .outerjoin(settlements, settlements.c.reservation_id == reservations.c.reservation_id)
        .where(
            reservations.c.budget_id == terms.budget_id,
            reservations.c.period == period,
            settlements.c.entry_id.is_(None),
        )
        .order_by(reservations.c.entry_id.desc())
        .limit(count)
    )


def _beyond_reservations(
    connection: Connection, terms: Terms, period: str, still_open: int
) -> float:
    """Return how much the windows of open reservations exceed them, as after a kill."""
    if not still_open:
        return 0.0
    grams = terms.budget.unit == "g"
    reserved = (reservations.c.amount_g if grams else reservations.c.amount_j).label("amount")
    used = func.sum(windows.c.emissions_g if grams else windows.c.energy_j)
    found = _open_reservations(
        terms, period, still_open, reservations.c.reservation_id, reserved
    ).subquery()
    query = (
        select(found.c.amount, used)
        .join(windows, windows.c.reservation_id == found.c.reservation_id)
        .group_by(found.c.reservation_id, found.c.amount)
    )
    return math.fsum(overrun(amount, actual or 0.0) for amount, actual in connection.execute(query))


def terms_of(row: BudgetRow | RowMapping, parent: str | None) -> Terms:
    """Return the terms of a budget.

    Args:
        row: Row of the budget.
        parent: Name of the parent, if there is one.

    Raises:
        LedgerError: If the row holds values that no budget can have.
    """
    try:
        budget = Budget(
            energy_j=row["energy_j"],
            carbon_g=row["carbon_g"],
            num_experiences=row["num_experiences"],
            until=None if row["until_utc"] is None else datetime.fromisoformat(row["until_utc"]),
            per=row["per"],
            carry_over=bool(row["carry_over"]),
            parent=parent,
        )
        opened = datetime.fromisoformat(row["recorded_utc"])
    except (ValueError, TypeError) as error:
        raise LedgerError(f"the budget {row['name']!r} cannot be read: {error}") from None
    return Terms(budget_id=row["budget_id"], name=row["name"], budget=budget, opened=opened)


def budget_exceeded(
    purpose: str,
    terms: Terms,
    status: BudgetStatus,
    requested: float | None,
    held_by: tuple[str, ...],
    *,
    per_j: float | None,
) -> BudgetExceeded:
    """Return the error for an amount that a budget does not have left.

    Args:
        purpose: Purpose of the amount.
        terms: Terms of the budget.
        status: Status of the budget.
        requested: The amount, in the budget's unit; ``None`` for any part of what is left.
        held_by: Texts of :func:`holders`.
        per_j: Amount in the budget's unit for one joule; ``None`` if unknown.
    """
    unit = status.unit
    shares = {"spent": status.spent, "reserved": status.taken.reserved}
    if status.promised:
        shares["promised"] = status.promised
    taken = ", ".join(f"{format_amount(share, unit)} {name}" for name, share in shares.items())
    until = terms.budget.until
    end = f"; it ended at {utc_text(until)}" if status.over and until is not None else ""
    held = f"; held: {', '.join(held_by)}" if held_by else ""
    left, needs = status.left, format_amount(requested, unit)
    if requested is None:  # what is left is rounding
        left, needs = 0.0, f"a part of the budget {terms.name!r}"
    return BudgetExceeded(
        f"{purpose} needs {needs}, and {format_amount(left, unit)} of "
        f"{format_amount(status.total, unit)} are left ({taken}){end}{held}",
        requested_j=None if per_j is None or requested is None else requested / per_j,
        left_j=None if per_j is None else status.left / per_j,
        held_by=held_by,
    )


def _in_words(budget: Budget) -> str:
    return f"{budget}" if budget.parent is None else f"{budget} out of {budget.parent!r}"


def _promise(connection: Connection, store: LedgerStore, name: str, budget: Budget) -> str:
    """Check that the parent can promise a new budget's amount, and return the parent's id."""
    parent = find_terms(connection, budget.parent or "")
    if parent is None or parent.name == name:
        raise ConfigurationError(
            f"the ledger {store.name!r} has no budget {budget.parent!r} to be the parent of "
            f"{name!r}; open the parent first"
        )
    check_child(budget, parent.budget)
    now = present(connection, parent, store.clock())
    status, amount = read_status(connection, parent, now), budget.amount or 0.0
    if budget.per is not None:
        # Each period of the parent has to cover all that is promised again in each period.
        renewed = [child.budget for child in _children(connection, parent) if child.budget.per]
        each = BudgetStatus(
            unit=status.unit,
            total=parent.budget.amount or 0.0,
            promised=math.fsum(child.amount or 0.0 for child in renewed),
        )
        status = min(status, each, key=attrgetter("left"))
    if amount > status.left:
        purpose = f"the budget {name!r} out of {parent.name!r}"
        per_j = 1.0 if status.unit == "J" else None
        held_by = holders(connection, parent, now)
        raise budget_exceeded(purpose, parent, status, amount, held_by, per_j=per_j)
    return parent.budget_id


def _children(connection: Connection, parent: Terms) -> list[Terms]:
    query = _TERMS.where(budgets.c.parent_id == parent.budget_id).order_by(budgets.c.entry_id)
    return [terms_of(row, row["parent"]) for row in connection.execute(query).mappings()]


_PARENTS = budgets.alias("parents")
_TERMS: Select[Any] = (
    select(budgets, entries.c.recorded_utc, _PARENTS.c.name.label("parent"))
    .join(entries, entries.c.id == budgets.c.entry_id)
    .outerjoin(_PARENTS, _PARENTS.c.budget_id == budgets.c.parent_id)
)
