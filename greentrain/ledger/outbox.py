"""Write each row of a run to the ledger once, immediately or after an outage of its database."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, func, select

from greentrain.errors import LedgerError
from greentrain.ledger.disk_queue import DiskQueue, QueuedRow, check_private, queue_files
from greentrain.ledger.events import Row, kept
from greentrain.ledger.schema import CONTENT, entries, replays, run_chain
from greentrain.ledger.store import LedgerStore, RowError
from greentrain.texts import get_logger

_log = get_logger(__name__)

_KINDS = ("source", "window", "heartbeat", "outcome", "closing")
"""Kinds of rows that may wait: none of them spends from a budget."""
_REFUSED = (RowError, ValueError, TypeError, KeyError)
"""Errors of a row itself, for which another try is useless."""
_WAITING_ROWS = "waiting"
_REFUSED_ROWS = "refused"
_BATCH = 1000
_RETRY_S = (1.0, 30.0)
"""Seconds until the database is tried again: after the first failure, and at most."""


class Outbox:
    """Write rows to the ledger, or keep them in a local file until its database works again.

    Where no file can be written either, rows wait in memory.

    Args:
        store: Where rows are written.
        run_id: The run they belong to.
    """

    def __init__(self, store: LedgerStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._queues: list[DiskQueue] = []
        self._file_error: OSError | None = None
        self._warned = False
        self._retry_s = _RETRY_S[0]
        self._due_s = 0.0

    def send(self, rows: Sequence[Row], *, now: bool = True) -> bool:
        """Write rows after those that wait, or let them wait; return whether none waits.

        Args:
            rows: The new rows.
            now: Whether to try the database again even if it failed a moment ago.
        """
        self._queues = [queue for queue in self._queues if queue.is_open]  # none after a fork
        if self._queues:
            self._keep(rows)
            if now or time.monotonic() >= self._due_s:
                self._replay()
        elif rows:
            try:
                with self._store.write() as connection:
                    for kind, content in rows:
                        self._store.append(connection, kind, run_chain(self._run_id), content)
            except Exception as error:  # measured energy must not be lost, for any reason
                self._keep(rows, attempted=len(rows))
                if self._queues[-1].path is not None:
                    _log.warning("rows of the ledger wait in a local file, because %s", error)
        return not self._queues

    def close(self) -> None:
        """Leave what waits to the next process that opens the ledger.

        Raises:
            LedgerError: If rows wait in memory only, and are lost now.
        """
        queues, self._queues = self._queues, []
        lost = [queue for queue in queues if queue.path is None]
        for queue in queues:
            if queue.path is not None:
                _log.warning("rows that the ledger did not take wait in %s", queue.path)
            queue.close()
        if lost:
            raise LedgerError(
                f"the run {self._run_id!r} lost its last rows, because neither the ledger nor a "
                f"local file could be written ({self._file_error}); free disk space"
            )

    def _keep(self, rows: Sequence[Row], attempted: int = 0) -> None:
        """Add rows to the last queue; if its disk is full, to a new one elsewhere or in memory."""
        if not rows:
            return
        waiting = [(self._run_id, kind, content) for kind, content in rows]
        last = self._queues[-1] if self._queues else None
        full: Path | None = None
        if last is not None and last.path is not None:
            try:
                return last.append(waiting)
            except OSError as error:
                self._file_error, full = error, last.path.parent
        note = {"run_id": self._run_id, "attempted": attempted}
        for folder, prefix in _places(self._store):
            if folder != full:
                try:
                    folder.mkdir(mode=0o700, exist_ok=True)
                    _check_folder(folder)
                    self._queues.append(DiskQueue.create(folder, prefix, rows=waiting, note=note))
                    return None
                except OSError as error:
                    self._file_error = error
        if last is not None and last.path is None:
            return last.append(waiting)
        self._queues.append(DiskQueue.create(None, rows=waiting, note=note))
        if not self._warned:
            self._warned = True
            _log.warning(
                "rows of the ledger wait in memory, because no file can be written: %s",
                self._file_error,
            )
        return None

    def _replay(self) -> None:
        try:
            while self._queues:
                _replay(self._store, self._queues[0])
                self._queues.pop(0).delete()
            self._retry_s = _RETRY_S[0]
        except Exception as error:
            _log.debug("rows of the ledger still wait, because %s", error)
            self._due_s = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_S[1])


def replay_left_behind(store: LedgerStore) -> None:
    """Write the rows that ended processes left in files; a file that fails stays where it is."""
    for path in left_behind(store):
        try:
            queue = DiskQueue.adopt(path)
            if queue is None:
                continue
            try:
                _replay(store, queue)
            except BaseException:
                queue.close()
                raise
            queue.delete()
            _log.warning("rows of the run %s that had waited were written", queue.note["run_id"])
        except (LedgerError, OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("the rows in %s were not written, because %s", path, error)


def left_behind(store: LedgerStore, what: str = _WAITING_ROWS) -> list[Path]:
    """Return the files in which rows of this ledger wait, of any process."""
    found: list[Path] = []
    for folder, prefix in _places(store, what):
        with suppress(OSError):
            _check_folder(folder)
            found += queue_files(folder, prefix)
    return found


def set_aside(store: LedgerStore) -> list[Path]:
    """Return the files with a row each that this ledger refused."""
    return left_behind(store, _REFUSED_ROWS)


def _places(store: LedgerStore, what: str = _WAITING_ROWS) -> list[tuple[Path, str]]:
    """Return folders and file prefixes: next to the SQLite file, and among temporary files."""
    if store.in_memory:
        return []
    name, places = store.name, []
    if store.path is not None:
        name = str(store.path.absolute().resolve())
        places = [(store.path.absolute().parent, f"{store.path.name}-{what}-")]
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return [*places, (_temporary(), f"{digest}-{what}-")]


def _temporary() -> Path:
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    return Path(tempfile.gettempdir()) / f"greentrain-{user}"


def _check_folder(folder: Path) -> None:
    """Refuse a temporary folder that other users could add journals to."""
    if folder == _temporary():
        check_private(folder)


def _replay(store: LedgerStore, queue: DiskQueue) -> None:
    """Write the rows of a queue, each once, no matter how often this is started.

    The transaction that writes rows also writes the number of the last one. If the process is
    killed before it deletes the file, no row is written again. A row that the ledger never takes
    does not hold up the others: it is moved to a separate file, which ``verify`` names.

    Raises:
        LedgerError: If the database cannot be written to.
        OSError: If the file cannot be read, or a row cannot be moved.
    """
    attempted, number = int(queue.note["attempted"]), 0
    # The first rows alone show whether the database works, at little cost if it does not.
    while batch := queue.read(number, _BATCH if number else max(1, attempted)):
        first, number = number == 0, batch[-1].number
        try:
            _write(store, queue, batch, attempted=attempted if first else 0)
        except _REFUSED:
            for row in batch:
                try:
                    _write(store, queue, [row])
                except _REFUSED as error:
                    _set_aside(store, queue, row, error)


def _write(
    store: LedgerStore, queue: DiskQueue, batch: Sequence[QueuedRow], *, attempted: int = 0
) -> None:
    """Write rows in one transaction, except those that are written already."""
    run_id = str(queue.note["run_id"])
    chain = run_chain(run_id)
    rows = [(row.number, _checked(row, run_id)) for row in batch]
    number = batch[-1].number
    with store.write() as connection:
        done = _written(connection, queue.queue_id)
        if attempted and not done:
            tried = [row for _, row in rows[:attempted]]
            done = number if _has(connection, chain, tried) else 0
        left = kept(row for row_number, row in rows if row_number > done)
        for kind, content in left:
            store.append(connection, kind, chain, content)
        if left:
            progress = {"run_id": run_id, "spool_id": queue.queue_id, "line": number}
            store.append(connection, "replay", chain, progress)


def _set_aside(store: LedgerStore, queue: DiskQueue, row: QueuedRow, error: Exception) -> None:
    """Move a row that the ledger never takes to a separate file.

    Raises:
        OSError: If no file can be written.
    """
    failed: OSError | None = None
    for folder, prefix in _places(store, _REFUSED_ROWS):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            _check_folder(folder)
            aside = DiskQueue.create(
                folder, prefix, rows=[(row.run, row.kind, row.content)], note={"error": str(error)}
            )
        except OSError as again:
            failed = again
            continue
        aside.close()
        _log.warning(
            "a row (%s) of the run %s is set aside in %s, because %s",
            row.kind,
            row.run,
            aside.path,
            error,
        )
        return
    if failed is not None:
        raise failed
    _log.warning("a row (%s) of a ledger in memory is lost, because %s", row.kind, error)


def _checked(row: QueuedRow, run_id: str) -> Row:
    if row.kind not in _KINDS or row.run != run_id or row.content.get("run_id") != run_id:
        raise ValueError("it holds a row that its run did not write")
    return row.kind, row.content


def _written(connection: Connection, queue_id: str) -> int:
    query = select(func.max(replays.c.line)).where(replays.c.spool_id == queue_id)
    return connection.execute(query).scalar() or 0


def _has(connection: Connection, chain: str, rows: Sequence[Row]) -> bool:
    """Return whether a chain ends with just these rows: written, but the answer was lost."""
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
        written = {**dict.fromkeys(table.c.keys()), **content, "entry_id": entry.id}
        if written != dict(held.one()):
            return False
    return True
