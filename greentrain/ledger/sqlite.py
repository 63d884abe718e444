"""Open SQLite databases for a ledger: URL, file, journal and transactions."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from urllib.parse import quote, unquote

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool, QueuePool

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger.creation import create_file, remove_drafts, wal_works
from greentrain.ledger.filesystems import is_mount, is_network

DRIVERS = ("sqlite", "sqlite+pysqlite")
_RETRY_S = 0.02


def file_url(path: str | PathLike[str]) -> str:
    """Return the URL of a ledger in a file, with any characters in its path.

    Example:
        >>> file_url("runs/50%/what?.db")
        'sqlite:///runs/50%25/what%3F.db'
    """
    return "sqlite:///" + os.fspath(path).replace("%", "%25").replace("?", "%3F")


def parsed(url: str) -> URL | None:
    """Read the URL of a file, or its path alone; ``None`` if it is another kind of URL.

    Not left to SQLAlchemy, because version 2.0 leaves ``%3F`` as it is.
    """
    if "://" not in url:
        return URL.create("sqlite", database=url)
    driver, _, rest = url.partition(":///")
    path, mark, _ = rest.partition("?")
    if driver not in DRIVERS or mark:
        return None
    return URL.create(driver, database=unquote(path))


def same_place(first: object, second: object) -> bool:
    """Return whether two URLs or paths name one ledger: ``k.db`` is ``sqlite:///k.db``."""
    if first == second or not (isinstance(first, str) and isinstance(second, str)):
        return first == second
    files = [None if found is None else found.database for found in map(parsed, (first, second))]
    return None not in files and len({Path(str(file)).resolve() for file in files}) == 1


def check_url(url: URL, given: str) -> None:
    """Refuse a SQLite URL that names no file.

    Raises:
        ConfigurationError: If it names a database in memory, or has a host or options.
    """
    if url.query or (url.host and url.database):
        raise ConfigurationError(
            "the ledger's URL names no SQLite file; write it as 'sqlite:///greentrain.db'"
        )
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            f"the ledger {given!r} would be in memory and its rows lost; name a file such as "
            "'sqlite:///greentrain.db', or call Ledger.in_memory() in a test"
        )


def open_engine(url: URL, *, create: bool, keep_open: bool, timeout_s: float) -> Engine:
    """Return the engine of a file, and create the file first if ``create`` is set.

    Raises:
        ConfigurationError: If the file is missing and ``create`` is not set, or it cannot be
            created.
    """
    path = Path(url.database or "")
    if not path.exists():
        if not create:
            raise ConfigurationError(f"the ledger {str(path)!r} does not exist")
        create_file(path)
    engine = create_engine(
        url,
        creator=partial(_connect, path, timeout_s, frozen=not create and _is_frozen(path)),
        poolclass=QueuePool if keep_open else NullPool,
    )
    network = is_network(path)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            connection.execute("PRAGMA journal_mode=TRUNCATE")
        elif network:  # created elsewhere and moved to a network file system, where WAL is unsafe
            retry_while_locked(
                lambda: connection.execute("PRAGMA journal_mode=TRUNCATE"), timeout_s
            )

    @event.listens_for(engine, "handle_error")
    def _open_anew(context: ExceptionContext) -> None:
        # SQLite opens a file or its log for reading alone where a disk is read-only for a moment,
        # and the connection stays so. The next transaction gets another one.
        if "readonly database" in str(context.original_exception):
            context.is_disconnect = True

    return _with_transactions(engine)


class FileGuard:
    """Refuse to write to a file that was deleted or replaced, or that has a second name.

    SQLite goes on writing to a file that no longer has a name. Under two names of one file it keeps
    two write-ahead logs, and neither process sees the other's rows.

    Args:
        path: The file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None

    def check(self) -> None:
        """Check the file before a transaction that writes.

        Raises:
            LedgerError: If the file is gone or another one, or had a second name at the first call.
        """
        try:
            found = self._path.stat()
        except OSError as error:
            raise LedgerError(
                f"the ledger {str(self._path)!r} cannot be written, because its file is gone "
                f"({error.strerror}); put it back, and what waits is written"
            ) from None
        if self._file is None:
            self._refuse_second_names()
            self._file = (found.st_dev, found.st_ino)
        elif self._file != (found.st_dev, found.st_ino):
            raise LedgerError(
                f"the ledger {str(self._path)!r} was replaced by another file during this run; "
                "what waits is written when a new process opens it"
            )

    def _refuse_second_names(self) -> None:
        if self._path.stat().st_nlink > 1:
            remove_drafts(self._path)
        if (n_names := self._path.stat().st_nlink) > 1:
            raise LedgerError(
                f"the file of the ledger {str(self._path)!r} has {n_names} names (hard links), and "
                "under each name SQLite would keep separate rows; delete the others, or copy it"
            )
        if is_mount(self._path):
            raise LedgerError(
                f"the ledger {str(self._path)!r} is mounted as a single file, and its write-ahead "
                "log would not be shared; mount its folder instead"
            )


_DAMAGE = {
    "malformed": "its file is damaged or was cut short",
    "not a database": "its file is no SQLite database",
    "decode to UTF-8": "it holds a text that is not UTF-8",
}


def damage(error: Exception) -> str:
    """Return why a file cannot be read, if an error says that it is damaged; else nothing."""
    return next((why for sign, why in _DAMAGE.items() if sign in str(error)), "")


def open_memory(timeout_s: float) -> Engine:
    """Return the engine of a new database in memory.

    All threads share its one connection and take turns: a transaction waits at most ``timeout_s``
    seconds for the connection.
    """
    engine = create_engine(
        "sqlite://",
        creator=partial(sqlite3.connect, ":memory:", check_same_thread=False),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=timeout_s,
    )
    return _with_transactions(engine)


def switch_to_wal(engine: Engine, path: Path, timeout_s: float) -> None:
    """Give an empty file a write-ahead log if a scratch file shows that one works there.

    A file that :func:`create_file` filled has one already.
    """
    if not wal_works(path):
        return
    raw = engine.raw_connection()
    try:
        connection = raw.driver_connection
        if isinstance(connection, sqlite3.Connection):
            retry_while_locked(lambda: connection.execute("PRAGMA journal_mode=WAL"), timeout_s)
    finally:
        raw.close()


def _with_transactions(engine: Engine) -> Engine:
    """Let SQLAlchemy begin the transactions, instead of the driver."""

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN that turns into a write fails at once if another writer is active.
        reads = connection.get_execution_options().get("greentrain_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _is_frozen(path: Path) -> bool:
    """Return whether a file is in a read-only folder and has no rows in a write-ahead log."""
    log = path.with_name(f"{path.name}-wal")
    return not os.access(path.parent, os.W_OK) and not (log.exists() and log.stat().st_size)


def _connect(path: Path, timeout_s: float, *, frozen: bool) -> sqlite3.Connection:
    # Never creates a file: one that was deleted would come back empty.
    # SQLite reads a write-ahead log through a second file, unless the database is immutable.
    options = "immutable=1" if frozen else "mode=rw"
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{options}"
    return sqlite3.connect(uri, timeout=timeout_s, uri=True, check_same_thread=False)


def retry_while_locked(act: Callable[[], object], timeout_s: float) -> None:
    """Repeat an action that SQLite refuses, without a busy timeout, while the file is locked."""
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            act()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until_s:
                raise
        time.sleep(_RETRY_S)
