"""Open PostgreSQL databases for a ledger: URL, connections and transactions."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

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
MOST_CONNECTIONS = 4
"""Connections that the ledgers of a process have to one database at most: writers take turns."""
_UNUSED_S = 5.0
"""Seconds after which connections that are not used are closed, so that others get them."""
_FULL = re.compile("too many clients|too many connections|remaining connection slots|no more conn")
"""Messages of a server, or of a pooler in front of it, that has no connection left."""
_RETRY_S = (0.05, 1.0)
"""Seconds until a full server is tried again: the first time, and at most."""

_shared: WeakValueDictionary[tuple[int, str, float], Engine] = WeakValueDictionary()
_sharing = threading.Lock()


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


def shared_engine(url: URL, *, timeout_s: float) -> Engine:
    """Return the engine that all ledgers of this process use for a database.

    It has a few connections, for which threads wait. They are closed when they are not used.

    Args:
        url: The database.
        timeout_s: Seconds that a transaction waits for other writers.
    """
    with _sharing:
        # A forked process must not use the connections of its parent.
        key = (os.getpid(), url.render_as_string(hide_password=False), timeout_s)
        engine = _shared.get(key)
        if engine is None:
            engine = _shared[key] = open_engine(url, keep_open=True, timeout_s=timeout_s)
        return engine


def open_engine(url: URL, *, keep_open: bool, timeout_s: float) -> Engine:
    """Return a new engine of a database; :func:`clock_of` it is set at each connection.

    Writers take turns: each write transaction begins with an advisory lock that all writers of this
    ledger share, and holds it until it ends. The next writer therefore sees all that was committed,
    as with ``BEGIN IMMEDIATE`` on SQLite. SERIALIZABLE would instead fail one of two runs that
    append at the same time, and the transaction would have to be repeated.

    Nothing waits without an end: connecting, a statement and a lock each fail in time, also where
    the server accepts the connection and never answers. A server without a free connection is
    tried again for as long.

    Args:
        url: The database.
        keep_open: ``False`` to connect for each transaction.
        timeout_s: Seconds that a transaction waits for other writers.
    """
    silent_s = timeout_s + _GRACE_S
    pool: dict[str, Any] = {"poolclass": NullPool}
    if keep_open:
        pool = {
            "poolclass": QueuePool,
            "pool_size": MOST_CONNECTIONS,
            "max_overflow": 0,
            "pool_timeout": silent_s,
            "pool_use_lifo": True,
            "pool_pre_ping": True,
        }
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={name: _CONNECT[name] for name in _CONNECT if name not in url.query},
        isolation_level="READ COMMITTED",
        **pool,
    )
    clock = _clocks[engine] = ServerClock()

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, args: Any, options: Any) -> Any:
        return _connected(_connection_class(silent_s), args, options, silent_s)

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

    if keep_open:
        _unused[engine] = _UnusedConnections(engine)
    return engine


def close_engine(engine: Engine) -> None:
    """Close the connections of an engine that are not in use; it can be used again."""
    unused = _unused.get(engine)
    if unused is None:
        engine.dispose()
    else:
        unused.close()


def clock_of(engine: Engine) -> ServerClock:
    """Return the clock of an engine's server."""
    return _clocks[engine]


def _connected(kind: Any, args: Any, options: Any, patience_s: float) -> Any:
    """Connect, and try again while the server has no connection left."""
    import psycopg

    until_s, wait_s = time.monotonic() + patience_s, _RETRY_S[0]
    while True:
        try:
            return kind.connect(*args, **options)
        except psycopg.OperationalError as error:
            if not _FULL.search(str(error)):
                raise
            if time.monotonic() + wait_s > until_s:
                raise psycopg.OperationalError(
                    f"the server had no free connection for {patience_s:.0f} s; raise its "
                    f"max_connections, or run fewer processes at once ({_last_line(error)})"
                ) from None
        time.sleep(random.uniform(0.5, 1.0) * wait_s)  # apart from the others who wait
        wait_s = min(2 * wait_s, _RETRY_S[1])


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


class _UnusedConnections:
    """Close the connections of an engine's pool that were not used for a few seconds.

    Disposing of the engine instead would leave those behind that a thread is using.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._since: dict[ConnectionPoolEntry, float] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        event.listen(engine, "checkin", self._put)
        event.listen(engine, "checkout", self._take)

    def close(self, unused_s: float = 0.0) -> None:
        """Close the connections that were not used for some seconds."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            until_s = time.monotonic() - unused_s
            for entry in [one for one, since_s in self._since.items() if since_s <= until_s]:
                del self._since[entry]
                entry.invalidate()
            self._start()

    def _put(self, _connection: object, entry: ConnectionPoolEntry) -> None:
        with self._lock:
            self._since[entry] = time.monotonic()
            self._start()

    def _take(self, connection: Any, entry: ConnectionPoolEntry, _proxy: object) -> None:
        with self._lock:
            self._since.pop(entry, None)
            if connection.closed:  # just now, by the timer
                raise DisconnectionError

    def _start(self) -> None:
        if self._since and self._timer is None:
            self._timer = threading.Timer(_UNUSED_S, self.close, [_UNUSED_S])
            self._timer.name, self._timer.daemon = "greentrain-connections", True
            self._timer.start()


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


_clocks: WeakKeyDictionary[Engine, ServerClock] = WeakKeyDictionary()
_unused: WeakKeyDictionary[Engine, _UnusedConnections] = WeakKeyDictionary()


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
