"""Budgets: what was paid from each, when, and whether it was kept."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from greentrain.budget import Balance
from greentrain.report.rows import Row, Rows
from greentrain.units import wh

_ROUNDING = 1e-12


def budgets(rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Sum up each budget: amount, spent, reserved, left, overruns and spending over time."""
    reservations, settlements = _by_budget(rows["reservation"]), _by_budget(rows["settlement"])
    measured = _measured(rows["window"])
    decided = {row["budget_id"] for row in rows["decision"]}
    return [
        _budget(
            row,
            reservations[row["budget_id"]],
            settlements[row["budget_id"]],
            measured,
            decided=row["budget_id"] in decided,
        )
        for row in rows["budget"]
    ]


class BudgetHistory:
    """What was left of every budget after any row of the ledger.

    Args:
        rows: The ledger's rows by kind.
    """

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        self._total_j = {row["budget_id"]: row["energy_j"] for row in rows["budget"]}
        amounts = {row["reservation_id"]: row["amount_j"] for row in rows["reservation"]}
        changes: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for row in rows["reservation"]:
            changes[row["budget_id"]].append((row["entry_id"], row["amount_j"]))
        for row in rows["settlement"]:
            change_j = row["actual_j"] - amounts.get(row["reservation_id"], 0.0)
            changes[row["budget_id"]].append((row["entry_id"], change_j))
        self._entries: dict[str, list[int]] = {}
        self._taken_j: dict[str, list[float]] = {}
        for budget_id, events in changes.items():
            events.sort()
            self._entries[budget_id] = [entry_id for entry_id, _ in events]
            self._taken_j[budget_id] = list(accumulate(change_j for _, change_j in events))

    def left_j(self, budget_id: str, entry_id: int) -> float | None:
        """Return the joules left after a row; ``None`` for a budget that is not known."""
        total_j = self._total_j.get(budget_id)
        if total_j is None:
            return None
        count = bisect_right(self._entries.get(budget_id, []), entry_id)
        taken_j = self._taken_j[budget_id][count - 1] if count else 0.0
        return max(0.0, float(total_j) - taken_j)


def _budget(
    row: Row,
    reservations: list[Row],
    settlements: list[Row],
    measured: Mapping[str, tuple[float, bool]],
    *,
    decided: bool,
) -> dict[str, Any]:
    reserved = {one["reservation_id"]: one for one in reservations}
    settled = {one["reservation_id"] for one in settlements}
    still_open = [one for one in reservations if one["reservation_id"] not in settled]
    balance = Balance(
        total_j=row["energy_j"],
        spent_j=math.fsum(one["actual_j"] for one in settlements),
        reserved_j=math.fsum(one["amount_j"] for one in still_open),
        overrun_j=math.fsum(one["overrun_j"] for one in settlements),
    )
    return {
        "budget_id": row["budget_id"],
        "name": row["name"],
        "given_as": row["given_as"],
        "horizon": row["horizon"],
        "opened_utc": row["recorded_utc"],
        "pays_for_updates": decided,
        "total_j": balance.total_j,
        "total_wh": wh(balance.total_j),
        "spent_j": balance.spent_j,
        "spent_wh": wh(balance.spent_j),
        "reserved_j": balance.reserved_j,
        "reserved_wh": wh(balance.reserved_j),
        "left_j": balance.left_j,
        "left_wh": wh(balance.left_j),
        "overrun_j": balance.overrun_j,
        # Stricter than the money rule, which forgives overruns: here they count as spent.
        "kept": balance.spent_j + balance.reserved_j <= balance.total_j * (1 + _ROUNDING),
        "charged_unmeasured_j": _charged_unmeasured_j(settlements, measured),
        "overruns": [
            {
                "reservation_id": one["reservation_id"],
                "run_id": one["run_id"],
                "purpose": reserved.get(one["reservation_id"], {}).get("purpose"),
                "reserved_j": reserved.get(one["reservation_id"], {}).get("amount_j"),
                "actual_j": one["actual_j"],
                "overrun_j": one["overrun_j"],
                "recorded_utc": one["recorded_utc"],
            }
            for one in settlements
            if one["overrun_j"] > 0
        ],
        "open_reservations": [
            {
                "reservation_id": one["reservation_id"],
                "run_id": one["run_id"],
                "purpose": one["purpose"],
                "amount_j": one["amount_j"],
                "recorded_utc": one["recorded_utc"],
            }
            for one in still_open
        ],
        "spending": [
            {"recorded_utc": one["recorded_utc"], "spent_j": spent_j}
            for one, spent_j in zip(
                settlements, accumulate(one["actual_j"] for one in settlements), strict=True
            )
        ],
    }


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
            charged.append(max(0.0, one["actual_j"] - known_j))
    return math.fsum(charged)
