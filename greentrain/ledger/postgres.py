"""Open PostgreSQL databases for a ledger: URL and transactions."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool, QueuePool

from greentrain._about import DISTRIBUTION
from greentrain.errors import ConfigurationError

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


def open_engine(url: URL, *, keep_open: bool, timeout_s: float) -> Engine:
    """Return the engine of a database.

    Writers take turns: each write transaction begins with an advisory lock that all writers of this
    ledger share, and holds it until it ends. The next writer therefore sees all that was committed,
    as with ``BEGIN IMMEDIATE`` on SQLite. SERIALIZABLE would instead fail one of two runs that
    append at the same time, and the transaction would have to be repeated.
    """
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

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.execute(f"SET lock_timeout = {round(timeout_s * 1000)}")
        connection.execute("SET synchronous_commit = on")
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
