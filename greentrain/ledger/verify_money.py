"""Recompute the money of a ledger: the rules, and that settlements are what was measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from greentrain.budget import Unit, format_amount, overrun
from greentrain.errors import GreentrainError
from greentrain.ledger.budgets import Terms, tally_of, terms_of
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.release import GIVEN, RECOVERED, drawn
from greentrain.money import (
    BudgetStatus,
    BudgetTotals,
    check_child,
    is_over,
    period,
    promised,
    total,
)

_KINDS = ("budget", "reservation", "settlement")
_TOLERANCE = 1e-9
_WRITING = timedelta(minutes=1)
"""How much later than it was decided a reservation may be dated: its transaction takes a while."""
Row = Mapping[str, Any]
Rows = Sequence[Row]


def money_failures(spine: Rows, rows: Mapping[str, Rows]) -> Iterator[str]:
    """Yield what breaks the money rules, one sentence each.

    Args:
        spine: The entries.
        rows: The content of every kind of entry, in order.
    """
    books = _Books()
    recorded = {entry["id"]: entry["recorded_utc"] for entry in spine if entry["kind"] in _KINDS}
    events = [(row["entry_id"], kind, row) for kind in _KINDS for row in rows[kind]]
    for entry_id, kind, row in sorted(events, key=itemgetter(0)):
        dated = {**row, "recorded_utc": recorded.get(entry_id, "")}
        try:
            yield from books.enter(kind, dated, f"entry {entry_id}")
        except (GreentrainError, ValueError, KeyError, TypeError) as error:
            yield f"entry {entry_id}: {error}"
    yield from _sums(rows)


def money_notes(rows: Mapping[str, Rows]) -> Iterator[str]:
    """Yield what keeps the rules and should be known: overruns, open and unmeasured payments."""
    settled = {row["reservation_id"] for row in rows["settlement"]}
    measured = {row["reservation_id"] for row in rows["window"]}
    for row in rows["settlement"]:
        unit, actual, beyond = _settled(row)
        if row["released"] is not None:
            yield (
                f"released: {row['reservation_id']} was settled at {format_amount(actual, unit)} "
                f"({row['released']}) after its run had died"
            )
        elif row["reservation_id"] not in measured:
            yield (
                f"given: {row['reservation_id']} was settled at {format_amount(actual, unit)} "
                "and has no windows that show it"
            )
        if beyond > 0:
            yield (
                f"overrun: {row['reservation_id']} drew {format_amount(beyond, unit)} more "
                "than was reserved"
            )
    for row in rows["reservation"]:
        if row["reservation_id"] not in settled:
            unit, amount = _reserved(row)
            yield (
                f"open: {format_amount(amount, unit)} reserved for {row['purpose']} were never "
                "settled and count as spent"
            )


class _Books:
    """The budgets as they stand after each row: the rules applied once more."""

    def __init__(self) -> None:
        self._terms: dict[str, Terms] = {}
        self._parents: dict[str, str] = {}
        self._children: dict[str, list[Terms]] = defaultdict(list)
        self._tallies: dict[tuple[str, str], BudgetTotals] = {}
        self._open: dict[str, Row] = {}

    def enter(self, kind: str, row: Row, entry: str) -> Iterator[str]:
        """Enter a row, and yield what is wrong with it."""
        if kind == "budget":
            yield from self._budget(row, entry)
        elif row["budget_id"] not in self._terms:
            yield f"{entry}: a {kind} from the budget {row['budget_id']}, which was removed"
        elif kind == "reservation":
            yield from self._reservation(row, entry)
        else:
            yield from self._settlement(row, entry)

    def _budget(self, row: Row, entry: str) -> Iterator[str]:
        parent = None if row["parent_id"] is None else self._terms.get(row["parent_id"])
        if row["parent_id"] is not None and parent is None:
            yield f"{entry}: the parent of the budget {row['budget_id']} was removed"
        terms = terms_of(row, None if parent is None else parent.name)
        self._terms[terms.budget_id] = terms
        if parent is None:
            return
        check_child(terms.budget, parent.budget)
        self._children[parent.budget_id].append(terms)
        yield from self._over(parent, period(parent.budget, terms.opened), terms.opened, entry)
        renewed = [
            child.budget.amount or 0.0
            for child in self._children[parent.budget_id]
            if child.budget.per is not None
        ]
        if math.fsum(renewed) > (parent.budget.amount or 0.0) * (1 + _TOLERANCE):
            yield f"{entry}: the budget {parent.budget_id} promises more than a period has"

    def _reservation(self, row: Row, entry: str) -> Iterator[str]:
        terms = self._terms[row["budget_id"]]
        unit, amount = _reserved(row)
        made = datetime.fromisoformat(row["recorded_utc"])
        yield from _wrong_unit(row, terms, unit, entry)
        if row["period"] not in (period(terms.budget, made), period(terms.budget, made - _WRITING)):
            yield f"{entry}: was not taken from the period in which it was made"
        if is_over(terms.budget, made - _WRITING):
            yield f"{entry}: was reserved after the end of the budget {terms.budget_id}"
        self._open[row["reservation_id"]] = row
        place = (terms.budget_id, row["period"])
        self._tallies[place] = self._tallies.get(place, BudgetTotals()).reserve(amount)
        yield from self._wrong_sums(row, entry)
        yield from self._over(terms, row["period"], made, entry)

    def _settlement(self, row: Row, entry: str) -> Iterator[str]:
        reservation = self._open.pop(row["reservation_id"], None)
        if reservation is None:
            yield f"the settlement of {row['reservation_id']} has no open reservation"
            return
        same = ("budget_id", "period", "run_id")
        if any(row[name] != reservation[name] for name in same):
            yield f"{entry}: the settlement of {row['reservation_id']} is not of its reservation"
        unit, actual, beyond = _settled(row)
        amount = _reserved(reservation)[1]
        if not math.isclose(overrun(amount, actual), beyond, abs_tol=_TOLERANCE):
            yield f"the overrun of {row['reservation_id']} is not what it should be"
        yield from _wrong_unit(row, self._terms[row["budget_id"]], unit, entry)
        place = (row["budget_id"], row["period"])
        self._tallies[place] = self._tallies.get(place, BudgetTotals()).settle(amount, actual)
        yield from self._wrong_sums(row, entry)

    def _wrong_sums(self, row: Row, entry: str) -> Iterator[str]:
        should, held = self._tallies[row["budget_id"], row["period"]], tally_of(row)
        alike = (
            math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
            for one, other in (
                (should.reserved, held.reserved),
                (should.spent, held.spent),
                (should.overrun, held.overrun),
            )
        )
        if should.open != held.open or not all(alike):
            yield f"{entry}: its sums over the budget {row['budget_id']} do not follow"

    def _over(self, terms: Terms, of_pot: str, now: datetime, entry: str) -> Iterator[str]:
        budget = terms.budget
        status = BudgetStatus(
            unit=budget.unit,
            total=total(budget, opened=terms.opened, now=now),
            taken=self._tallies.get((terms.budget_id, of_pot), BudgetTotals()),
            promised=math.fsum(
                promised(budget, child.budget, opened=child.opened, now=now)
                for child in self._children[terms.budget_id]
            ),
        )
        if not status.within:
            counted = status.balance()
            taken = counted.spent_j - counted.overrun_j + counted.reserved_j + counted.promised_j
            yield (
                f"after {entry} the budget {terms.budget_id} has "
                f"{format_amount(taken, budget.unit)} spent, reserved and promised of "
                f"{format_amount(status.total, budget.unit)}"
            )


def _sums(rows: Mapping[str, Rows]) -> Iterator[str]:
    windows: dict[str, list[Row]] = defaultdict(list)
    for window in rows["window"]:
        windows[window["reservation_id"]].append(window)
    for settlement in rows["settlement"]:
        of_it: Rows = windows[settlement["reservation_id"]]
        if settlement["released"] == RECOVERED:
            of_it = _as_released(rows, settlement)
        elif settlement["released"] == GIVEN:
            continue
        unit, actual, _ = _settled(settlement)
        sums = drawn(of_it, unit)
        if sums is None:
            continue  # as given, or at its reservation because not everything could be measured
        measured = (sums[0] if unit == "J" else sums[1]) or 0.0
        if not math.isclose(measured, actual, rel_tol=_TOLERANCE, abs_tol=1e-9):
            yield (
                f"the settlement of {settlement['reservation_id']} is "
                f"{actual:g} {unit} and its windows sum to {measured:g} {unit}"
            )


def _as_released(rows: Mapping[str, Rows], settlement: Row) -> list[dict[str, Any]]:
    """Return what was there to be recovered when a reservation was released."""
    until = [
        [
            row
            for row in rows[kind]
            if row["run_id"] == settlement["run_id"] and row["entry_id"] < settlement["entry_id"]
        ]
        for kind in ("window", "heartbeat", "closing")
    ]
    reservation = settlement["reservation_id"]
    return [row for row in with_recovered(*until) if row["reservation_id"] == reservation]


def _wrong_unit(row: Row, terms: Terms, unit: Unit, entry: str) -> Iterator[str]:
    if unit != terms.budget.unit:
        yield f"{entry}: is of {unit} and its budget {terms.budget_id} of {terms.budget.unit}"


def _reserved(row: Row) -> tuple[Unit, float]:
    """Return what a reservation is of, and its amount."""
    return ("J", row["amount_j"]) if row["amount_g"] is None else ("g", row["amount_g"])


def _settled(row: Row) -> tuple[Unit, float, float]:
    """Return what a settlement is of, its amount and its overrun."""
    if row["actual_g"] is None:
        return "J", row["actual_j"] or 0.0, row["overrun_j"] or 0.0
    return "g", row["actual_g"], row["overrun_g"] or 0.0
