"""Keep two hosts from writing to one SQLite file at the same time."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from greentrain.errors import LedgerError
from greentrain.ledger.schema import closings, entries, run_chain, runs
from greentrain.units import utc_text

_ALIVE = timedelta(minutes=5)
_LOOKED_AT = 20


def refuse_other_hosts(
    connection: Connection, host: str, name: str, now: datetime, *, run_id: str | None = None
) -> None:
    """Refuse to write to a SQLite file while another host has an active run in it.

    A run is active if it is not closed and has written a row in the last five minutes, the time of
    thirty heartbeats. Older runs do not count: a ledger may move with its disk, and a container
    has a new name each time.

    Args:
        connection: Connection of a transaction.
        host: This host.
        name: Name of the ledger.
        now: The present time.
        run_id: A run of this host that wants to reserve: only runs that began after it count. Its
            own beginning was refused while an earlier one was active. A run that was silent for
            longer may have been taken for dead, and then another host has begun.

    Raises:
        LedgerError: If there is such a run.
    """
    unclosed = (
        select(runs.c.run_id, runs.c.name, entries.c.recorded_utc)
        .join(entries, entries.c.id == runs.c.entry_id)
        .outerjoin(closings, closings.c.run_id == runs.c.run_id)
        .where(runs.c.host != host, closings.c.run_id.is_(None))
        .order_by(runs.c.entry_id.desc())
        .limit(_LOOKED_AT)
    )
    if run_id is not None:
        own = select(runs.c.entry_id).where(runs.c.run_id == run_id).scalar_subquery()
        unclosed = unclosed.where(runs.c.entry_id > own)
    since = utc_text(now - _ALIVE)
    for run in connection.execute(unclosed).all():
        last = connection.execute(
            select(entries.c.recorded_utc)
            .where(entries.c.chain == run_chain(run.run_id))
            .order_by(entries.c.seq.desc())
            .limit(1)
        ).scalar()
        if max(run.recorded_utc, last or "") > since:
            raise LedgerError(
                f"another host writes to the ledger {name!r} (its run {run.name!r} is active). "
                "A SQLite file is for one host at a time. Wait until that run is closed, or was "
                "silent for five minutes; or give each host its own file, or use "
                "'postgresql+psycopg://user@host/database' for all"
            )
