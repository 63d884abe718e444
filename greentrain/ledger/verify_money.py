"""Check the budgets of a ledger: apply the rules again, and compare settlements with windows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter

from greentrain.budget import Unit, format_amount, overrun
from greentrain.errors import GreentrainError
from greentrain.ledger.budgets import Terms, terms_of, totals_of
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.release import GIVEN, RECOVERED, measured_amount
from greentrain.ledger.rows import (
    BudgetRow,
    EntryRow,
    PaymentRow,
    RecoveredWindowRow,
    ReservationRow,
    RowsByKind,
    SettlementRow,
    WindowRow,
)
from greentrain.money import (
    BudgetStatus,
    BudgetTotals,
    check_child,
    is_over,
    period_name,
    promised,
    total,
)
from greentrain.units import format_energy

_TOLERANCE = 1e-9
_WRITING = timedelta(minutes=1)
"""Time that may pass between a decision to reserve and the date of its row."""


def money_failures(rows: RowsByKind) -> Iterator[str]:
    """Yield each violation of the rules for budgets, as one sentence."""
    check = _BudgetCheck()
    steps: list[tuple[int, Callable[[str], Iterator[str]]]] = [
        *((row["entry_id"], partial(check.budget, row)) for row in rows["budget"]),
        *((row["entry_id"], partial(check.reservation, row)) for row in rows["reservation"]),
        *((row["entry_id"], partial(check.settlement, row)) for row in rows["settlement"]),
    ]
    for entry_id, step in sorted(steps, key=itemgetter(0)):
        entry = f"entry {entry_id}"
        try:
            yield from step(entry)
        except (GreentrainError, ValueError, KeyError, TypeError) as error:
            yield f"{entry}: {error}"
    yield from _sums(rows)


def money_notes(rows: RowsByKind) -> Iterator[str]:
    """Yield remarks on payments that follow the rules: overruns, open and unmeasured payments."""
    settled = {row["reservation_id"] for row in rows["settlement"]}
    by_reservation = _by_reservation(rows)
    for payment in rows["settlement"]:
        unit, actual, beyond = _settled(payment)
        settled_at = f"{payment['reservation_id']} was settled at {format_amount(actual, unit)}"
        if payment["released"] is not None:
            yield f"released: {settled_at} ({payment['released']}) after its run had died"
        elif payment["reservation_id"] not in by_reservation:
            yield f"given: {settled_at} and has no windows to compare with"
        if payment["released"] is not None:
            late = [
                window
                for window in by_reservation.get(payment["reservation_id"], ())
                if window["entry_id"] > payment["entry_id"]
            ]
            if late:
                yield (
                    f"late: {len(late)} window(s) with {format_amount(_known(late, unit), unit)} "
                    f"of {payment['reservation_id']} were recorded after it was released"
                )
        if beyond > 0:
            yield (
                f"overrun: {payment['reservation_id']} used {format_amount(beyond, unit)} more "
                "than was reserved"
            )
    for row in rows["reservation"]:
        if row["reservation_id"] not in settled:
            unit, amount = _reserved(row)
            yield (
                f"open: {format_amount(amount, unit)} reserved for {row['purpose']} were never "
                "settled and count as spent"
            )
            beyond = overrun(amount, _known(by_reservation.get(row["reservation_id"], ()), unit))
            if beyond > 0:
                yield (
                    f"overrun: {row['reservation_id']} is open, and its windows hold "
                    f"{format_amount(beyond, unit)} more than was reserved"
                )


class _BudgetCheck:
    """The budgets after each row; each method adds the next row, and yields its violations."""

    def __init__(self) -> None:
        self._terms: dict[str, Terms] = {}
        self._children: dict[str, list[Terms]] = defaultdict(list)
        self._totals: dict[tuple[str, str], BudgetTotals] = defaultdict(BudgetTotals)
        self._open: dict[str, ReservationRow] = {}
        self._latest: dict[str, str] = defaultdict(str)

    def budget(self, row: BudgetRow, entry: str) -> Iterator[str]:
        """Add the terms of a budget."""
        parent = None if row["parent_id"] is None else self._terms.get(row["parent_id"])
        if row["parent_id"] is not None and parent is None:
            yield f"{entry}: the parent of the budget {row['budget_id']} was removed"
        terms = terms_of(row, None if parent is None else parent.name)
        self._terms[terms.budget_id] = terms
        if parent is None:
            return
        check_child(terms.budget, parent.budget)
        self._children[parent.budget_id].append(terms)
        yield from self._over(parent, period_name(parent.budget, terms.opened), terms.opened, entry)
        renewed = [
            child.budget.amount or 0.0
            for child in self._children[parent.budget_id]
            if child.budget.per is not None
        ]
        if math.fsum(renewed) > (parent.budget.amount or 0.0) * (1 + _TOLERANCE):
            yield f"{entry}: the budget {parent.budget_id} promises more than a period has"

    def reservation(self, row: ReservationRow, entry: str) -> Iterator[str]:
        """Add a reservation."""
        terms = self._terms.get(row["budget_id"])
        if terms is None:
            yield f"{entry}: a reservation from the budget {row['budget_id']}, which was removed"
            return
        unit, amount = _reserved(row)
        made = datetime.fromisoformat(row["recorded_utc"])
        yield from _wrong_unit(row, terms, unit, entry)
        latest = self._latest[terms.budget_id] = max(
            self._latest[terms.budget_id], period_name(terms.budget, made - _WRITING)
        )
        if row["period"] not in (latest, max(latest, period_name(terms.budget, made))):
            yield f"{entry}: was not taken from the period in which it was made"
        if is_over(terms.budget, made - _WRITING):
            yield f"{entry}: was reserved after the end of the budget {terms.budget_id}"
        self._latest[terms.budget_id] = max(latest, row["period"])
        self._open[row["reservation_id"]] = row
        place = (terms.budget_id, row["period"])
        self._totals[place] = self._totals[place].reserve(amount)
        yield from self._wrong_sums(row, entry)
        yield from self._over(terms, row["period"], made, entry)

    def settlement(self, row: SettlementRow, entry: str) -> Iterator[str]:
        """Add a settlement."""
        terms = self._terms.get(row["budget_id"])
        if terms is None:
            yield f"{entry}: a settlement from the budget {row['budget_id']}, which was removed"
            return
        reservation = self._open.pop(row["reservation_id"], None)
        if reservation is None:
            yield f"the settlement of {row['reservation_id']} has no open reservation"
            return
        same = itemgetter("budget_id", "period", "run_id")
        if same(row) != same(reservation):
            yield f"{entry}: the settlement of {row['reservation_id']} is not of its reservation"
        unit, actual, beyond = _settled(row)
        amount = _reserved(reservation)[1]
        if not math.isclose(overrun(amount, actual), beyond, abs_tol=_TOLERANCE):
            yield f"the overrun of {row['reservation_id']} is not what it should be"
        yield from _wrong_unit(row, terms, unit, entry)
        place = (row["budget_id"], row["period"])
        self._totals[place] = self._totals[place].settle(amount, actual)
        yield from self._wrong_sums(row, entry)

    def _wrong_sums(self, row: PaymentRow, entry: str) -> Iterator[str]:
        expected, held = self._totals[row["budget_id"], row["period"]], totals_of(row)
        alike = all(
            math.isclose(
                getattr(expected, name), getattr(held, name), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE
            )
            for name in ("reserved", "spent", "overrun")
        )
        if expected.open != held.open or not alike:
            yield f"{entry}: its sums over the budget {row['budget_id']} do not follow"

    def _over(self, terms: Terms, period: str, now: datetime, entry: str) -> Iterator[str]:
        budget = terms.budget
        status = BudgetStatus(
            unit=budget.unit,
            total=total(budget, opened=terms.opened, now=now),
            taken=self._totals[terms.budget_id, period],
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


def _sums(rows: RowsByKind) -> Iterator[str]:
    by_reservation = _by_reservation(rows)
    known = {row["reservation_id"] for row in rows["reservation"]}
    for missing in sorted(one for one in by_reservation if one is not None and one not in known):
        energy_j = math.fsum(row["energy_j"] or 0.0 for row in by_reservation[missing])
        yield (
            f"{len(by_reservation[missing])} window(s) with {format_energy(energy_j)} name the "
            f"reservation {missing}, which is not in the ledger"
        )
    for settlement in rows["settlement"]:
        reservation = settlement["reservation_id"]
        windows: Sequence[WindowRow] = by_reservation.get(reservation, ())
        if settlement["released"] == RECOVERED:
            windows = _recovered_until(rows, settlement)
        elif settlement["released"] == GIVEN:
            continue
        unit, actual, _ = _settled(settlement)
        sums = measured_amount(windows, reservation, unit)
        if sums is None:
            continue  # settled at a given amount, or at its reservation: not all was measured
        measured = (sums[0] if unit == "J" else sums[1]) or 0.0
        if not math.isclose(measured, actual, rel_tol=_TOLERANCE, abs_tol=1e-9):
            yield (
                f"the settlement of {reservation} is {actual:g} {unit} and its windows sum to "
                f"{measured:g} {unit}"
            )


def _by_reservation(rows: RowsByKind) -> dict[str | None, list[WindowRow]]:
    found: dict[str | None, list[WindowRow]] = defaultdict(list)
    for window in rows["window"]:
        found[window["reservation_id"]].append(window)
    return found


def _known(windows: Iterable[WindowRow], unit: Unit) -> float:
    """Return the amount of windows that is known."""
    known = (row["energy_j"] if unit == "J" else row["emissions_g"] for row in windows)
    return math.fsum(one or 0.0 for one in known)


def _recovered_until(rows: RowsByKind, settlement: SettlementRow) -> list[RecoveredWindowRow]:
    """Return the windows that could be recovered when a reservation was released."""

    def earlier(row: EntryRow) -> bool:
        return row["entry_id"] < settlement["entry_id"]

    run_id = settlement["run_id"]
    return with_recovered(
        [row for row in rows["window"] if row["run_id"] == run_id and earlier(row)],
        [row for row in rows["heartbeat"] if row["run_id"] == run_id and earlier(row)],
        [row for row in rows["closing"] if row["run_id"] == run_id and earlier(row)],
    )


def _wrong_unit(row: PaymentRow, terms: Terms, unit: Unit, entry: str) -> Iterator[str]:
    if unit != terms.budget.unit:
        yield f"{entry}: is of {unit} and its budget {terms.budget_id} of {terms.budget.unit}"


def _reserved(row: ReservationRow) -> tuple[Unit, float]:
    """Return the unit and the amount of a reservation."""
    return ("J", row["amount_j"]) if row["amount_g"] is None else ("g", row["amount_g"])


def _settled(row: SettlementRow) -> tuple[Unit, float, float]:
    """Return the unit, the amount and the overrun of a settlement."""
    if row["actual_g"] is None:
        return "J", row["actual_j"] or 0.0, row["overrun_j"] or 0.0
    return "g", row["actual_g"], row["overrun_g"] or 0.0
