"""Let go of what a run that died had reserved: settle it for the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from greentrain.budget import Unit, format_amount
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger.account import append_settlement, open_reservation
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.schema import (
    closings,
    entries,
    heartbeats,
    run_chain,
    windows,
)
from greentrain.ledger.store import Store

SILENT_S = 30.0
"""Seconds without a row after which a run that was never closed is taken to be dead."""
GIVEN = "given"
RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a released reservation was settled at.

    Args:
        reservation_id: The reservation.
        unit: What its budget is of.
        amount: What was reserved.
        actual: What it was settled at.
        how: ``"given"`` by somebody, or ``"recovered"`` from windows and heartbeats.
    """

    reservation_id: str
    unit: Unit
    amount: float
    actual: float
    how: str

    def __str__(self) -> str:
        return (
            f"{self.reservation_id} is settled at {format_amount(self.actual, self.unit)} of "
            f"{format_amount(self.amount, self.unit)} reserved ({self.how})"
        )


def release(store: Store, reservation: str, actual: float | None) -> Release:
    """Settle the reservation of a run that died: see ``Ledger.release``."""
    if actual is not None and not (math.isfinite(actual) and actual >= 0):
        raise ConfigurationError(f"actual is {actual!r}; it is finite, 0 or more")
    with store.write() as connection:
        row = open_reservation(connection, reservation)
        unit: Unit = "J" if row["amount_g"] is None else "g"
        actual_j: float | None
        actual_g: float | None
        how = GIVEN
        if actual is not None:
            actual_j, actual_g = (actual, None) if unit == "J" else (None, actual)
        else:
            _refuse_living(connection, row["run_id"], store.clock())
            actual_j, actual_g = _measured(connection, row, unit)
            how = RECOVERED
        append_settlement(
            store, connection, row, actual_j=actual_j, actual_g=actual_g, released=how
        )
    settled = (actual_j if unit == "J" else actual_g) or 0.0
    amount = row["amount_j"] if unit == "J" else row["amount_g"]
    return Release(reservation_id=reservation, unit=unit, amount=amount, actual=settled, how=how)


def drawn(
    of_it: Iterable[Mapping[str, Any]], unit: Unit
) -> tuple[float | None, float | None] | None:
    """Sum up the windows and recovered heartbeats of a reservation.

    Args:
        of_it: Their rows.
        unit: What the budget is of.

    Returns:
        Joules, and the grams for a budget of carbon; ``None`` where there is no row, or one is not
        known in full.
    """
    rows = list(of_it)
    if not rows or not all(row["complete"] for row in rows):
        return None
    energy_j = math.fsum(row["energy_j"] for row in rows)
    if unit == "J":
        return energy_j, None
    if any(row["emissions_g"] is None for row in rows):
        return None
    return energy_j, math.fsum(row["emissions_g"] for row in rows)


def _measured(
    connection: Connection, row: Mapping[str, Any], unit: Unit
) -> tuple[float | None, float | None]:
    """Return what was measured under a reservation.

    Raises:
        LedgerError: If not all of it was.
    """
    reservation = row["reservation_id"]
    # Of the whole run: a heartbeat counts where the window of its phase was never written.
    of_run = [
        [dict(one) for one in connection.execute(query.order_by(table.c.entry_id)).mappings()]
        for table in (windows, heartbeats, closings)
        for query in (select(table).where(table.c.run_id == row["run_id"]),)
    ]
    found = drawn(
        [one for one in with_recovered(*of_run) if one["reservation_id"] == reservation], unit
    )
    if found is None:
        raise LedgerError(
            f"not everything that was drawn under the reservation {reservation!r} was measured; "
            "say what it was with --actual, such as --actual "
            f"{'20 Wh' if unit == 'J' else '500 gCO2e'!r}"
        )
    return found


def _refuse_living(connection: Connection, run_id: str, now: datetime) -> None:
    query = select(closings.c.entry_id).where(closings.c.run_id == run_id)
    if connection.execute(query).first() is not None:
        return
    # Its settlements may be releases, written by others.
    own = (entries.c.chain == run_chain(run_id)) & (entries.c.kind != "settlement")
    last = connection.execute(select(func.max(entries.c.recorded_utc)).where(own)).scalar_one()
    silent_s = (now - datetime.fromisoformat(last)).total_seconds()
    if silent_s < SILENT_S:
        raise LedgerError(
            f"the run {run_id} wrote a row {max(0.0, silent_s):.0f} s ago and may still be at "
            f"work; wait until it has been silent for {SILENT_S:.0f} s, or give --actual"
        )
