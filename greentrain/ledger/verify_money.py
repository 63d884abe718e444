"""Check the budgets of a ledger: apply the rules again, and compare settlements with windows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any

from greentrain.budget import Unit, format_amount, overrun
from greentrain.errors import GreentrainError
from greentrain.ledger.budgets import Terms, terms_of, totals_of
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.release import GIVEN, RECOVERED, measured_amount
from greentrain.ledger.row_stream import RowLookup
from greentrain.ledger.rows import (
    BudgetRow,
    EntryRow,
    PaymentRow,
    RecoveredWindowRow,
    ReservationRow,
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
_alike = partial(math.isclose, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
_payer = itemgetter("budget_id", "period", "run_id")
_WRITING = timedelta(minutes=1)
"""Time that may pass between a decision to reserve and the date of its row."""


class MoneyCheck:
    """Check payments row by row, with only the open reservations and their windows in memory.

    Args:
        lookup: Reader of the same rows. It reads again the few reservations whose windows or
            payments are out of order, and those that were released at what was recovered.
    """

    def __init__(self, lookup: RowLookup) -> None:
        self._lookup = lookup
        self._rules = _BudgetCheck()
        self._open: dict[str, tuple[ReservationRow, list[WindowRow]]] = {}
        self._broken: list[str] = []
        self._results: dict[int, tuple[str, str | None, list[str]]] = {}
        self._unordered: set[str] = set()

    def restore(
        self,
        payments: Iterable[PaymentRow],
        still_open: Iterable[tuple[ReservationRow, list[WindowRow]]],
    ) -> None:
        """Begin at an earlier moment, whose payments are taken as right.

        Args:
            payments: The last payment of each budget and period.
            still_open: The open reservations, each with its windows.
        """
        self._rules.restore(payments)
        for row, windows in still_open:
            self._rules.reopen(row)
            self._open[row["reservation_id"]] = row, windows

    def window(self, row: WindowRow) -> None:
        """Add a window."""
        reservation = row["reservation_id"]
        if reservation is not None:
            held = self._open.get(reservation)
            if held is None:
                self._unordered.add(reservation)
            else:
                held[1].append(row)

    def budget(self, row: BudgetRow) -> None:
        """Add the terms of a budget."""
        self._apply(self._rules.budget, row)

    def reservation(self, row: ReservationRow) -> None:
        """Add a reservation."""
        self._open[row["reservation_id"]] = row, []
        self._apply(self._rules.reservation, row)

    def settlement(self, row: SettlementRow) -> None:
        """Add a settlement.

        Raises:
            ArithmeticError, TypeError, ValueError: If altered amounts cannot be summed.
        """
        held = self._open.pop(row["reservation_id"], None)
        self._apply(self._rules.settlement, row)
        if held is None:
            self._unordered.add(row["reservation_id"])
        else:
            self._compare(row, held[1])

    def failures(self) -> Iterator[str]:
        """Yield each violation of the rules for budgets, as one sentence, after the last row."""
        yield from self._broken
        self._read_unordered()
        for missing in sorted(self._unordered):
            windows = self._windows(missing)
            if windows and not self._lookup.rows("reservation", reservation_id=missing):
                energy_j = math.fsum(row["energy_j"] or 0.0 for row in windows)
                yield (
                    f"{len(windows)} window(s) with {format_energy(energy_j)} name the "
                    f"reservation {missing}, which is not in the ledger"
                )
        for _, (_, failure, _) in sorted(self._results.items()):
            if failure is not None:
                yield failure

    def notes(self) -> Iterator[str]:
        """Yield remarks on payments that follow the rules, after :meth:`failures`."""
        for _, (_, _, notes) in sorted(self._results.items()):
            yield from notes
        for reservation, (row, windows) in self._open.items():
            if reservation in self._unordered:
                if self._lookup.rows("settlement", reservation_id=reservation):
                    continue
                windows = self._windows(reservation)
            yield from _open_notes(row, windows)

    def _apply(self, rule: Callable[[Any, str], Iterator[str]], row: EntryRow) -> None:
        entry = f"entry {row['entry_id']}"
        try:
            self._broken += rule(row, entry)
        except (GreentrainError, ValueError, KeyError, TypeError) as error:
            self._broken.append(f"{entry}: {error}")

    def _compare(self, row: SettlementRow, windows: Sequence[WindowRow]) -> None:
        failure = _wrong_amount(row, windows, self._lookup)
        notes = list(_settled_notes(row, windows))
        if failure is not None or notes:
            self._results[row["entry_id"]] = row["reservation_id"], failure, notes

    def _read_unordered(self) -> None:
        """Compare the payments again whose windows came before or after their time."""
        self._results = {
            entry: result
            for entry, result in self._results.items()
            if result[0] not in self._unordered
        }
        for reservation in self._unordered:
            for row in self._lookup.rows("settlement", reservation_id=reservation):
                self._compare(row, self._windows(reservation))

    def _windows(self, reservation: str) -> list[WindowRow]:
        return self._lookup.rows("window", reservation_id=reservation)


def _settled_notes(payment: SettlementRow, windows: Sequence[WindowRow]) -> Iterator[str]:
    unit, actual, beyond = _settled(payment)
    reservation = payment["reservation_id"]
    if windows and beyond <= 0 and payment["released"] is None:
        return
    settled_at = f"{reservation} was settled at {format_amount(actual, unit)}"
    if payment["released"] is not None:
        yield f"released: {settled_at} ({payment['released']}) after its run had died"
        late = [row for row in windows if row["entry_id"] > payment["entry_id"]]
        if late:
            yield (
                f"late: {len(late)} window(s) with {format_amount(_known(late, unit), unit)} "
                f"of {reservation} were recorded after it was released"
            )
    elif not windows:
        yield f"given: {settled_at} and has no windows to compare with"
    if beyond > 0:
        yield f"overrun: {reservation} used {format_amount(beyond, unit)} more than was reserved"


def _open_notes(row: ReservationRow, windows: Sequence[WindowRow]) -> Iterator[str]:
    unit, amount = _reserved(row)
    yield (
        f"open: {format_amount(amount, unit)} reserved for {row['purpose']} were never "
        "settled and count as spent"
    )
    beyond = overrun(amount, _known(windows, unit))
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

    def restore(self, payments: Iterable[PaymentRow]) -> None:
        """Take the sums of the last payment of each budget and period as right."""
        for row in payments:
            self._totals[row["budget_id"], row["period"]] = totals_of(row)
            self._latest[row["budget_id"]] = max(self._latest[row["budget_id"]], row["period"])

    def reopen(self, row: ReservationRow) -> None:
        """Add a reservation that is open, and counted in the restored sums."""
        self._open[row["reservation_id"]] = row

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
        if _payer(row) != _payer(reservation):
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
        expected = self._totals[row["budget_id"], row["period"]]
        if expected.open != row["sum_open"] or not (
            _alike(expected.reserved, row["sum_reserved"])
            and _alike(expected.spent, row["sum_spent"])
            and _alike(expected.overrun, row["sum_overrun"])
        ):
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


def _wrong_amount(
    settlement: SettlementRow, windows: Sequence[WindowRow], lookup: RowLookup
) -> str | None:
    """Return a sentence if a settlement is not the sum of its windows."""
    reservation = settlement["reservation_id"]
    if settlement["released"] == RECOVERED:
        windows = _recovered_until(lookup, settlement)
    elif settlement["released"] == GIVEN:
        return None
    unit, actual, _ = _settled(settlement)
    sums = measured_amount(windows, reservation, unit)
    if sums is None:
        return None  # settled at a given amount, or at its reservation: not all was measured
    measured = (sums[0] if unit == "J" else sums[1]) or 0.0
    if math.isclose(measured, actual, rel_tol=_TOLERANCE, abs_tol=1e-9):
        return None
    return (
        f"the settlement of {reservation} is {actual:g} {unit} and its windows sum to "
        f"{measured:g} {unit}"
    )


def _known(windows: Iterable[WindowRow], unit: Unit) -> float:
    """Return the amount of windows that is known."""
    known = (row["energy_j"] if unit == "J" else row["emissions_g"] for row in windows)
    return math.fsum(one or 0.0 for one in known)


def _recovered_until(lookup: RowLookup, settlement: SettlementRow) -> list[RecoveredWindowRow]:
    """Return the windows that could be recovered when a reservation was released."""

    def earlier(kind: str) -> list[Any]:
        rows = lookup.rows(kind, run_id=settlement["run_id"])
        return [row for row in rows if row["entry_id"] < settlement["entry_id"]]

    return with_recovered(earlier("window"), earlier("heartbeat"), earlier("closing"))


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
