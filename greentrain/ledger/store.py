"""The database under the ledger: one engine, one way to write, one way to append a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Float, Row, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import postgres, sqlite
from greentrain.ledger.environment import host_hash
from greentrain.ledger.heads import changed_heads
from greentrain.ledger.hmac_key import ledger_key
from greentrain.ledger.hosts import refuse_other_hosts
from greentrain.ledger.revisions import make_tables, needs_making
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    CONTENT,
    RUN_CHAIN,
    canonical,
    entries,
    genesis,
    row_hash,
    runs,
)
from greentrain.units import utc_now, utc_text

BUSY_TIMEOUT_S = 30.0
_OPENINGS = {"run": RUN_CHAIN, "budget": BUDGET_CHAIN}


class Store:
    """Rows in a database, appended inside transactions that exclude every other writer.

    Args:
        url: ``sqlite:///FILE``, the file alone, or ``postgresql+psycopg://USER@HOST/DATABASE``.
        create: Whether a ledger that does not exist is made; otherwise it is an error.
        keep_open: Whether the database stays open from one transaction to the next.
        key: What rows are hashed with; ``GREENTRAIN_LEDGER_KEY`` if ``None``.
        clock: The present time, aware.

    Raises:
        ConfigurationError: If the URL or the key cannot be used, or there is no such ledger.
        LedgerError: If the database holds something else, or a newer ledger.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        keep_open: bool = True,
        key: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.url = _parsed(url)
        self.key = ledger_key(key)
        self.clock = clock
        self.host = host_hash()
        """Recorded with each run; on SQLite other hosts' runs may not be under way."""
        self._begun = False
        self._engine = self._opened(create=create, keep_open=keep_open)
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
    def path(self) -> Path | None:
        """The SQLite file; ``None`` for a ledger on a server."""
        return Path(self.url.database or "") if self.url.drivername in sqlite.DRIVERS else None

    @property
    def name(self) -> str:
        """What messages call the ledger: its file, or its URL without anything secret."""
        return postgres.shown(self.url) if self.path is None else str(self.path)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that no other writer can overlap.

        Raises:
            LedgerError: If the database refuses it.
        """
        with self._begin(self._engine) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees the ledger as it stands now, and keeps nobody waiting.

        Raises:
            LedgerError: If the database refuses it.
        """
        with self._begin(self._engine.execution_options(greentrain_reads=True)) as connection:
            yield connection

    def append(
        self, connection: Connection, kind: str, chain: str, content: Mapping[str, Any]
    ) -> str:
        """Append one row to a chain, and return its hash.

        The first row of a run's own chain names its opening row as the one before it. An opening
        row and a budget row hold the heads of all chains that changed since the last such row.

        Raises:
            LedgerError: If a number is not finite, if the ledger was begun with another key, or if
                another host writes to the same SQLite file.
        """
        self._check_key(connection)
        if kind in _OPENINGS:
            if self.path is not None:
                refuse_other_hosts(connection, self.host, self.name, self.clock())
            heads = changed_heads(connection, _OPENINGS[kind])
            content = {**content, "heads": canonical(heads)}
            if kind == "run":
                content["host"] = self.host
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
        return str(entry["hash"])

    def head(self, chain: str) -> tuple[int, str] | None:
        """Return (count, head) of one chain; ``None`` if it has no row."""
        with self.read() as connection:
            last = _last(connection, chain)
        return None if last is None else (last.seq + 1, last.hash)

    def rows(self, kind: str, **equals: Any) -> list[dict[str, Any]]:
        """Return the content of all entries of a kind, in order, with when each was recorded."""
        table = CONTENT[kind]
        query = select(entries.c.recorded_utc, table).join(
            entries, entries.c.id == table.c.entry_id
        )
        for column, value in equals.items():
            query = query.where(table.c[column] == value)
        with self.read() as connection:
            result = connection.execute(query.order_by(table.c.entry_id)).mappings()
            return [dict(row) for row in result]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _opened(self, *, create: bool, keep_open: bool) -> Engine:
        if self.path is None:
            return postgres.open_engine(self.url, keep_open=keep_open, timeout_s=BUSY_TIMEOUT_S)
        return sqlite.open_engine(
            self.url, create=create, keep_open=keep_open, timeout_s=BUSY_TIMEOUT_S
        )

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger {self.name!r} failed: {_cause(error)}") from error

    def _check_key(self, connection: Connection) -> None:
        if self._begun:
            return
        first = first_prev_hash(connection)
        if first is not None and first != genesis(self.key):
            raise LedgerError(key_sentence(self.name, first, self.key))
        self._begun = first is not None

    def _first_prev(self, connection: Connection, content: Mapping[str, Any], chain: str) -> str:
        if chain in _OPENINGS.values():
            return genesis(self.key)
        opening = connection.execute(
            select(entries.c.hash).join(runs).where(runs.c.run_id == content["run_id"])
        ).scalar()
        if opening is None:
            raise LedgerError(f"the ledger has no run {content['run_id']!r}")
        return str(opening)


def first_prev_hash(connection: Connection) -> str | None:
    """Return what the ledger's first row names as the one before it; it shows whether it has a key.

    ``None`` if the ledger has no row.
    """
    first = select(func.min(entries.c.id)).scalar_subquery()
    found = connection.execute(select(entries.c.prev_hash).where(entries.c.id == first)).scalar()
    return None if found is None else str(found)


def key_sentence(name: str, first: str, key: bytes | None) -> str:
    """Say what is wrong between a ledger and the key that was given, or was not."""
    if first == genesis():
        return (
            f"the ledger {name!r} was begun without a key, and one is given; leave "
            "GREENTRAIN_LEDGER_KEY out, or begin another ledger"
        )
    if key is None:
        return (
            f"the ledger {name!r} was begun with a key: give it in the environment variable "
            "GREENTRAIN_LEDGER_KEY"
        )
    return f"the ledger {name!r} was begun with another key than the one that is given"


def _parsed(url: str) -> URL:
    text = url if "://" in url else f"sqlite:///{url}"
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):
        # Not shown: a URL that cannot be read may hold a password that cannot be masked.
        raise ConfigurationError(f"cannot read the ledger's URL; {_ALLOWED}") from None
    if parsed.drivername in postgres.DRIVERS:
        postgres.check_url(parsed)
    elif parsed.drivername in sqlite.DRIVERS:
        sqlite.check_url(parsed, url)
    else:
        raise ConfigurationError(
            f"the ledger's URL {postgres.shown(parsed)!r} names neither; {_ALLOWED}"
        )
    return parsed


_ALLOWED = (
    "write it as 'sqlite:///greentrain.db', or 'postgresql+psycopg://user@host/database' for a team"
)


def _last(connection: Connection, chain: str) -> Row[Any, Any] | None:
    return connection.execute(
        select(entries.c.seq, entries.c.hash)
        .where(entries.c.chain == chain)
        .order_by(entries.c.seq.desc())
        .limit(1)
    ).first()


def _as_stored(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as the database gives them back, so that they hash alike."""
    columns, stored = CONTENT[kind].c, dict(content)
    for name, value in content.items():
        if isinstance(columns[name].type, Float) and value is not None:
            if not math.isfinite(value):
                raise LedgerError(f"{name} of a {kind} is {value!r}; it is finite, or unknown")
            stored[name] = float(value) + 0.0  # SQLite keeps no negative zero
    return stored


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
