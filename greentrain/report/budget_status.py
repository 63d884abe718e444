"""Budgets: amounts, payments over time, overruns, and whether each budget was kept."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from typing import Any, cast

from greentrain.budget import Unit, overrun
from greentrain.ledger import BudgetRow, ReservationRow, SettlementRow, Terms, terms_of
from greentrain.ledger.budgets import totals_of
from greentrain.money import BudgetStatus, BudgetTotals, period_name, periods, promised, total
from greentrain.report.document import Amounts, BudgetFigures
from greentrain.report.row_helpers import MeasuredWindow, ReportRows, grouped
from greentrain.units import wh

_ROUNDING = 1e-12


def budgets(rows: ReportRows) -> list[BudgetFigures]:
    """Sum up each budget.

    The figures of a budget that is renewed cover all its periods up to its last payment. It was
    kept if each period was.
    """
    reservations = grouped(rows["reservation"], lambda row: row["budget_id"])
    settlements = grouped(rows["settlement"], lambda row: row["budget_id"])
    used = grouped(rows["window"], lambda row: row["reservation_id"])
    measured = _measured(used)
    decided = {row["budget_id"] for row in rows["decision"]}
    terms = _terms(rows["budget"])
    return [
        _budget(
            row,
            terms,
            reservations[row["budget_id"]],
            settlements[row["budget_id"]],
            measured,
            used,
            decided=row["budget_id"] in decided,
        )
        for row in rows["budget"]
    ]


class BudgetHistory:
    """The amount left in every budget of energy after any row of the ledger.

    Args:
        rows: The ledger's rows by kind.
    """

    def __init__(self, rows: ReportRows) -> None:
        self._terms = _terms(rows["budget"])
        self._opened = {row["budget_id"]: row["entry_id"] for row in rows["budget"]}
        both: list[ReservationRow | SettlementRow] = [*rows["reservation"], *rows["settlement"]]
        both.sort(key=itemgetter("entry_id"))
        self._payments = grouped(both, lambda row: row["budget_id"])

    def left_j(self, budget_id: str, entry_id: int) -> float | None:
        """Return the joules left after a row; ``None`` for a budget of carbon or not known."""
        terms = self._terms.get(budget_id)
        if terms is None or terms.budget.unit != "J":
            return None
        payments = self._payments[budget_id]
        count = bisect_right(payments, entry_id, key=itemgetter("entry_id"))
        row = payments[count - 1] if count else None
        now = terms.opened if row is None else datetime.fromisoformat(row["recorded_utc"])
        children = [
            child
            for child in _children(terms, self._terms)
            if self._opened[child.budget_id] <= entry_id
        ]
        taken = BudgetTotals() if row is None else totals_of(row)
        return _status(terms, children, taken, now).left


def _budget(
    row: BudgetRow,
    all_terms: Mapping[str, Terms],
    reservations: Sequence[ReservationRow],
    settlements: Sequence[SettlementRow],
    measured: Mapping[str | None, tuple[float, bool]],
    used: Mapping[str | None, Sequence[MeasuredWindow]],
    *,
    decided: bool,
) -> BudgetFigures:
    terms = all_terms[row["budget_id"]]
    budget, unit, children = terms.budget, terms.budget.unit, _children(terms, all_terms)
    reserved = {one["reservation_id"]: one for one in reservations}
    settled = {one["reservation_id"] for one in settlements}
    still_open = [one for one in reservations if one["reservation_id"] not in settled]
    last = max(
        (
            *(one["recorded_utc"] for one in reservations),
            *(one["recorded_utc"] for one in settlements),
        ),
        default=None,
    )
    now = terms.opened if last is None else datetime.fromisoformat(last)
    beyond = [_beyond(one, unit, used) for one in still_open]
    statuses = {
        name: _status(
            terms,
            children,
            totals,
            now,
            unsettled=math.fsum(
                amount
                for one, amount in zip(still_open, beyond, strict=True)
                if one["period"] == name
            ),
        )
        for name, totals in _by_period(unit, reservations, settlements).items()
    }
    present = statuses.get(period_name(budget, now)) or _status(
        terms, children, BudgetTotals(), now
    )
    count = 1 if budget.per is None else periods(terms.opened, now, budget.per)
    actuals = [_actual(one, unit) for one in settlements]
    amounts = {
        "total": (budget.amount or 0.0) * count if budget.per is not None else present.total,
        "spent": math.fsum([*actuals, *beyond]),
        "reserved": math.fsum(_reserved(one, unit) for one in still_open),
        "promised": present.promised,
        "left": present.left,
        "overrun": math.fsum([*(_overrun(one, unit) for one in settlements), *beyond]),
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
        "charged_unmeasured_j": _charged_unmeasured_j(settlements, measured),
        "overruns": [
            {
                **_payment(one),
                **_purpose(reserved.get(one["reservation_id"])),
                "overrun_j": one["overrun_j"],
                "overrun_g": one["overrun_g"],
            }
            for one in settlements
            if _overrun(one, unit) > 0
        ],
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
        "released": [
            {**_payment(one), "how": one["released"]}
            for one in settlements
            if one["released"] is not None
        ],
        "spending": [
            {"recorded_utc": one["recorded_utc"], f"spent_{unit.lower()}": spent}
            for one, spent in zip(settlements, accumulate(actuals), strict=True)
        ],
    }


def _payment(row: SettlementRow) -> dict[str, Any]:
    return {
        "reservation_id": row["reservation_id"],
        "run_id": row["run_id"],
        "actual_j": row["actual_j"],
        "actual_g": row["actual_g"],
        "recorded_utc": row["recorded_utc"],
    }


def _purpose(row: ReservationRow | None) -> dict[str, Any]:
    if row is None:  # removed from the ledger
        return {"purpose": None, "reserved_j": None, "reserved_g": None}
    return {
        "purpose": row["purpose"],
        "reserved_j": row["amount_j"],
        "reserved_g": row["amount_g"],
    }


def _reserved(row: ReservationRow, unit: Unit) -> float:
    return row["amount_j"] if unit == "J" else row["amount_g"] or 0.0


def _actual(row: SettlementRow, unit: Unit) -> float:
    return (row["actual_j"] if unit == "J" else row["actual_g"]) or 0.0


def _overrun(row: SettlementRow, unit: Unit) -> float:
    return (row["overrun_j"] if unit == "J" else row["overrun_g"]) or 0.0


def _beyond(
    row: ReservationRow, unit: Unit, used: Mapping[str | None, Sequence[MeasuredWindow]]
) -> float:
    """Return how much the windows of an open reservation exceed it, as after a kill."""
    windows = used.get(row["reservation_id"], ())
    known = [one["energy_j"] if unit == "J" else one["emissions_g"] for one in windows]
    return overrun(_reserved(row, unit), math.fsum(one or 0.0 for one in known))


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


def _by_period(
    unit: Unit, reservations: Sequence[ReservationRow], settlements: Sequence[SettlementRow]
) -> dict[str, BudgetTotals]:
    """Sum up the payments of each period, without using the sums in the ledger."""
    paid = {one["reservation_id"]: one for one in settlements}
    totals = {}
    for name, held in grouped(reservations, lambda row: row["period"]).items():
        still_open = [_reserved(one, unit) for one in held if one["reservation_id"] not in paid]
        settled = [
            (_reserved(one, unit), _actual(paid[one["reservation_id"]], unit))
            for one in held
            if one["reservation_id"] in paid
        ]
        totals[name] = BudgetTotals(
            open=len(still_open),
            reserved=math.fsum(still_open),
            spent=math.fsum(actual for _, actual in settled),
            overrun=math.fsum(overrun(amount, actual) for amount, actual in settled),
        )
    return totals


def _in_units(amounts: Mapping[str, float], unit: Unit) -> Amounts:
    """Write amounts with their unit in the name; those in the other unit are ``None``."""
    written: dict[str, float | None] = {}
    for name, amount in amounts.items():
        written[f"{name}_j"] = amount if unit == "J" else None
        if name != "overrun":
            written[f"{name}_wh"] = wh(amount) if unit == "J" else None
        written[f"{name}_g"] = amount if unit == "g" else None
    return cast(Amounts, written)


def _measured(
    used: Mapping[str | None, Sequence[MeasuredWindow]],
) -> dict[str | None, tuple[float, bool]]:
    """Return the measured joules of each reservation, and whether all of it was measured."""
    return {
        reservation_id: (
            math.fsum(window["energy_j"] or 0.0 for window in paid),
            all(window["complete"] for window in paid),
        )
        for reservation_id, paid in used.items()
    }


def _charged_unmeasured_j(
    settlements: Sequence[SettlementRow], measured: Mapping[str | None, tuple[float, bool]]
) -> float:
    """Sum the joules that were charged as reserved because they could not all be measured."""
    charged = []
    for one in settlements:
        known_j, complete = measured.get(one["reservation_id"], (0.0, True))
        if not complete:
            charged.append(max(0.0, (one["actual_j"] or 0.0) - known_j))
    return math.fsum(charged)
