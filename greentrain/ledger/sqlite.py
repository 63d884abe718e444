"""Open SQLite databases for a ledger: URL, file, journal and transactions."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool, QueuePool

from greentrain.errors import ConfigurationError
from greentrain.ledger.creation import create_file, wal_works
from greentrain.ledger.filesystems import is_network

DRIVERS = ("sqlite", "sqlite+pysqlite")
_RETRY_S = 0.02


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

    return _with_transactions(engine)


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
    # SQLite reads a write-ahead log through a second file, unless the database is immutable.
    where = f"file:{quote(str(path.absolute()))}?immutable=1" if frozen else path
    return sqlite3.connect(where, timeout=timeout_s, uri=frozen, check_same_thread=False)


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
