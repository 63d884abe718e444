"""Budgets: what was paid from each, when, and whether it was kept."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from typing import Any

from greentrain.budget import Unit, overrun
from greentrain.ledger import Terms, terms_of
from greentrain.money import BudgetStatus, BudgetTotals, period, periods, promised, total
from greentrain.report.row_helpers import Row, Rows
from greentrain.units import wh

_ROUNDING = 1e-12
_Pots = dict[str, BudgetTotals]


def budgets(rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Sum up each budget: amount, spent, reserved, left, overruns and spending over time.

    A budget that is renewed is summed up over its periods so far, up to its last payment; it is
    kept if each was.
    """
    reservations, settlements = _by_budget(rows["reservation"]), _by_budget(rows["settlement"])
    measured = _measured(rows["window"])
    decided = {row["budget_id"] for row in rows["decision"]}
    terms = _terms(rows["budget"])
    return [
        _budget(
            row,
            terms,
            reservations[row["budget_id"]],
            settlements[row["budget_id"]],
            measured,
            decided=row["budget_id"] in decided,
        )
        for row in rows["budget"]
    ]


class BudgetHistory:
    """What was left of every budget of energy after any row of the ledger.

    Args:
        rows: The ledger's rows by kind.
    """

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        self._terms = _terms(rows["budget"])
        self._opened = {row["budget_id"]: row["entry_id"] for row in rows["budget"]}
        self._payments: dict[str, list[Row]] = defaultdict(list)
        both = sorted([*rows["reservation"], *rows["settlement"]], key=itemgetter("entry_id"))
        for row in both:
            self._payments[row["budget_id"]].append(row)
        self._entries = {
            budget_id: [row["entry_id"] for row in of_it]
            for budget_id, of_it in self._payments.items()
        }

    def left_j(self, budget_id: str, entry_id: int) -> float | None:
        """Return the joules left after a row; ``None`` for a budget of carbon or not known."""
        terms = self._terms.get(budget_id)
        if terms is None or terms.budget.unit != "J":
            return None
        count = bisect_right(self._entries.get(budget_id, []), entry_id)
        row = self._payments[budget_id][count - 1] if count else None
        now = terms.opened if row is None else datetime.fromisoformat(row["recorded_utc"])
        promises = [
            promised(terms.budget, child.budget, opened=child.opened, now=now)
            for child in _children(terms, self._terms)
            if self._opened[child.budget_id] <= entry_id
        ]
        taken = BudgetTotals() if row is None else _tally(row)
        held = total(terms.budget, opened=terms.opened, now=now)
        return BudgetStatus(unit="J", total=held, taken=taken, promised=math.fsum(promises)).left


def _budget(
    row: Row,
    all_terms: Mapping[str, Terms],
    reservations: list[Row],
    settlements: list[Row],
    measured: Mapping[str, tuple[float, bool]],
    *,
    decided: bool,
) -> dict[str, Any]:
    terms = all_terms[row["budget_id"]]
    budget, unit = terms.budget, terms.budget.unit
    reserved = {one["reservation_id"]: one for one in reservations}
    settled = {one["reservation_id"] for one in settlements}
    still_open = [one for one in reservations if one["reservation_id"] not in settled]
    by_period = _pots(unit, reservations, settlements)
    last = max((one["recorded_utc"] for one in (*reservations, *settlements)), default=None)
    now = terms.opened if last is None else datetime.fromisoformat(last)
    standings = {
        name: _standing(terms, all_terms, totals, now) for name, totals in by_period.items()
    }
    present = standings.get(period(budget, now)) or _standing(terms, all_terms, BudgetTotals(), now)
    count = 1 if budget.per is None else periods(terms.opened, now, budget.per)
    amounts = {
        "total": (budget.amount or 0.0) * count if budget.per is not None else present.total,
        "spent": math.fsum(one[f"actual_{_of(unit)}"] or 0.0 for one in settlements),
        "reserved": math.fsum(one[f"amount_{_of(unit)}"] for one in still_open),
        "promised": present.promised,
        "left": present.left,
        "overrun": math.fsum(one[f"overrun_{_of(unit)}"] or 0.0 for one in settlements),
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
        # Stricter than the money rule, which forgives overruns: here they count as spent.
        "kept": all(
            one.spent + one.taken.reserved + one.promised <= one.total * (1 + _ROUNDING)
            for one in (*standings.values(), present)
        ),
        "charged_unmeasured_j": _charged_unmeasured_j(settlements, measured),
        "overruns": [
            {
                "reservation_id": one["reservation_id"],
                "run_id": one["run_id"],
                "purpose": reserved.get(one["reservation_id"], {}).get("purpose"),
                "reserved_j": reserved.get(one["reservation_id"], {}).get("amount_j"),
                "reserved_g": reserved.get(one["reservation_id"], {}).get("amount_g"),
                **{name: one[name] for name in ("actual_j", "actual_g", "overrun_j", "overrun_g")},
                "recorded_utc": one["recorded_utc"],
            }
            for one in settlements
            if (one[f"overrun_{_of(unit)}"] or 0.0) > 0
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
            {
                "reservation_id": one["reservation_id"],
                "run_id": one["run_id"],
                "how": one["released"],
                "actual_j": one["actual_j"],
                "actual_g": one["actual_g"],
                "recorded_utc": one["recorded_utc"],
            }
            for one in settlements
            if one["released"] is not None
        ],
        "spending": [
            {"recorded_utc": one["recorded_utc"], f"spent_{_of(unit)}": spent}
            for one, spent in zip(
                settlements,
                accumulate(one[f"actual_{_of(unit)}"] or 0.0 for one in settlements),
                strict=True,
            )
        ],
    }


def _terms(rows: Rows) -> dict[str, Terms]:
    names = {row["budget_id"]: row["name"] for row in rows}
    return {row["budget_id"]: terms_of(row, names.get(row["parent_id"])) for row in rows}


def _children(parent: Terms, all_terms: Mapping[str, Terms]) -> list[Terms]:
    return [terms for terms in all_terms.values() if terms.budget.parent == parent.name]


def _standing(
    terms: Terms, all_terms: Mapping[str, Terms], taken: BudgetTotals, now: datetime
) -> BudgetStatus:
    budget = terms.budget
    return BudgetStatus(
        unit=budget.unit,
        total=total(budget, opened=terms.opened, now=now),
        taken=taken,
        promised=math.fsum(
            promised(budget, child.budget, opened=child.opened, now=now)
            for child in _children(terms, all_terms)
        ),
    )


def _pots(unit: Unit, reservations: list[Row], settlements: list[Row]) -> _Pots:
    """Sum up afresh what was taken from each pot: the sums that the ledger holds are not used."""
    paid = {one["reservation_id"]: one for one in settlements}
    taken: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
    for one in reservations:
        settlement = paid.get(one["reservation_id"])
        actual = None if settlement is None else settlement[f"actual_{_of(unit)}"] or 0.0
        taken[one["period"]].append((one[f"amount_{_of(unit)}"], actual))
    return {
        name: BudgetTotals(
            open=sum(actual is None for _, actual in of_it),
            reserved=math.fsum(amount for amount, actual in of_it if actual is None),
            spent=math.fsum(actual for _, actual in of_it if actual is not None),
            overrun=math.fsum(
                overrun(amount, actual) for amount, actual in of_it if actual is not None
            ),
        )
        for name, of_it in taken.items()
    }


def _in_units(amounts: Mapping[str, float], unit: Unit) -> dict[str, float | None]:
    """Write amounts with their unit in the name; those in the other unit are unknown."""
    written: dict[str, float | None] = {}
    for name, amount in amounts.items():
        written[f"{name}_j"] = amount if unit == "J" else None
        if name != "overrun":
            written[f"{name}_wh"] = wh(amount) if unit == "J" else None
        written[f"{name}_g"] = amount if unit == "g" else None
    return written


def _of(unit: Unit) -> str:
    return unit.lower()


def _tally(row: Row) -> BudgetTotals:
    return BudgetTotals(
        open=row["sum_open"],
        reserved=row["sum_reserved"],
        spent=row["sum_spent"],
        overrun=row["sum_overrun"],
    )


def _by_budget(rows: Rows) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["budget_id"]].append(row)
    return grouped


def _measured(windows: Rows) -> dict[str, tuple[float, bool]]:
    """Return the measured joules of each reservation, and whether all of it was measured."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for window in windows:
        if window["reservation_id"] is not None:
            grouped[window["reservation_id"]].append(window)
    return {
        reservation_id: (
            math.fsum(window["energy_j"] or 0.0 for window in of_it),
            all(window["complete"] for window in of_it),
        )
        for reservation_id, of_it in grouped.items()
    }


def _charged_unmeasured_j(
    settlements: list[Row], measured: Mapping[str, tuple[float, bool]]
) -> float:
    """Joules that were charged because they were reserved and could not be measured in full."""
    charged = []
    for one in settlements:
        known_j, complete = measured.get(one["reservation_id"], (0.0, True))
        if not complete:
            charged.append(max(0.0, (one["actual_j"] or 0.0) - known_j))
    return math.fsum(charged)
