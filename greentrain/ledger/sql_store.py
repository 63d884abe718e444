"""Store a ledger's rows in SQLite or PostgreSQL."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Float, Row, String, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    SQLAlchemyError,
)

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import postgres, sqlite
from greentrain.ledger.environment import host_hash
from greentrain.ledger.hashing import canonical, genesis, ledger_key, row_hash, wrong_key
from greentrain.ledger.heads import changed_heads
from greentrain.ledger.hosts import refuse_other_hosts
from greentrain.ledger.integrity import broken_indexes, foreign_objects
from greentrain.ledger.revisions import make_tables, needs_making
from greentrain.ledger.row_reader import RowReader
from greentrain.ledger.schema import BUDGET_CHAIN, CONTENT, RUN_CHAIN, entries, runs
from greentrain.ledger.store import LedgerStore, RowError, UnreadableError
from greentrain.texts import storable
from greentrain.units import utc_now, utc_text

BUSY_TIMEOUT_S = 30.0
"""Seconds that a transaction waits for other writers."""

_OF_THE_ROW = (DataError, IntegrityError, InterfaceError, ProgrammingError)
_OPENINGS = {"run": RUN_CHAIN, "budget": BUDGET_CHAIN}
_ALLOWED = (
    "write it as 'sqlite:///greentrain.db', or 'postgresql+psycopg://user@host/database' for a team"
)


class TransactionRows(RowReader):
    """A reader of the rows that a transaction sees.

    Args:
        connection: Connection of the transaction.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _rows(self, kind: str, equals: Mapping[str, Any]) -> list[dict[str, Any]]:
        table = CONTENT[kind]
        query = select(entries.c.recorded_utc, table).join(
            entries, entries.c.id == table.c.entry_id
        )
        for column, value in equals.items():
            query = query.where(table.c[column] == value)
        result = self._connection.execute(query.order_by(table.c.entry_id)).mappings()
        return [dict(row) for row in result]


class SqlStore(LedgerStore):
    """The store of a SQLite file, of a SQLite database in memory, or of a PostgreSQL database.

    Args:
        url: ``sqlite:///FILE``, the file alone, or ``postgresql+psycopg://USER@HOST/DATABASE``;
            ``None`` for a database in memory.
        create: ``False`` to refuse a ledger that does not exist.
        keep_open: ``False`` to close the database after each transaction.
        key: Key that rows are hashed with; ``GREENTRAIN_LEDGER_KEY`` if ``None``.
        clock: Function that returns the present time as an aware time.

    Attributes:
        default_clock: The server's clock with PostgreSQL, and this host's otherwise.

    Raises:
        ConfigurationError: If the URL or the key cannot be used, or there is no such ledger.
        LedgerError: If the database holds something else, or a ledger that this version of
            greentrain cannot read.
    """

    def __init__(
        self,
        url: str | None,
        *,
        create: bool = True,
        keep_open: bool = True,
        key: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._url = make_url("sqlite://") if url is None else _parsed(url)
        self._name = f"memory {uuid.uuid4().hex[:8]}" if url is None else None
        self.key = ledger_key(key)
        self.clock = clock
        self.default_clock: Callable[[], datetime] = utc_now
        self.host = host_hash()
        self._checked = False
        self._file = None if self.path is None else sqlite.FileGuard(self.path)
        self._engine = self._open_engine(create=create, keep_open=keep_open)
        try:
            with self.read() as connection:
                making = needs_making(connection, self.name, create=create)
            if making:
                if self.path is not None:
                    sqlite.switch_to_wal(self._engine, self.path, BUSY_TIMEOUT_S)
                with self.write() as connection:
                    make_tables(connection, self.name, create=create)
        except BaseException:
            self.close()
            raise

    @property
    def in_memory(self) -> bool:
        """``True`` if the rows are lost when the store is closed."""
        return self._name is not None

    @property
    def path(self) -> Path | None:
        """The SQLite file; ``None`` for a ledger in memory or on a server."""
        if self.in_memory or self._url.drivername not in sqlite.DRIVERS:
            return None
        return Path(self._url.database or "")

    @property
    def name(self) -> str:
        """Name for messages: the file, or the URL without secrets."""
        return self._name or (self.url if self.path is None else str(self.path))

    @property
    def public_name(self) -> str:
        """Name for reports: the file's name or the database's name, without folder and server."""
        if self.path is not None:
            return self.path.name
        return self._name or f"postgresql:///{self._url.database}"

    @property
    def url(self) -> str:
        """URL without secrets."""
        return postgres.masked(self._url) if self.path is None else sqlite.file_url(self.path)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction that no other writer can overlap: see :class:`LedgerStore`."""
        if self._file is not None:
            self._file.check()
        with self._begin(self._engine) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that only reads: see :class:`LedgerStore`."""
        with self._begin(self._engine.execution_options(greentrain_reads=True)) as connection:
            yield connection

    def append(
        self, connection: Connection, kind: str, chain: str, content: Mapping[str, Any]
    ) -> str:
        """Append one row to a chain, and return its hash: see :class:`LedgerStore`."""
        self._check_before_first_row(connection)
        if kind in _OPENINGS:
            if self.path is not None:
                refuse_other_hosts(connection, self.host, self.name, self.clock())
            heads = changed_heads(connection, _OPENINGS[kind])
            content = {**content, "heads": canonical(heads)}
            if kind == "run":
                content["host"] = self.host
        elif kind == "reservation" and self.path is not None:
            refuse_other_hosts(
                connection, self.host, self.name, self.clock(), run_id=content["run_id"]
            )
        last = _last(connection, chain)
        content = _as_stored(kind, content)
        entry: dict[str, Any] = {
            "kind": kind,
            "chain": chain,
            "seq": last.seq + 1 if last else 0,
            "recorded_utc": utc_text(self.clock()),
            "prev_hash": last.hash if last else self._first_prev(connection, content, chain),
        }
        entry["hash"] = row_hash(entry, content, self.key)
        inserted = connection.execute(entries.insert().values(entry))
        entry_id = inserted.inserted_primary_key[0]  # type: ignore[index]
        connection.execute(CONTENT[kind].insert().values(entry_id=entry_id, **content))
        if not _is_written(connection, kind, entry_id, entry["hash"]):
            raise LedgerError(
                f"the ledger {self.name!r} dropped a new row ({kind}), or gave it a number that is "
                "not the highest; look for a trigger or a sequence that was set back"
            )
        return str(entry["hash"])

    def rows(self, kind: str, **equals: Any) -> list[dict[str, Any]]:
        """Return the rows of a kind in order: see :class:`LedgerStore`."""
        with self.read() as connection:
            return TransactionRows(connection).rows(kind, **equals)

    def head(self, chain: str) -> tuple[int, str] | None:
        """Return the number of rows of a chain and its last hash: see :class:`LedgerStore`."""
        with self.read() as connection:
            last = _last(connection, chain)
        return None if last is None else (last.seq + 1, last.hash)

    def close(self) -> None:
        """Close the database."""
        if self.path is None and not self.in_memory:
            postgres.close_engine(self._engine)
        else:
            self._engine.dispose()

    def _open_engine(self, *, create: bool, keep_open: bool) -> Engine:
        if self.in_memory:
            return sqlite.open_memory(BUSY_TIMEOUT_S)
        if self.path is None:
            if keep_open:
                engine = postgres.shared_engine(self._url, timeout_s=BUSY_TIMEOUT_S)
            else:
                engine = postgres.open_engine(self._url, keep_open=False, timeout_s=BUSY_TIMEOUT_S)
            self.default_clock = postgres.clock_of(engine)
            return engine
        return sqlite.open_engine(
            self._url, create=create, keep_open=keep_open, timeout_s=BUSY_TIMEOUT_S
        )

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            if self.path is not None and (why := sqlite.damage(error)):
                raise UnreadableError(
                    f"the ledger {self.name!r} cannot be read, because {why} ({_cause(error)}); "
                    "restore it from a copy"
                ) from error
            kind = RowError if isinstance(error, _OF_THE_ROW) else LedgerError
            raise kind(f"the ledger {self.name!r} failed: {_cause(error)}") from error
        except UnicodeDecodeError as error:  # in a message of SQLite about a damaged schema
            raise UnreadableError(
                f"the ledger {self.name!r} cannot be read, because its file is damaged or was cut "
                "short; restore it from a copy"
            ) from error
        except UnicodeEncodeError as error:
            raise RowError(
                f"the ledger {self.name!r} cannot hold or find the text {error.object!r:.80}"
            ) from error

    def _check_before_first_row(self, connection: Connection) -> None:
        if self._checked:
            return
        if found := [*foreign_objects(connection), *broken_indexes(connection)]:
            raise LedgerError(
                f"the ledger {self.name!r} was changed from outside, and nothing can be written to "
                f"it: {found[0]}; run 'greentrain verify' for all that was found"
            )
        first = select(func.min(entries.c.id)).scalar_subquery()
        query = select(entries.c.prev_hash).where(entries.c.id == first)
        prev_hash = connection.execute(query).scalar()
        if prev_hash is not None and prev_hash != genesis(self.key):
            raise LedgerError(wrong_key(self.name, prev_hash, self.key))
        self._checked = prev_hash is not None

    def _first_prev(self, connection: Connection, content: Mapping[str, Any], chain: str) -> str:
        if chain in _OPENINGS.values():
            return genesis(self.key)
        opening = connection.execute(
            select(entries.c.hash).join(runs).where(runs.c.run_id == content["run_id"])
        ).scalar()
        if opening is None:
            raise RowError(f"the ledger has no run {content['run_id']!r}")
        return str(opening)


def _parsed(url: str) -> URL:
    try:
        parsed = sqlite.parsed(url) or make_url(url)
    except (ArgumentError, ValueError):
        # Not shown: a URL that cannot be read may hold a password that cannot be masked.
        raise ConfigurationError(f"cannot read the ledger's URL; {_ALLOWED}") from None
    if parsed.drivername in postgres.DRIVERS:
        postgres.check_url(parsed)
    elif parsed.drivername in sqlite.DRIVERS:
        sqlite.check_url(parsed, url)
    else:
        raise ConfigurationError(
            f"the ledger's URL {postgres.masked(parsed)!r} is of another database; {_ALLOWED}"
        )
    return parsed


def _last(connection: Connection, chain: str) -> Row[Any, Any] | None:
    return connection.execute(
        select(entries.c.seq, entries.c.hash)
        .where(entries.c.chain == chain)
        .order_by(entries.c.seq.desc())
        .limit(1)
    ).first()


def _is_written(connection: Connection, kind: str, entry_id: int, row_hash: str) -> bool:
    """Return whether both parts of a row can be read back, and it is the last one.

    A trigger can drop an insert, and a sequence that was set back can number it into a gap.
    """
    content, later = CONTENT[kind], entries.alias("later")
    query = (
        select(entries.c.hash)
        .join(content, content.c.entry_id == entries.c.id)
        .where(entries.c.id == entry_id, ~select(later.c.id).where(later.c.id > entry_id).exists())
    )
    return connection.execute(query).scalar() == row_hash


def _as_stored(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as the database returns them, so that they have the same hash."""
    columns, stored = CONTENT[kind].c, dict(content)
    for name, value in content.items():
        if isinstance(columns[name].type, Float) and value is not None:
            if not math.isfinite(value):
                raise RowError(
                    f"{name} of a {kind} is {value!r}; give a finite number, or None if unknown"
                )
            stored[name] = float(value) + 0.0  # SQLite keeps no negative zero
        elif isinstance(columns[name].type, String) and value is not None:
            if not isinstance(value, str):
                raise LedgerError(f"{name} of a {kind} is {value!r}; it must be a text")
            stored[name] = storable(str.__str__(value))  # of a subclass too, such as an Enum
    return stored


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
