"""The budgets of a ledger: how one is opened, and where it stands inside a transaction."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, select

from greentrain.budget import Budget, format_amount
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    budgets,
    entries,
    reservations,
    runs,
    settlements,
)
from greentrain.ledger.store import Store
from greentrain.money import (
    BudgetStatus,
    BudgetTotals,
    check_child,
    is_over,
    period,
    promised,
    total,
)
from greentrain.units import utc_text

_NAMED = 3
"""Open reservations that a refusal names; it counts the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A budget as the ledger holds it.

    Args:
        budget_id: Its id.
        name: Its name.
        budget: What it allows.
        opened: When it was opened.
    """

    budget_id: str
    name: str
    budget: Budget
    opened: datetime


def open_budget(store: Store, name: str, budget: Budget) -> str:
    """Return the id of the budget of this name, opened now if there is none yet.

    Raises:
        ConfigurationError: If the ledger has another budget of this name, there is no such parent,
            the terms do not go with the parent's, or the amount is not known yet.
        BudgetExceeded: If the parent has less left than it would promise.
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
            f"the ledger {store.name!r} has a budget {name!r} of {_whole(known.budget)}, and "
            f"{_whole(budget)} was asked for; give the stream another name or another ledger"
        )
    return known.budget_id


def read_terms(connection: Connection, budget_id: str) -> Terms:
    """Return what a budget allows.

    Raises:
        LedgerError: If there is no such budget.
    """
    row = connection.execute(_TERMS.where(budgets.c.budget_id == budget_id)).mappings().first()
    if row is None:
        raise LedgerError(f"the ledger has no budget {budget_id!r}")
    return _terms(row)


def find_terms(connection: Connection, name: str) -> Terms | None:
    """Return what the budget of this name allows; ``None`` if there is none."""
    row = connection.execute(_TERMS.where(budgets.c.name == name)).mappings().first()
    return None if row is None else _terms(row)


def read_status(connection: Connection, terms: Terms, now: datetime) -> BudgetStatus:
    """Return where a budget stands, in its own unit."""
    budget = terms.budget
    promises: list[float] = []
    overdrafts: list[float] = []
    for row in connection.execute(_TERMS.where(budgets.c.parent_id == terms.budget_id)).mappings():
        child = _terms(row)
        promises.append(promised(budget, child.budget, opened=child.opened, now=now))
        overdrafts.append(read_status(connection, child, now).overdraft)
    return BudgetStatus(
        unit=budget.unit,
        total=total(budget, opened=terms.opened, now=now),
        taken=read_totals(connection, terms.budget_id, period(budget, now)),
        promised=math.fsum(promises),
        overdrawn=math.fsum(overdrafts),
        over=is_over(budget, now),
    )


def read_totals(connection: Connection, budget_id: str, of_pot: str) -> BudgetTotals:
    """Return what was taken from a pot: the sums that its last row holds."""
    newest: RowMapping | None = None
    for table in (reservations, settlements):
        row = (
            connection.execute(
                select(
                    table.c.entry_id,
                    table.c.sum_open,
                    table.c.sum_reserved,
                    table.c.sum_spent,
                    table.c.sum_overrun,
                )
                .where(table.c.budget_id == budget_id, table.c.period == of_pot)
                .order_by(table.c.entry_id.desc())
                .limit(1)
            )
            .mappings()
            .first()
        )
        if row is not None and (newest is None or row["entry_id"] > newest["entry_id"]):
            newest = row
    return BudgetTotals() if newest is None else tally_of(newest)


def tally_of(row: Any) -> BudgetTotals:
    """Return the sums that a reservation or a settlement holds."""
    return BudgetTotals(
        open=row["sum_open"],
        reserved=row["sum_reserved"],
        spent=row["sum_spent"],
        overrun=row["sum_overrun"],
    )


def sums_of(totals: BudgetTotals) -> dict[str, Any]:
    """Return the columns in which a reservation or a settlement holds the sums after it."""
    return {
        "sum_open": totals.open,
        "sum_reserved": totals.reserved,
        "sum_spent": totals.spent,
        "sum_overrun": totals.overrun,
    }


def holders(connection: Connection, terms: Terms, now: datetime) -> tuple[str, ...]:
    """Say who holds what is reserved or promised: newest first, and how many more there are."""
    unit = terms.budget.unit
    of_pot = period(terms.budget, now)
    still_open = (
        select(reservations.c.amount_j, reservations.c.amount_g, reservations.c.purpose, runs)
        .join(runs, runs.c.run_id == reservations.c.run_id)
        .outerjoin(settlements, settlements.c.reservation_id == reservations.c.reservation_id)
        .where(
            reservations.c.budget_id == terms.budget_id,
            reservations.c.period == of_pot,
            settlements.c.entry_id.is_(None),
        )
        .order_by(reservations.c.entry_id.desc())
        .limit(_NAMED)
    )
    named = []
    count = read_totals(connection, terms.budget_id, of_pot).open
    for row in connection.execute(still_open).mappings() if count else ():
        amount = format_amount(row["amount_j"] if unit == "J" else row["amount_g"], unit)
        named.append(f"{amount} by the run {row['name']!r} for {row['purpose']}")
    if count > len(named):
        named.append(f"{count - len(named)} more")
    children = select(budgets).where(budgets.c.parent_id == terms.budget_id)
    for row in connection.execute(children.order_by(budgets.c.entry_id)).mappings():
        amount = format_amount(row["energy_j"] if unit == "J" else row["carbon_g"], unit)
        named.append(f"{amount} promised to the budget {row['name']!r}")
    return tuple(named)


def exceeded(
    asker: str,
    terms: Terms,
    status: BudgetStatus,
    asked: float,
    held_by: tuple[str, ...],
    *,
    per_j: float | None,
) -> BudgetExceeded:
    """Return the refusal of an amount: what was asked, what is left and who holds the rest.

    Args:
        asker: What asks.
        terms: The budget.
        status: Where it stands.
        asked: The amount, in the budget's unit.
        held_by: Who holds what is not left.
        per_j: The unit's amount in one joule; ``None`` if unknown.
    """
    unit = status.unit
    shares = {"spent": status.spent, "reserved": status.taken.reserved}
    if status.promised:
        shares["promised"] = status.promised
    taken = ", ".join(f"{format_amount(share, unit)} {name}" for name, share in shares.items())
    until = terms.budget.until
    end = f"; it ended at {utc_text(until)}" if status.over and until is not None else ""
    held = f"; held: {', '.join(held_by)}" if held_by else ""
    return BudgetExceeded(
        f"{asker} asks for {format_amount(asked, unit)}, and {format_amount(status.left, unit)} "
        f"of {format_amount(status.total, unit)} are left ({taken}){end}{held}",
        asked_j=None if per_j is None else asked / per_j,
        left_j=None if per_j is None else status.left / per_j,
        held_by=held_by,
    )


def _whole(budget: Budget) -> str:
    return f"{budget}" if budget.parent is None else f"{budget} out of {budget.parent!r}"


def _promise(connection: Connection, store: Store, name: str, budget: Budget) -> str:
    """Check that a parent can promise a new budget's amount, and return the parent's id."""
    now = store.clock()
    parent = find_terms(connection, budget.parent or "")
    if parent is None or parent.name == name:
        raise ConfigurationError(
            f"the ledger {store.name!r} has no budget {budget.parent!r} to be the parent of "
            f"{name!r}; open that one first"
        )
    check_child(budget, parent.budget)
    status, amount = read_status(connection, parent, now), budget.amount or 0.0
    if budget.per is not None:
        # Each period of the parent has to bear all that is promised anew in each.
        each = BudgetStatus(
            unit=status.unit,
            total=parent.budget.amount or 0.0,
            promised=_renewed(connection, parent),
        )
        status = min(status, each, key=attrgetter("left"))
    if amount > status.left:
        asker = f"the budget {name!r} out of {parent.name!r}"
        per_j = 1.0 if status.unit == "J" else None
        held_by = holders(connection, parent, now)
        raise exceeded(asker, parent, status, amount, held_by, per_j=per_j)
    return parent.budget_id


def _renewed(connection: Connection, parent: Terms) -> float:
    rows = connection.execute(_TERMS.where(budgets.c.parent_id == parent.budget_id)).mappings()
    children = [_terms(row).budget for row in rows]
    return math.fsum(child.amount or 0.0 for child in children if child.per is not None)


_PARENTS = budgets.alias("parents")
_TERMS: Select[Any] = (
    select(budgets, entries.c.recorded_utc, _PARENTS.c.name.label("parent"))
    .join(entries, entries.c.id == budgets.c.entry_id)
    .outerjoin(_PARENTS, _PARENTS.c.budget_id == budgets.c.parent_id)
)


def _terms(row: RowMapping) -> Terms:
    return terms_of(row, row["parent"])


def terms_of(row: Any, parent: str | None) -> Terms:
    """Return what a budget's row allows.

    Args:
        row: The row, with ``recorded_utc``.
        parent: Name of its parent, where it has one.

    Raises:
        LedgerError: If the row holds what no budget can be.
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
