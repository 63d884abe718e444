"""Budgets: amounts, payments over time, overruns, and whether each budget was kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import cast

from greentrain.budget import Unit
from greentrain.ledger import BudgetRow, ReservationRow, SettlementRow, Terms, terms_of
from greentrain.money import BudgetStatus, BudgetTotals, period_name, periods, promised, total
from greentrain.report.budget_figures import Amounts, BudgetFigures
from greentrain.report.budget_payments import BudgetPayments, PaidWindows
from greentrain.report.limits import thinned
from greentrain.units import wh

_ROUNDING = 1e-12


def read_payments(
    rows: Sequence[BudgetRow],
    payments: Iterable[ReservationRow | SettlementRow],
    paid: Mapping[str, PaidWindows],
) -> dict[str, BudgetPayments]:
    """Read the payments from budgets, by id of the budget.

    Args:
        rows: The budgets.
        payments: Reservations and settlements, in the order recorded.
        paid: The windows of each reservation.
    """
    found = {
        row["budget_id"]: BudgetPayments("J" if row["carbon_g"] is None else "g", paid)
        for row in rows
    }
    for row in payments:
        if (of_budget := found.get(row["budget_id"])) is not None:
            if "purpose" in row:
                of_budget.reservation(cast(ReservationRow, row))
            else:
                of_budget.settlement(row)
    return found


def budgets(
    rows: Sequence[BudgetRow], payments: Mapping[str, BudgetPayments], decided: Collection[str]
) -> list[BudgetFigures]:
    """Sum up each budget.

    The figures of a budget that is renewed cover all its periods up to its last payment. It was
    kept if each period was.

    Args:
        rows: The budgets.
        payments: The payments from each, see :func:`read_payments`.
        decided: Ids of the budgets that decisions were made about.
    """
    terms = _terms(rows)
    return [
        _budget(row, terms, payments[row["budget_id"]], decided=row["budget_id"] in decided)
        for row in rows
    ]


class BudgetHistory:
    """The amount left in every budget of energy after any row of the ledger.

    Args:
        rows: The budgets.
        payments: The payments from each, see :func:`read_payments`.
    """

    def __init__(self, rows: Sequence[BudgetRow], payments: Mapping[str, BudgetPayments]) -> None:
        self._terms = _terms(rows)
        self._opened = {row["budget_id"]: row["entry_id"] for row in rows}
        self._payments = payments
        self._children = {
            budget_id: _children(terms, self._terms) for budget_id, terms in self._terms.items()
        }

    def left_j(
        self, budget_id: str, entry_id: int, reservation_id: str | None = None
    ) -> float | None:
        """Return the joules that are not spent after a payment, open reservations not subtracted.

        Rows of decisions and outcomes may wait, and be written after payments for later
        experiences. So the amount after an experience is that after its own settlement.

        Args:
            budget_id: The budget.
            entry_id: The row of the ledger, if there is no settlement of the reservation.
            reservation_id: The reservation that paid, if there is one.

        Returns:
            ``None`` for a budget of carbon or one that is not known.
        """
        terms = self._terms.get(budget_id)
        if terms is None or terms.budget.unit != "J":
            return None
        payments = self._payments[budget_id]
        entry_id = payments.settled.get(reservation_id or "", entry_id)
        taken, now = payments.after(entry_id) or (BudgetTotals(), terms.opened)
        children = [
            child
            for child in self._children[budget_id]
            if self._opened[child.budget_id] <= entry_id
        ]
        return _status(terms, children, replace(taken, open=0, reserved=0.0), now).left


def _budget(
    row: BudgetRow, all_terms: Mapping[str, Terms], payments: BudgetPayments, *, decided: bool
) -> BudgetFigures:
    terms = all_terms[row["budget_id"]]
    budget, unit, children = terms.budget, terms.budget.unit, _children(terms, all_terms)
    still_open = list(payments.still_open.values())
    last = payments.last_utc
    now = terms.opened if last is None else datetime.fromisoformat(last)
    beyond = [payments.beyond(one) for one in still_open]
    statuses = {
        name: _status(
            terms,
            children,
            payments.totals(name),
            now,
            unsettled=math.fsum(
                amount
                for one, amount in zip(still_open, beyond, strict=True)
                if one["period"] == name
            ),
        )
        for name in payments.periods
    }
    present = statuses.get(period_name(budget, now)) or _status(
        terms, children, BudgetTotals(), now
    )
    count = 1 if budget.per is None else periods(terms.opened, now, budget.per)
    amounts = {
        "total": (budget.amount or 0.0) * count if budget.per is not None else present.total,
        "spent": payments.spent.plus(beyond),
        "reserved": math.fsum(payments.reserved(one) for one in still_open),
        "promised": present.promised,
        "left": present.left,
        "overrun": payments.overrun.plus(beyond),
    }
    return {
        "budget_id": row["budget_id"],
        "name": row["name"],
        "given_as": row["given_as"],
        "unit": unit,
        "num_experiences": row["num_experiences"],
        "per": budget.per,
        "carry_over": budget.carry_over,
        "periods": count,
        "until_utc": row["until_utc"],
        "parent": budget.parent,
        "opened_utc": row["recorded_utc"],
        "pays_for_updates": decided,
        **_in_units(amounts, unit),
        # Stricter than the rules of the budget, which forgive overruns: here they count as spent.
        "kept": all(
            one.spent + one.taken.reserved + one.promised <= one.total * (1 + _ROUNDING)
            for one in (*statuses.values(), present)
        ),
        "charged_unmeasured_j": payments.charged_unmeasured.number,
        "overruns": payments.overruns,
        "open_reservations": [
            {
                "reservation_id": one["reservation_id"],
                "run_id": one["run_id"],
                "purpose": one["purpose"],
                "amount_j": one["amount_j"],
                "amount_g": one["amount_g"],
                "recorded_utc": one["recorded_utc"],
            }
            for one in still_open
        ],
        "released": payments.released,
        "spending": [
            {"recorded_utc": moment, f"spent_{unit.lower()}": spent}
            for moment, spent in thinned(payments.spending)
        ],
    }


def _terms(rows: Sequence[BudgetRow]) -> dict[str, Terms]:
    names: dict[str | None, str] = {row["budget_id"]: row["name"] for row in rows}
    return {row["budget_id"]: terms_of(row, names.get(row["parent_id"])) for row in rows}


def _children(parent: Terms, all_terms: Mapping[str, Terms]) -> list[Terms]:
    return [terms for terms in all_terms.values() if terms.budget.parent == parent.name]


def _status(
    terms: Terms,
    children: Sequence[Terms],
    taken: BudgetTotals,
    now: datetime,
    *,
    unsettled: float = 0.0,
) -> BudgetStatus:
    budget = terms.budget
    return BudgetStatus(
        unit=budget.unit,
        total=total(budget, opened=terms.opened, now=now),
        taken=taken,
        unsettled=unsettled,
        promised=math.fsum(
            promised(budget, child.budget, opened=child.opened, now=now) for child in children
        ),
    )


def _in_units(amounts: Mapping[str, float], unit: Unit) -> Amounts:
    """Write amounts with their unit in the name; those in the other unit are ``None``."""
    written: dict[str, float | None] = {}
    for name, amount in amounts.items():
        written[f"{name}_j"] = amount if unit == "J" else None
        if name != "overrun":
            written[f"{name}_wh"] = wh(amount) if unit == "J" else None
        written[f"{name}_g"] = amount if unit == "g" else None
    return cast(Amounts, written)
