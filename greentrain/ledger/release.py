"""Settle the open reservations of runs that died."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from greentrain.budget import Unit, format_amount
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger.account import append_settlement, open_reservation
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.rows import ReservationRow, WindowRow
from greentrain.ledger.schema import closings, entries, run_chain
from greentrain.ledger.sql_store import TransactionRows
from greentrain.ledger.store import LedgerStore

SILENT_S = 30.0
"""Seconds without a row after which a run without a closing row counts as dead."""
GIVEN = "given"
RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The result of releasing a reservation.

    Args:
        reservation_id: The reservation.
        unit: Unit of its budget.
        amount: Amount that was reserved.
        actual: Amount at which it was settled.
        how: ``"given"`` by the user, or ``"recovered"`` from windows and heartbeats.
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


def release(store: LedgerStore, reservation: str, actual: float | None) -> Release:
    """Settle the reservation of a run that died: see ``Ledger.release``."""
    if actual is not None and not (math.isfinite(actual) and actual >= 0):
        raise ConfigurationError(f"actual is {actual!r}; give an amount that is finite, 0 or more")
    with store.write() as connection:
        row = open_reservation(connection, reservation)
        unit: Unit = "J" if row["amount_g"] is None else "g"
        actual_j: float | None
        actual_g: float | None
        how = GIVEN
        if actual is not None:
            actual_j, actual_g = (actual, None) if unit == "J" else (None, actual)
        else:
            _refuse_active(connection, row["run_id"], store.clock())
            actual_j, actual_g = _measured(connection, row, unit)
            how = RECOVERED
        append_settlement(
            store, connection, row, actual_j=actual_j, actual_g=actual_g, released=how
        )
    amount, settled = row["amount_j"], actual_j
    if row["amount_g"] is not None:
        amount, settled = row["amount_g"], actual_g
    return Release(
        reservation_id=reservation, unit=unit, amount=amount, actual=settled or 0.0, how=how
    )


def measured_amount(
    windows: Iterable[WindowRow], reservation: str, unit: Unit
) -> tuple[float | None, float | None] | None:
    """Return the sum of the windows and recovered heartbeats of a reservation.

    Args:
        windows: The windows, which may include those of other reservations.
        reservation: Id of the reservation.
        unit: Unit of the budget.

    Returns:
        Joules, and grams for a budget of carbon. ``None`` if there is no window, or one of them is
        incomplete.
    """
    rows = [row for row in windows if row["reservation_id"] == reservation]
    if not rows or not all(row["complete"] for row in rows):
        return None
    energy_j = math.fsum(row["energy_j"] or 0.0 for row in rows)
    if unit == "J":
        return energy_j, None
    grams = [row["emissions_g"] for row in rows if row["emissions_g"] is not None]
    return (energy_j, math.fsum(grams)) if len(grams) == len(rows) else None


def _measured(
    connection: Connection, row: ReservationRow, unit: Unit
) -> tuple[float | None, float | None]:
    """Return the joules and grams that were measured under a reservation.

    Raises:
        LedgerError: If not everything was measured.
    """
    # Rows of the whole run: a heartbeat counts if the window of its phase was never written.
    rows, run_id = TransactionRows(connection), row["run_id"]
    found = measured_amount(
        with_recovered(
            rows.rows("window", run_id=run_id),
            rows.rows("heartbeat", run_id=run_id),
            rows.rows("closing", run_id=run_id),
        ),
        row["reservation_id"],
        unit,
    )
    if found is None:
        example = "20 Wh" if unit == "J" else "500 gCO2e"
        raise LedgerError(
            f"not all energy used under the reservation {row['reservation_id']!r} was measured; "
            f"give the amount, such as --actual {example!r}"
        )
    return found


def _refuse_active(connection: Connection, run_id: str, now: datetime) -> None:
    query = select(closings.c.entry_id).where(closings.c.run_id == run_id)
    if connection.execute(query).first() is not None:
        return
    # Settlements do not count, because another process may have written them as releases.
    own = (entries.c.chain == run_chain(run_id)) & (entries.c.kind != "settlement")
    last = connection.execute(select(func.max(entries.c.recorded_utc)).where(own)).scalar_one()
    silent_s = (now - datetime.fromisoformat(last)).total_seconds()
    if silent_s < SILENT_S:
        raise LedgerError(
            f"the run {run_id} wrote a row {max(0.0, silent_s):.0f} s ago and may still be "
            f"active; wait until {SILENT_S:.0f} s have passed without a row, or give --actual"
        )
