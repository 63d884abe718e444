"""What waits to be sent to MLflow, in a local file that outlives its process."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

_log = logging.getLogger(__name__)

LIMIT = 100_000
"""Rows of points that may wait, one for each epoch: some 50 MB."""
POINTS = "points"
"""The one kind of row that is given up when there are too many."""
RUN, END = "run", "end"
"""Kinds of rows that begin a run and end it."""

_ATTEMPTS = 5
_SHARE = 100
"""Of so many rows one is given up at a time, so that it seldom costs anything."""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, run, kind, content)",
    "CREATE TABLE IF NOT EXISTS unfinished (run PRIMARY KEY)",
)
_INSERT = "INSERT INTO waiting (run, kind, content) VALUES (?, ?, ?)"
# A process forked from this one inherits a connection that it must neither use nor close.
_INHERITED: list[sqlite3.Connection | None] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One thing that waits.

    Args:
        number: Its number in the spool.
        run: The key of the run that it belongs to.
        kind: What it is, such as ``"points"``.
        content: Plain values.
    """

    number: int
    run: str
    kind: str
    content: Any


class Spool:
    """Rows that wait in a file until somebody takes them away.

    The file is SQLite's, locked by its process for as long as that lives, and written without
    waiting for the disk. It outlives a process that is killed, but for the last milliseconds, and
    not a failure of power. Where no file can be made, rows wait in memory, and a warning says so.

    Args:
        folder: Where the file is made, and where the files of processes that are gone are found.
        target: What the rows are meant for: rows for something else are left alone.
        limit: Rows of points that may wait; the oldest are given up beyond that.

    Attributes:
        dropped: Rows of points that were given up.
        sending: Number of the last row that is being sent; those up to it are not given up.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     spool = Spool(Path(folder), "http://localhost:5000")
        ...     spool.put("a-run", "tags", {"colour": "green"})
        ...     waiting = spool.after(0, 10)
        ...     spool.remove([row.number for row in waiting])
        ...     spool.close()
        >>> [(row.run, row.kind, row.content) for row in waiting]
        [('a-run', 'tags', {'colour': 'green'})]
    """

    def __init__(self, folder: Path, target: str, *, limit: int = LIMIT) -> None:
        self.folder = folder
        self.target = target
        self.limit = limit
        self.dropped = 0
        self._at_once = False
        self._connection: sqlite3.Connection | None
        self._path: Path | None
        self._keeper: threading.Thread | None
        self._failed: bool
        self._begin()

    def put(self, run: str, kind: str, content: Any, *, instead: bool = False) -> None:
        """Add a row; ``instead`` of those of its run and kind that wait still, if so asked.

        Returns at once: a thread writes the file. Training would wait for other threads at each
        call of SQLite.
        """
        self._mine()
        self._fresh.append((run, kind, content, instead))
        if self._at_once:
            self._write()
            return
        if self._keeper is None:
            arguments = (self._signals,)
            self._keeper = threading.Thread(
                target=self._keep, args=arguments, name="greentrain-spool", daemon=True
            )
            self._keeper.start()
        self._signals.put(True)

    def after(self, number: int, count: int) -> list[Waiting]:
        """Return the first rows after a number, in their order."""
        self._write()
        query = "SELECT id, run, kind, content FROM waiting WHERE id > ? ORDER BY id LIMIT ?"
        with self._transaction() as connection:
            found = connection.execute(query, (number, count)).fetchall()
            if found:
                self.sending = found[-1][0]
        return [
            Waiting(number=row[0], run=row[1], kind=row[2], content=json.loads(row[3]))
            for row in found
        ]

    def remove(self, numbers: Sequence[int]) -> None:
        """Take rows away: they have arrived."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM waiting WHERE id = ?", [(number,) for number in numbers]
            )
            self._points = _points(connection)

    def count(self) -> int:
        """Return how many rows wait."""
        self._write()
        if self._connection is None:
            return 0
        with self._transaction() as connection:
            return int(connection.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def adopt(self) -> int:
        """Take over what processes left that are gone, and return how many rows that are.

        A run that such a process began and did not end is ended as killed.
        """
        taken = 0
        self._mine()
        with self._lock:
            for path in sorted(self.folder.glob(f"{_fingerprint(self.target)}-*.db")):
                if path != self._path and path not in self._strange:
                    taken += self._take(path)
        return taken

    def close(self) -> None:
        """Leave what waits to the next process; where nothing waits, no file stays."""
        self._write()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            self._signals.put(False)
            keeper.join()
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            empty = connection.execute("SELECT count(*) FROM waiting").fetchone()[0] == 0
            connection.close()
            if empty and self._path is not None:
                self._path.unlink(missing_ok=True)
            self._path = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "target": self.target, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["target"], limit=state["limit"])  # type: ignore[misc]
        self._at_once = True

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._fresh: deque[tuple[str, str, Any, bool]] = deque()
        self._signals: SimpleQueue[bool] = SimpleQueue()
        self._keeper = None
        self._connection = None
        self._path = None
        self._points = 0
        self.sending = 0
        self._failed = False
        self._strange: set[Path] = set()

    def _mine(self) -> None:
        if os.getpid() != self._pid:  # forked: the file and the lock are the other process's
            _INHERITED.append(self._connection)
            self._begin()
            self._at_once = True  # such a process ends without a word to its threads

    def _keep(self, signals: SimpleQueue[bool]) -> None:
        while signals.get():
            self._write()

    def _write(self) -> None:
        """Write what was put, in order; whatever fails, training goes on."""
        self._mine()
        with self._lock:
            try:
                if self._fresh:
                    with self._transaction() as connection:
                        while self._fresh:
                            self._insert(connection, *self._fresh.popleft())
            except (sqlite3.Error, TypeError, ValueError) as error:
                if not self._failed:
                    self._failed = True
                    _log.warning("MLflow will miss what cannot be kept on this disk: %s", error)

    def _insert(
        self, connection: sqlite3.Connection, run: str, kind: str, content: Any, instead: bool
    ) -> None:
        if instead:
            connection.execute("DELETE FROM waiting WHERE run = ? AND kind = ?", (run, kind))
        if kind == RUN:
            connection.execute("INSERT OR IGNORE INTO unfinished VALUES (?)", (run,))
        if kind == END:
            connection.execute("DELETE FROM unfinished WHERE run = ?", (run,))
        connection.execute(_INSERT, (run, kind, json.dumps(content)))
        self._points += kind == POINTS
        if self._points > self.limit:
            self._drop(connection)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._open()
            connection.execute("BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some errors have rolled back already
                    connection.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        """Return the connection; called with the lock held."""
        if self._connection is None:
            try:
                self._connection = self._made()
            except (OSError, sqlite3.Error) as error:
                self._path = None
                _log.warning(
                    "what MLflow does not take at once waits in memory, because of %s: %s",
                    *(self.folder, error),
                )
                self._connection = _connect(":memory:")
        return self._connection

    def _made(self) -> sqlite3.Connection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            name = f"{_fingerprint(self.target)}-{uuid.uuid4().hex}.db"
            self._path = self.folder / name
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL, 0o600))
            try:
                return _connect(self._path)
            except sqlite3.OperationalError:  # somebody took it for one that was left behind
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError  # the last attempt raises by itself

    def _drop(self, connection: sqlite3.Connection) -> None:
        """Give up the oldest points, except for those that are being sent at this moment."""
        gone = connection.execute(
            "DELETE FROM waiting WHERE id IN "
            "(SELECT id FROM waiting WHERE kind = ? AND id > ? ORDER BY id LIMIT ?)",
            (POINTS, self.sending, max(1, self.limit // _SHARE)),
        ).rowcount
        self.dropped += gone
        self._points -= gone

    def _take(self, path: Path) -> int:
        try:
            if path.stat().st_uid != os.getuid():
                return 0
            with closing(_connect(path)) as left:
                rows = left.execute("SELECT run, kind, content FROM waiting ORDER BY id").fetchall()
                killed = {"status": "KILLED", "at_ms": int(path.stat().st_mtime * 1000)}
                for (run,) in left.execute("SELECT run FROM unfinished ORDER BY rowid").fetchall():
                    rows.append((run, END, json.dumps(killed)))
                with self._transaction() as connection:
                    connection.executemany(_INSERT, rows)
                    self._points = _points(connection)
                # Killed here, the rows wait twice, and arrive once: MLflow knows them again.
                path.unlink()
                path.with_name(f"{path.name}-wal").unlink(missing_ok=True)
        except sqlite3.OperationalError:  # its process lives
            return 0
        except (OSError, sqlite3.Error) as error:
            self._strange.add(path)
            _log.warning("what waits in %s was not sent to MLflow, because %s", path, error)
            return 0
        return len(rows)


def _connect(path: Path | str) -> sqlite3.Connection:
    """Open a file for this connection alone, or raise at once if another has it."""
    # "rw": a file that was taken away meanwhile is not made again, readable by others.
    address = path if isinstance(path, str) else f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        address, timeout=0, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            connection.execute(table)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _points(connection: sqlite3.Connection) -> int:
    query = "SELECT count(*) FROM waiting WHERE kind = ?"
    return int(connection.execute(query, (POINTS,)).fetchone()[0])


def _fingerprint(target: str) -> str:
    return hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:12]
