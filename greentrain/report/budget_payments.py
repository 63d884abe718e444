"""Sums over the payments from a budget, and over the windows that they pay for."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from greentrain.budget import Unit, overrun
from greentrain.ledger import ReservationRow, SettlementRow
from greentrain.ledger.budgets import totals_of
from greentrain.money import BudgetTotals
from greentrain.report.row_helpers import MeasuredWindow, grouped
from greentrain.report.sums import Sum


class PaidWindows:
    """Sums over the windows of one reservation.

    Attributes:
        energy: Joules.
        grams: Grams of CO2 equivalent.
        complete: ``True`` if every source was measured in each of them.
    """

    __slots__ = ("complete", "energy", "grams")

    def __init__(self) -> None:
        self.energy, self.grams = Sum(), Sum()
        self.complete = True


NO_WINDOWS = PaidWindows()


def pay(paid: dict[str, PaidWindows], windows: Iterable[MeasuredWindow]) -> None:
    """Add windows to the sums of their reservations, by id."""
    for reservation, held in grouped(windows, itemgetter("reservation_id")).items():
        if reservation is not None:
            one = paid.get(reservation)
            if one is None:
                one = paid[reservation] = PaidWindows()
            one.energy.add_all([window["energy_j"] for window in held])
            one.grams.add_all([window["emissions_g"] for window in held])
            one.complete = one.complete and all([window["complete"] for window in held])
            one.energy.compress()
            one.grams.compress()


@dataclass(slots=True)
class PeriodSums:
    """Settlements in one period of a budget, with the sums in the ledger left out."""

    spent: Sum = field(default_factory=Sum)
    overrun: Sum = field(default_factory=Sum)


class BudgetPayments:
    """The payments from one budget.

    Args:
        unit: Unit of the budget.
        paid: The windows of each reservation.

    Attributes:
        still_open: Open reservations by id, in order.
        periods: Sums by period.
        spent: Sum of the settlements.
        overrun: Part of it beyond the reservations.
        charged_unmeasured: Joules that were charged as reserved, because not all was measured.
        overruns: Settlements beyond their reservations, as the report has them.
        released: Settlements of dead runs, as the report has them.
        spending: Time of each settlement, and the amount spent until then.
        last_utc: Time of the last payment; ``None`` without one.
        settled: Entry of each settlement, by id of its reservation.
    """

    def __init__(self, unit: Unit, paid: Mapping[str, PaidWindows]) -> None:
        self.unit = unit
        self._paid = paid
        self.still_open: dict[str, ReservationRow] = {}
        self.periods: dict[str, PeriodSums] = defaultdict(PeriodSums)
        self.spent, self.overrun, self.charged_unmeasured = Sum(), Sum(), Sum()
        self.overruns: list[dict[str, Any]] = []
        self.released: list[dict[str, Any]] = []
        self.spending: list[tuple[str, float]] = []
        self.last_utc: str | None = None
        self.settled: dict[str, int] = {}
        # The sums in the ledger after each payment: entry, open, reserved, spent, overrun.
        self._entries = array("q")
        self._open = array("q")
        self._sums = array("d")
        self._times: list[str] = []

    def reservation(self, row: ReservationRow) -> None:
        """Add a reservation."""
        self._remember(row)
        self.still_open[row["reservation_id"]] = row
        self.periods[row["period"]]

    def settlement(self, row: SettlementRow) -> None:
        """Add a settlement."""
        self._remember(row)
        self.settled[row["reservation_id"]] = row["entry_id"]
        reservation = self.still_open.pop(row["reservation_id"], None)
        actual, beyond = self._amount(row, "actual"), self._amount(row, "overrun")
        if reservation is not None:
            period = self.periods[reservation["period"]]
            period.spent.add(actual)
            period.overrun.add(overrun(self._amount(reservation, "amount"), actual))
        self.spent.add(actual)
        self.overrun.add(beyond)
        spent = self.spending[-1][1] + actual if self.spending else actual
        self.spending.append((row["recorded_utc"], spent))
        windows = self._paid.get(row["reservation_id"], NO_WINDOWS)
        if not windows.complete:
            self.charged_unmeasured.add(max(0.0, (row["actual_j"] or 0.0) - windows.energy.number))
        if beyond > 0:
            self.overruns.append(
                {
                    **_payment(row),
                    **_purpose(reservation),
                    "overrun_j": row["overrun_j"],
                    "overrun_g": row["overrun_g"],
                }
            )
        if row["released"] is not None:
            self.released.append({**_payment(row), "how": row["released"]})

    def beyond(self, row: ReservationRow) -> float:
        """Return how much the windows of an open reservation exceed it, as after a kill."""
        windows = self._paid.get(row["reservation_id"], NO_WINDOWS)
        used = windows.energy if self.unit == "J" else windows.grams
        return overrun(self._amount(row, "amount"), used.number)

    def reserved(self, row: ReservationRow) -> float:
        """Return the amount of a reservation, in the budget's unit."""
        return self._amount(row, "amount")

    def totals(self, period: str) -> BudgetTotals:
        """Return the totals of a period, without using the sums in the ledger."""
        sums, reserved = self.periods[period], Sum()
        for row in self.still_open.values():
            if row["period"] == period:
                reserved.add(self._amount(row, "amount"))
        return BudgetTotals(
            open=reserved.known,
            reserved=reserved.number,
            spent=sums.spent.number,
            overrun=sums.overrun.number,
        )

    def after(self, entry_id: int) -> tuple[BudgetTotals, datetime] | None:
        """Return the totals in the ledger after a row, and the time of the last payment until then.

        Returns:
            ``None`` if nothing was paid until then.
        """
        place = bisect_right(self._entries, entry_id) - 1
        if place < 0:
            return None
        reserved, spent, beyond = self._sums[3 * place : 3 * place + 3]
        totals = BudgetTotals(
            open=self._open[place], reserved=reserved, spent=spent, overrun=beyond
        )
        return totals, datetime.fromisoformat(self._times[place])

    def _remember(self, row: ReservationRow | SettlementRow) -> None:
        totals = totals_of(row)
        self._entries.append(row["entry_id"])
        self._open.append(totals.open)
        self._sums.extend((totals.reserved, totals.spent, totals.overrun))
        self._times.append(row["recorded_utc"])
        self.last_utc = max(self.last_utc or "", row["recorded_utc"])

    def _amount(self, row: Mapping[str, Any], name: str) -> float:
        return float(row[f"{name}_{self.unit.lower()}"] or 0.0)


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
