"""Which revision a ledger's tables have, and how an older one is brought up to date."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, select

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger.creation import statements
from greentrain.ledger.schema import REVISIONS, metadata, versions


def needs_making(connection: Connection, name: str, *, create: bool) -> bool:
    """Return whether a database lacks the ledger's tables, or has those of an older revision.

    Raises:
        ConfigurationError: If there are none, and none are to be created.
        LedgerError: If it holds something else, or the ledger of a newer greentrain.
    """
    tables = set(inspect(connection).get_table_names())
    ours = {table.name for table in metadata.sorted_tables}
    if versions.name not in tables:
        foreign = sorted(tables) if connection.dialect.name == "sqlite" else sorted(tables & ours)
        if foreign or (not create and connection.dialect.name == "sqlite"):
            raise LedgerError(f"{name!r} is not a greentrain ledger" + _clash(connection, foreign))
        if not create:
            raise ConfigurationError(f"there is no ledger in {name!r}")
        return True
    revision = connection.execute(select(versions.c.version_num)).scalar()
    if revision not in REVISIONS:
        raise LedgerError(
            f"the ledger {name!r} was written by a newer greentrain: its tables are at revision "
            f"{revision}, and this one knows them up to {REVISIONS[-1]}; upgrade greentrain"
        )
    if revision == REVISIONS[-1] and not ours <= tables:
        raise LedgerError(f"{name!r} is not a greentrain ledger: it lacks tables")
    return bool(revision != REVISIONS[-1])


def make_tables(connection: Connection, name: str, *, create: bool) -> None:
    """Make the tables of an empty database, or bring older ones up to date.

    It all happens in the transaction that is given: as a whole, or not at all. Somebody else may
    have done it meanwhile.
    """
    if not needs_making(connection, name, create=create):
        return
    if inspect(connection).has_table(versions.name):
        from greentrain.ledger.migrations import upgrade  # half a second, and seldom needed

        upgrade(connection)
        return
    for statement in statements(connection.dialect):
        connection.exec_driver_sql(statement)


def _clash(connection: Connection, foreign: list[str]) -> str:
    if connection.dialect.name == "sqlite":
        return ""
    return (
        f": it has tables of its own named {', '.join(foreign)}; give the ledger a database or a "
        "schema of its own"
    )
