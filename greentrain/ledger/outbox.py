"""How a run's rows get into the ledger, at once or later, and each of them once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import islice

from sqlalchemy import Connection, func, select

from greentrain.errors import LedgerError
from greentrain.ledger.rows import Row, kept
from greentrain.ledger.schema import CONTENT, entries, replays, run_chain
from greentrain.ledger.spool import Spool, left_behind, places
from greentrain.ledger.store import Store

_log = logging.getLogger(__name__)

_BATCH = 1000
_RETRY_S = (1.0, 30.0)


class Outbox:
    """Write rows, or let them wait in a local file until the database takes them.

    Args:
        store: Where rows go.
        run_id: Whose they are.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._spools: list[Spool] = []
        self._retry_s = _RETRY_S[0]
        self._due_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether rows wait in a file."""
        return bool(self._spools)

    def send(self, rows: Sequence[Row], *, now: bool = True) -> bool:
        """Write rows after those that wait, or let them wait; return whether none waits.

        Args:
            rows: What is new.
            now: Whether to try those that wait again, however short ago that was tried.

        Raises:
            OSError: If they can neither be written nor be kept in a file.
        """
        if self._spools:
            self._keep(rows)
            if now or time.monotonic() >= self._due_s:
                self._replay()
        elif rows:
            try:
                self._write(rows)
            except Exception as error:  # whatever it is, what was measured is kept
                self._keep(rows, attempted=len(rows))
                _log.warning("windows wait to be written, because %s", error)
        return not self._spools

    def close(self) -> None:
        """Leave what waits to whoever opens the ledger next."""
        for spool in self._spools:
            _log.warning("what the ledger could not be told waits in %s", spool.path)
            spool.close()
        self._spools = []

    def _write(self, rows: Sequence[Row]) -> None:
        with self._store.write() as connection:
            for kind, content in rows:
                self._store.append(connection, kind, run_chain(self._run_id), content)

    def _keep(self, rows: Sequence[Row], attempted: int = 0) -> None:
        if not rows:
            return
        failed: OSError | None = None
        if self._spools:
            try:
                self._spools[-1].add(rows)
                return
            except OSError as error:  # full as well: the next place may not be
                failed = error
        used = {spool.path for spool in self._spools}
        for place in places(self._store, self._run_id):
            if place in used:
                continue
            try:
                spool = Spool.create(place, self._run_id, attempted)
            except OSError as error:
                failed = error
                continue
            try:
                spool.add(rows)
            except OSError as error:
                spool.remove()
                failed = error
                continue
            self._spools.append(spool)
            return
        raise OSError(f"no file takes them either: {failed}")

    def _replay(self) -> None:
        try:
            while self._spools:
                replay(self._store, self._spools[0])
                self._spools.pop(0).remove()
            self._retry_s = _RETRY_S[0]
        except Exception as error:
            _log.debug("rows wait still, because %s", error)
            self._due_s = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_S[1])


def replay(store: Store, spool: Spool) -> None:
    """Write the rows that wait in a file, each once, however often this is begun.

    The same transaction that writes rows writes up to which line they were, so that a process which
    is killed before it deletes the file leaves nothing to be written twice.

    Raises:
        LedgerError: If the database cannot be written to.
        ValueError: If the file holds something else.
    """
    waiting = spool.rows()
    chain, line = run_chain(spool.run_id), 0
    # The first ones alone show whether the database takes any, for little if it does not.
    while batch := list(islice(waiting, _BATCH if line else max(1, spool.attempted))):
        with store.write() as connection:
            done = _replayed(connection, spool.spool_id)
            if done == 0 and _has(connection, chain, batch[: spool.attempted]):
                done = spool.attempted
            rows = kept(batch[max(0, done - line) :])
            line += len(batch)
            for kind, content in rows:
                store.append(connection, kind, chain, content)
            if rows:
                told = {"run_id": spool.run_id, "spool_id": spool.spool_id, "line": line}
                store.append(connection, "replay", chain, told)


def replay_left_behind(store: Store) -> None:
    """Write what processes that are gone could not; what cannot be written stays where it is."""
    for path in left_behind(store):
        try:
            spool = Spool.take(path)
            if spool is None:
                continue
            try:
                replay(store, spool)
            except BaseException:
                spool.close()
                raise
            spool.remove()
            _log.warning("rows of the run %s that had waited were written", spool.run_id)
        except (LedgerError, OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("what waits in %s was not written, because %s", path, error)


def _replayed(connection: Connection, spool_id: str) -> int:
    query = select(func.max(replays.c.line)).where(replays.c.spool_id == spool_id)
    return connection.execute(query).scalar() or 0


def _has(connection: Connection, chain: str, rows: Sequence[Row]) -> bool:
    """Return whether a chain ends on just these rows: they were written, and nobody heard so."""
    last = connection.execute(
        select(entries.c.id, entries.c.kind)
        .where(entries.c.chain == chain)
        .order_by(entries.c.seq.desc())
        .limit(len(rows))
    ).all()
    if not rows or [entry.kind for entry in reversed(last)] != [kind for kind, _ in rows]:
        return False
    for entry, (kind, content) in zip(reversed(last), rows, strict=True):
        table = CONTENT[kind]
        held = connection.execute(table.select().where(table.c.entry_id == entry.id)).mappings()
        if {**content, "entry_id": entry.id} != dict(held.one()):
            return False
    return True
