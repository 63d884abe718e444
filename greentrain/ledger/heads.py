"""Heads: the last hash of a chain with its number of rows."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from greentrain.ledger.schema import BUDGET_CHAIN, RUN_CHAIN, entries


def all_heads(connection: Connection) -> dict[str, dict[str, object]]:
    """Return (count, head) of every chain, by its name."""
    last = select(entries.c.chain, func.max(entries.c.seq).label("seq")).group_by(entries.c.chain)
    newest = last.subquery()
    query = (
        select(entries.c.chain, entries.c.seq, entries.c.hash)
        .join(newest, (entries.c.chain == newest.c.chain) & (entries.c.seq == newest.c.seq))
        .order_by(entries.c.chain)
    )
    return {
        row.chain: {"count": row.seq + 1, "head": row.hash}
        for row in connection.execute(query).all()
    }


def changed_heads(connection: Connection, own: str) -> dict[str, list[object]]:
    """Return [count, head] of each chain that changed since the last opening or budget row.

    That row counts as a change of its own chain: so each of these rows holds, through the one
    before it, all that was there when it was written.

    Args:
        connection: Inside the transaction that appends the next such row.
        own: The chain it is appended to, whose head it names in any case.
    """
    openings = entries.c.chain.in_((RUN_CHAIN, BUDGET_CHAIN))
    last = select(func.max(entries.c.id)).where(openings).scalar_subquery()
    changed = (
        select(func.max(entries.c.id))
        .where(entries.c.id >= func.coalesce(last, 0), entries.c.chain != own)
        .group_by(entries.c.chain)
    )
    query = select(entries.c.chain, entries.c.seq, entries.c.hash).where(entries.c.id.in_(changed))
    return {row.chain: [row.seq + 1, row.hash] for row in connection.execute(query)}
