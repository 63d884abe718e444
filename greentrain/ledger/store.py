"""The database under the ledger: one engine, one way to write, one way to append a row."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    CONTENT,
    GENESIS,
    RUN_CHAIN,
    entries,
    metadata,
    row_hash,
    runs,
)
from greentrain.units import utc_now, utc_text

BUSY_TIMEOUT_S = 30.0


class Store:
    """Rows in a database file, appended inside transactions that exclude every other writer.

    Args:
        url: ``sqlite:///FILE``, or the file alone.
        create: Whether a file that does not exist is made; otherwise it is an error.

    Raises:
        ConfigurationError: If the URL cannot be used or the file is missing.
        LedgerError: If the file is no ledger.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = _sqlite_url(url)
        path = Path(self.url.database or "")
        if not path.exists():
            if not create:
                raise ConfigurationError(f"the ledger {str(path)!r} does not exist")
            _create_file(path)
        self._engine = _engine(self.url)
        try:
            with self.write() as connection:
                tables = set(inspect(connection).get_table_names())
                if not tables and create:
                    metadata.create_all(connection)
                elif not {table.name for table in metadata.sorted_tables} <= tables:
                    raise LedgerError(f"{str(path)!r} is not a greentrain ledger")
        except LedgerError:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that no other writer can overlap.

        Raises:
            LedgerError: If the database refuses it.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerError(
                f"the ledger {self.url.database!r} failed: {_cause(error)}"
            ) from error

    def append(
        self, connection: Connection, kind: str, chain: str, content: Mapping[str, Any]
    ) -> str:
        """Append one row to a chain, and return its hash.

        The first row of a run's own chain names its opening row as the one before it.

        Raises:
            LedgerError: If a number is not finite.
        """
        last = connection.execute(
            select(entries.c.seq, entries.c.hash)
            .where(entries.c.chain == chain)
            .order_by(entries.c.seq.desc())
            .limit(1)
        ).first()
        content = _as_stored(kind, content)
        entry: dict[str, Any] = {
            "kind": kind,
            "chain": chain,
            "seq": last.seq + 1 if last else 0,
            "recorded_utc": utc_text(utc_now()),
            "prev_hash": last.hash if last else _first_prev(connection, content, chain),
        }
        entry["hash"] = row_hash(entry, content)
        inserted = connection.execute(entries.insert().values(entry))
        entry_id = inserted.inserted_primary_key[0]  # type: ignore[index]
        connection.execute(CONTENT[kind].insert().values(entry_id=entry_id, **content))
        return str(entry["hash"])

    def rows(self, kind: str, **equals: Any) -> list[dict[str, Any]]:
        """Return the content of all entries of a kind, in order, with when each was recorded."""
        table = CONTENT[kind]
        query = select(entries.c.recorded_utc, table).join(
            entries, entries.c.id == table.c.entry_id
        )
        for column, value in equals.items():
            query = query.where(table.c[column] == value)
        with self.write() as connection:
            result = connection.execute(query.order_by(table.c.entry_id)).mappings()
            return [dict(row) for row in result]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def _sqlite_url(url: str) -> URL:
    text = url if "://" in url else f"sqlite:///{url}"
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):
        # Not shown: a URL that cannot be read may hold a password that cannot be masked.
        raise ConfigurationError(
            "cannot read the ledger's URL; write it as 'sqlite:///greentrain.db'"
        ) from None
    plain = parsed.drivername in ("sqlite", "sqlite+pysqlite") and not parsed.query
    if not plain or (parsed.host and parsed.database):
        raise ConfigurationError(
            f"the ledger's URL {parsed.render_as_string()!r} names no SQLite file; "
            "write it as 'sqlite:///greentrain.db'"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise ConfigurationError(
            f"the ledger {url!r} would live in memory and be lost; name a file, such as "
            "'sqlite:///greentrain.db'"
        )
    return parsed


def _create_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"cannot create the ledger {str(path)!r}: {error.strerror}"
        ) from None


def _engine(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # SQLAlchemy says when a transaction begins, not the driver: see `_begin`.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN that turns into a write fails at once when another writer is ahead of it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _as_stored(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as the database gives them back, so that they hash alike."""
    columns, stored = CONTENT[kind].c, dict(content)
    for name, value in content.items():
        if isinstance(columns[name].type, Float) and value is not None:
            if not math.isfinite(value):
                raise LedgerError(f"{name} of a {kind} is {value!r}; it is finite, or unknown")
            stored[name] = float(value) + 0.0  # SQLite keeps no negative zero
    return stored


def _first_prev(connection: Connection, content: Mapping[str, Any], chain: str) -> str:
    if chain in (RUN_CHAIN, BUDGET_CHAIN):
        return GENESIS
    opening = connection.execute(
        select(entries.c.hash).join(runs).where(runs.c.run_id == content["run_id"])
    ).scalar()
    if opening is None:
        raise LedgerError(f"the ledger has no run {content['run_id']!r}")
    return str(opening)


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
