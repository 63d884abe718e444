"""Start a verification at exported heads, from what the ledger held when they were exported."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from greentrain.ledger.heads import ExportedHeads
from greentrain.ledger.row_stream import LedgerRows
from greentrain.ledger.rows import PaymentRow, ReservationRow, WindowRow
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    RUN_CHAIN,
    entries,
    reservations,
    run_chain,
    runs,
    settlements,
)
from greentrain.ledger.verify_chains import ChainCheck
from greentrain.ledger.verify_money import MoneyCheck
from greentrain.ledger.verify_notes import RunNotes


def last_entry(connection: Connection, exported: ExportedHeads) -> int | None:
    """Return the number of the last entry that exported heads cover.

    Returns:
        ``None`` if a head is missing or another one, or if there are more or fewer entries up to
        there than the heads cover. All rows have to be verified then.
    """
    last = 0
    for (chain, seq), head in exported.places().items():
        query = select(entries.c.id, entries.c.hash)
        found = connection.execute(
            query.where(entries.c.chain == chain, entries.c.seq == seq)
        ).first()
        if found is None or found.hash != head:
            return None
        last = max(last, found.id)
    count = connection.execute(
        select(func.count()).select_from(entries).where(entries.c.id <= last)
    ).scalar_one()
    return last if count == exported.total > 0 else None


def restore(
    rows: LedgerRows,
    exported: ExportedHeads,
    chains: ChainCheck,
    money: MoneyCheck,
    notes: RunNotes,
) -> None:
    """Give the checks what the rows up to ``rows.after`` say, without recomputing them."""
    connection, last = rows.connection, rows.after or 0
    opened = select(runs.c.run_id, entries.c.hash).join(entries).where(entries.c.id <= last)
    opening = entries.c.chain.in_((RUN_CHAIN, BUDGET_CHAIN))
    newest = select(func.max(entries.c.id)).where(entries.c.id <= last, opening).scalar_subquery()
    changed = select(entries.c.chain).where(
        entries.c.id >= func.coalesce(newest, 0), entries.c.id <= last
    )
    chains.start(
        exported.heads,
        {run_chain(row.run_id): row.hash for row in connection.execute(opened)},
        set(connection.execute(changed.distinct()).scalars()),
    )
    for kind, check in (
        ("budget", money.budget),
        ("run", notes.run),
        ("closing", notes.closing),
    ):
        for row in rows.each(kind):
            if row["entry_id"] <= last:
                check(row)  # type: ignore[arg-type]
    money.restore(_last_payments(rows, last), _still_open(rows, last))


def _last_payments(rows: LedgerRows, last: int) -> list[PaymentRow]:
    found: dict[tuple[str, str], PaymentRow] = {}
    for table, kind in ((reservations, "reservation"), (settlements, "settlement")):
        newest = (
            select(func.max(table.c.entry_id))
            .where(table.c.entry_id <= last)
            .group_by(table.c.budget_id, table.c.period)
        )
        for entry_id in rows.connection.execute(newest).scalars().all():
            (row,) = rows.rows(kind, entry_id=entry_id)
            place = row["budget_id"], row["period"]
            if place not in found or row["entry_id"] > found[place]["entry_id"]:
                found[place] = row
    return list(found.values())


def _still_open(rows: LedgerRows, last: int) -> list[tuple[ReservationRow, list[WindowRow]]]:
    settled = (settlements.c.reservation_id == reservations.c.reservation_id) & (
        settlements.c.entry_id <= last
    )
    query = (
        select(reservations.c.reservation_id)
        .outerjoin(settlements, settled)
        .where(reservations.c.entry_id <= last, settlements.c.entry_id.is_(None))
        .order_by(reservations.c.entry_id)
    )
    found: list[tuple[ReservationRow, list[WindowRow]]] = []
    for reservation in rows.connection.execute(query).scalars().all():
        (row,) = rows.rows("reservation", reservation_id=reservation)
        windows = rows.rows("window", reservation_id=reservation)
        found.append((row, [one for one in windows if one["entry_id"] <= last]))
    return found
