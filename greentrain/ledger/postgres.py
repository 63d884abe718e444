"""Open PostgreSQL databases for a ledger: URL and transactions."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool, QueuePool

from greentrain._about import DISTRIBUTION
from greentrain.errors import ConfigurationError
from greentrain.units import utc_now

DRIVERS = ("postgresql", "postgresql+psycopg")
_SECRET = re.compile("user|pass|secret|token|key", re.IGNORECASE)
# A connection that broke silently is noticed within half a minute.
_CONNECT: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "greentrain",
    "client_encoding": "utf8",
}

_GRACE_S = 10.0
"""Seconds that a server may be silent beyond the wait for a lock."""
_IDLE = "60s"
"""Time after which a server ends a transaction whose client stopped, and frees its lock."""


def check_url(url: URL) -> None:
    """Refuse a URL that cannot be used.

    Raises:
        ConfigurationError: If it names no database, or the driver is not installed.
    """
    if not url.database:
        raise ConfigurationError(
            f"the ledger's URL {masked(url)!r} names no database; write it as "
            "'postgresql+psycopg://user@host/database'"
        )
    try:
        import_module("psycopg")
    except ImportError:  # the driver or the library that it wraps is missing
        raise ConfigurationError(
            f"the ledger {masked(url)!r} needs a driver for PostgreSQL: "
            f'pip install "{DISTRIBUTION}[postgres]"'
        ) from None


def masked(url: URL) -> str:
    """Return the URL without user, password and other secrets, in whichever part they are."""
    shown = {name: value for name, value in url.query.items() if not _SECRET.search(name)}
    return URL.create(
        url.drivername, host=url.host, port=url.port, database=url.database, query=shown
    ).render_as_string()


def open_engine(url: URL, clock: ServerClock, *, keep_open: bool, timeout_s: float) -> Engine:
    """Return the engine of a database, and set ``clock`` at each connection.

    Writers take turns: each write transaction begins with an advisory lock that all writers of this
    ledger share, and holds it until it ends. The next writer therefore sees all that was committed,
    as with ``BEGIN IMMEDIATE`` on SQLite. SERIALIZABLE would instead fail one of two runs that
    append at the same time, and the transaction would have to be repeated.

    Nothing waits without an end: connecting, a statement and a lock each fail in time, also where
    the server accepts the connection and never answers.
    """
    silent_s = timeout_s + _GRACE_S
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={name: _CONNECT[name] for name in _CONNECT if name not in url.query},
        isolation_level="READ COMMITTED",
        **(
            {"poolclass": QueuePool, "pool_pre_ping": True}
            if keep_open
            else {"poolclass": NullPool}
        ),
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, args: Any, options: Any) -> Any:
        return _connection_class(silent_s).connect(*args, **options)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE}'")
        connection.execute(f"SET lock_timeout = {round(timeout_s * 1000)}")
        connection.execute("SET synchronous_commit = on")
        clock.set(connection.execute("SELECT clock_timestamp()").fetchone()[0])
        connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("greentrain_reads", False):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        else:
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(hashtext('greentrain ledger'), "
                "hashtext(current_schema()))"
            )

    return engine


class ServerClock:
    """The time of a server, which all hosts share: a host whose clock is wrong changes nothing.

    It is read once for each connection, and continues with this host's monotonic clock.
    """

    def __init__(self) -> None:
        self._offset: timedelta | None = None
        self._epoch = datetime(1970, 1, 1, tzinfo=UTC)

    def set(self, now: datetime) -> None:
        """Take the server's present time."""
        self._offset = now - self._epoch - timedelta(seconds=time.monotonic())

    def __call__(self) -> datetime:
        """Return the present time; this host's until there was a connection."""
        if self._offset is None:
            return utc_now()
        return self._epoch + timedelta(seconds=time.monotonic()) + self._offset


@cache
def _connection_class(silent_s: float) -> Any:
    """Return a class of connections that fail after a server's silence of ``silent_s`` seconds.

    TCP keepalives and time-outs of the server do not help where its process is frozen: its kernel
    still answers.
    """
    import psycopg

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            try:
                return super().wait(_until_silent(gen, silent_s), *args, **options)
            except TimeoutError:
                self.pgconn.finish()
                raise psycopg.OperationalError(
                    f"the server did not answer for {silent_s:.0f} s"
                ) from None

    return Connection


def _until_silent(generator: Generator[Any, Any, Any], silent_s: float) -> Generator[Any, Any, Any]:
    """Drive psycopg's generator of I/O, and raise ``TimeoutError`` if its socket stays silent."""
    try:
        wanted = next(generator)
        while True:
            until_s = time.monotonic() + silent_s
            while not (ready := (yield wanted)):
                if time.monotonic() >= until_s:
                    raise TimeoutError
                wanted = generator.send(ready)
            wanted = generator.send(ready)
    except StopIteration as end:
        return end.value
