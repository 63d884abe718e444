"""A small durable queue: rows wait in one SQLite file until they are removed."""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
import stat
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

_SUFFIX = ".queue"
_NEW_S = 60.0
"""An empty file that is younger than this is one that another process is making."""
_TABLES = (
    "CREATE TABLE waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, run, kind, content)",
    "CREATE TABLE about (queue_id, note)",
)
_INSERT = "INSERT INTO waiting (run, kind, content) VALUES (?, ?, ?)"

NewRow = tuple[str, str, Any]
"""Run, kind and content of a row; the content is a value that JSON can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRow:
    """A row that waits in a queue.

    Args:
        number: Its number in the queue. Numbers increase and are never used twice.
        run: The run it belongs to.
        kind: The kind of row, such as ``"window"`` or ``"points"``.
        content: Its values, as JSON returns them.
    """

    number: int
    run: str
    kind: str
    content: Any


class DiskQueue:
    """Keep rows in one SQLite file, in order, until they are removed.

    :meth:`create` makes a queue, and its process holds a lock on the file until it closes the
    queue or ends. Then another process of the same user can :meth:`adopt` the file. All methods
    work from any thread. In a forked process the queue is closed: it belongs to the parent.

    All methods raise ``OSError`` if the queue is closed, the disk is full or fails, the file holds
    something else, or JSON cannot hold a value. A method that fails changes nothing.

    Attributes:
        path: The file; ``None`` for a queue in memory.
        queue_id: Identifies the queue, also after another process has adopted it.
        note: Plain values that are stored with the rows.
        written_s: Time of the last write before the file was adopted, in seconds since 1970.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     queue = DiskQueue.create(Path(folder), "example-")
        ...     queue.append([("a run", "tags", {"colour": "green"}), ("a run", "end", None)])
        ...     first = queue.read(count=1)
        ...     queue.remove([row.number for row in first])
        ...     left = queue.count()
        ...     queue.delete()
        >>> [(row.number, row.kind, row.content) for row in first], left
        ([(1, 'tags', {'colour': 'green'})], 1)
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path | None, written_s: float = 0.0
    ) -> None:
        self.path = path
        self.written_s = written_s
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = connection
        self.queue_id, note = connection.execute("SELECT queue_id, note FROM about").fetchone()
        self.note: dict[str, Any] = dict(json.loads(note))
        _OPEN.add(self)

    @classmethod
    def create(
        cls,
        folder: Path | None,
        prefix: str = "",
        *,
        rows: Iterable[NewRow] = (),
        note: Mapping[str, Any] | None = None,
        durable: bool = True,
    ) -> DiskQueue:
        """Make a file that only this user can read, lock it, and write the first rows.

        Args:
            folder: Where the file is made; ``None`` for a queue in memory.
            prefix: Beginning of the file's name, by which :func:`queue_files` finds it.
            rows: The first rows.
            note: Plain values to store with the rows.
            durable: Whether a written row survives a power failure, which waits for the disk. A
                written row survives the end of its process in any case.
        """
        path = None if folder is None else folder / f"{prefix}{uuid.uuid4().hex}{_SUFFIX}"
        if path is not None:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            with _locked(path, durable) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                for table in _TABLES:
                    connection.execute(table)
                about = (uuid.uuid4().hex, json.dumps(note or {}))
                connection.execute("INSERT INTO about VALUES (?, ?)", about)
                connection.executemany(_INSERT, map(_encoded, rows))
                return cls(connection, path)
        except BaseException:
            _unlink(path)
            raise

    @classmethod
    def adopt(cls, path: Path) -> DiskQueue | None:
        """Open and lock a file that another process left; ``None`` if its process is alive.

        A file that other users could have written is refused with an ``OSError``.
        """
        try:
            found = _checked(path)
            if found[0].st_size == 0 and time.time() - found[0].st_mtime < _NEW_S:
                return None
            with _locked(path) as connection:
                # Only now the lock is held: this reads the file.
                tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if not os.path.samestat(found[0], path.lstat()):
                    raise FileNotFoundError  # another process adopted and deleted it
                if tables:
                    return cls(connection, path, max(state.st_mtime for state in found))
                connection.close()  # its process ended before it wrote the first row
                _unlink(path)
        except BlockingIOError:
            return None
        except OSError:
            if os.path.lexists(path):
                raise
        return None

    @property
    def is_open(self) -> bool:
        """``True`` while this process can use the queue."""
        return self._connection is not None

    def append(
        self,
        rows: Iterable[NewRow],
        *,
        replace: Iterable[tuple[str, str]] = (),
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Add rows, all or none.

        Args:
            rows: The rows.
            replace: Pairs of run and kind; waiting rows of these are removed first.
            note: Plain values that replace those stored with the rows.
        """
        with self._access() as connection:
            connection.executemany("DELETE FROM waiting WHERE run = ? AND kind = ?", replace)
            connection.executemany(_INSERT, map(_encoded, rows))
            if note is not None:
                connection.execute("UPDATE about SET note = ?", (json.dumps(note),))
        if note is not None:
            self.note = dict(note)

    def read(self, after: int = 0, count: int = -1) -> list[QueuedRow]:
        """Return the oldest rows with a number above ``after``, in order; -1 for all of them."""
        query = "SELECT id, run, kind, content FROM waiting WHERE id > ? ORDER BY id LIMIT ?"
        with self._access() as connection:
            return [
                QueuedRow(number=number, run=run, kind=kind, content=json.loads(content))
                for number, run, kind, content in connection.execute(query, (after, count))
            ]

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove rows that have arrived where they belong."""
        with self._access() as connection:
            connection.executemany("DELETE FROM waiting WHERE id = ?", [(n,) for n in numbers])

    def remove_oldest(self, kind: str, count: int, *, after: int = 0) -> int:
        """Remove the oldest rows of a kind with a number above ``after``; return how many."""
        query = (
            "DELETE FROM waiting WHERE id IN "
            "(SELECT id FROM waiting WHERE kind = ? AND id > ? ORDER BY id LIMIT ?)"
        )
        with self._access() as connection:
            return connection.execute(query, (kind, after, count)).rowcount

    def count(self, kind: str | None = None) -> int:
        """Return how many rows wait, of one kind or of all."""
        query = "SELECT count(*) FROM waiting WHERE ? IS NULL OR kind = ?"
        with self._access() as connection:
            return int(connection.execute(query, (kind, kind)).fetchone()[0])

    def close(self) -> None:
        """Unlock the file and leave it to the next process."""
        with self._lock, suppress(sqlite3.Error):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def delete(self) -> None:
        """Close the queue and delete its file."""
        self.close()
        _unlink(self.path)

    @contextmanager
    def _access(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _errors():
            if self._connection is None:
                raise OSError("the queue is closed, or belongs to the parent process")
            with self._connection:  # one transaction
                yield self._connection


def queue_files(folder: Path, prefix: str) -> list[Path]:
    """Return the queue files in a folder whose names begin with a prefix, sorted by name."""
    return sorted(folder.glob(f"{escape(prefix)}*{_SUFFIX}"))


def check_private(path: Path) -> os.stat_result:
    """Return the status of a file or folder that only this user can read and write.

    Raises:
        OSError: If it does not exist, is a link, or other users own it or have access.
    """
    state = path.lstat()
    plain = stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)
    if hasattr(os, "geteuid"):
        plain &= state.st_uid == os.geteuid() and not stat.S_IMODE(state.st_mode) & 0o077
    if not plain:
        raise PermissionError("it is a link, or other users could have written it")
    return state


_OPEN: weakref.WeakSet[DiskQueue] = weakref.WeakSet()


def _disown_all() -> None:
    """Close all queues in a forked process without touching the parent's locks and journals.

    Closing a connection would delete the parent's journal, also when this process ends. An extra
    reference prevents that.
    """
    for queue in list(_OPEN):
        if queue._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(queue._connection))
        queue._connection = None
        queue._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


def _checked(path: Path) -> list[os.stat_result]:
    """Check a file and its journals, which SQLite reads with it.

    Opening the file to do so would end this process's own locks on it when it is closed again.
    """
    found = [check_private(path)]
    for journal in _journals(path):
        with suppress(FileNotFoundError):
            found.append(check_private(journal))
    return found


@contextmanager
def _locked(path: Path | None, durable: bool = True) -> Iterator[sqlite3.Connection]:
    """Open a file that is locked once it is read, and close it again if the block fails.

    Raises:
        BlockingIOError: If another process uses the file.
        OSError: If it cannot be used.
    """
    # "rw": a file that was deleted meanwhile must not be made again, readable by others.
    address = ":memory:" if path is None else f"{path.absolute().as_uri()}?mode=rw"
    with _errors():
        connection = sqlite3.connect(
            address, timeout=0, isolation_level="IMMEDIATE", check_same_thread=False, uri=True
        )
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            # Copied back early, the journal stays small where files may not grow.
            connection.execute("PRAGMA wal_autocheckpoint = 64")
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            yield connection
        except BaseException:
            connection.close()
            raise


@contextmanager
def _errors() -> Iterator[None]:
    """Raise any failure as an ``OSError``."""
    try:
        yield
    except (sqlite3.Error, TypeError, ValueError) as error:
        busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        kind = BlockingIOError if busy else OSError
        raise kind(f"the queue failed: {error}") from error


def _encoded(row: NewRow) -> NewRow:
    run, kind, content = row
    return run, kind, json.dumps(content)


def _journals(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-journal")]


def _unlink(path: Path | None) -> None:
    for each in [] if path is None else [path, *_journals(path)]:
        each.unlink(missing_ok=True)
