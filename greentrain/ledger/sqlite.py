"""SQLite under the ledger: its URL, its file, its journal and how transactions begin."""

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
    """Refuse a URL of SQLite that names no file.

    Raises:
        ConfigurationError: If it is in memory, or has a host or options.
    """
    if url.query or (url.host and url.database):
        raise ConfigurationError(
            f"the ledger's URL {url.render_as_string()!r} names no SQLite file; "
            "write it as 'sqlite:///greentrain.db'"
        )
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            f"the ledger {given!r} would live in memory and be lost; name a file, such as "
            "'sqlite:///greentrain.db'"
        )


def open_engine(url: URL, *, create: bool, keep_open: bool, timeout_s: float) -> Engine:
    """Return the engine of a file, which is created first where that is asked for.

    Raises:
        ConfigurationError: If the file is missing and not to be created, or cannot be.
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
        # SQLAlchemy says when a transaction begins, not the driver: see `_begin`.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            connection.execute("PRAGMA journal_mode=TRUNCATE")
        elif network:  # made elsewhere and brought here, where WAL needs what the network lacks
            retried(lambda: connection.execute("PRAGMA journal_mode=TRUNCATE"), timeout_s)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN that turns into a write fails at once when another writer is ahead of it.
        reads = connection.get_execution_options().get("greentrain_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def switch_to_wal(engine: Engine, path: Path, timeout_s: float) -> None:
    """Give a file that is still empty a write-ahead log, where a scratch file shows that it works.

    A file that :func:`create_file` made whole has it already.
    """
    if not wal_works(path):
        return
    raw = engine.raw_connection()
    try:
        connection = raw.driver_connection
        if isinstance(connection, sqlite3.Connection):
            retried(lambda: connection.execute("PRAGMA journal_mode=WAL"), timeout_s)
    finally:
        raw.close()


def _is_frozen(path: Path) -> bool:
    """Return whether a file lies where nothing can be written, and is all there is of a ledger."""
    log = path.with_name(f"{path.name}-wal")
    return not os.access(path.parent, os.W_OK) and not (log.exists() and log.stat().st_size)


def _connect(path: Path, timeout_s: float, *, frozen: bool) -> sqlite3.Connection:
    # A write-ahead log takes a file beside it even to read, unless it is said that nobody writes.
    where = f"file:{quote(str(path.absolute()))}?immutable=1" if frozen else path
    return sqlite3.connect(where, timeout=timeout_s, uri=frozen, check_same_thread=False)


def retried(act: Callable[[], object], timeout_s: float) -> None:
    """Do what SQLite refuses at once, whatever the busy timeout, while another holds the file."""
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            act()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until_s:
                raise
        time.sleep(_RETRY_S)
