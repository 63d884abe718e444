"""Check the revision of a ledger's tables, and create or upgrade them."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, select

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger.creation import statements
from greentrain.ledger.schema import RETIRED_REVISIONS, REVISIONS, metadata, versions
from greentrain.ledger.store import UnreadableError


def needs_making(connection: Connection, name: str, *, create: bool) -> bool:
    """Return whether a database lacks the ledger's tables, or has them at an older revision.

    Raises:
        ConfigurationError: If it has no tables and ``create`` is not set.
        LedgerError: If it holds something else, or a ledger that this version cannot read.
        UnreadableError: If it is a SQLite file that is empty or holds something else.
    """
    tables = set(inspect(connection).get_table_names())
    ours = {table.name for table in metadata.sorted_tables}
    if versions.name not in tables:
        foreign = sorted(tables) if connection.dialect.name == "sqlite" else sorted(tables & ours)
        if foreign or (not create and connection.dialect.name == "sqlite"):
            what = "has other tables" if foreign else "is empty"
            if connection.dialect.name == "sqlite":
                raise UnreadableError(f"{name!r} is not a greentrain ledger: it {what}")
            raise LedgerError(
                f"{name!r} is not a greentrain ledger: it has other tables named "
                f"{', '.join(foreign)}; give the ledger a separate database or schema"
            )
        if not create:
            raise ConfigurationError(
                f"there is no ledger in {name!r}; check the URL, or run a stream to create one"
            )
        return True
    revision = connection.execute(select(versions.c.version_num)).scalar()
    if revision in RETIRED_REVISIONS:
        raise LedgerError(
            f"the ledger {name!r} was written by a pre-release of greentrain (revision {revision}) "
            "and cannot be upgraded; read it with that version, and use another file or database "
            "for new runs"
        )
    if revision not in REVISIONS:
        raise LedgerError(
            f"the ledger {name!r} was written by a newer greentrain: its tables are at revision "
            f"{revision}, and this version reads them up to {REVISIONS[-1]}; upgrade greentrain"
        )
    if revision == REVISIONS[-1] and not ours <= tables:
        raise UnreadableError(f"{name!r} is not a greentrain ledger: tables are missing")
    return bool(revision != REVISIONS[-1])


def make_tables(connection: Connection, name: str, *, create: bool) -> None:
    """Create the tables of an empty database, or upgrade older ones.

    All of it happens in the given transaction, or nothing. It has no effect if another process has
    done it since :func:`needs_making` was called.
    """
    if not needs_making(connection, name, create=create):
        return
    if inspect(connection).has_table(versions.name):
        from greentrain.ledger.migrations import (
            upgrade,  # takes half a second, and is seldom needed
        )

        upgrade(connection)
        return
    for statement in statements(connection.dialect):
        connection.exec_driver_sql(statement)
