"""Find what was added to a ledger's database from outside, and what in it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from greentrain.ledger.schema import budgets, metadata, reservations, settlements

_PAYMENTS = (budgets.name, reservations.name, settlements.name)
_MOST = 100
"""Number of faults that SQLite lists at most."""
_POSTGRES = (
    "SELECT 'trigger', t.tgname, c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
    "WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace",
    "SELECT 'rule', rulename, tablename FROM pg_rules WHERE schemaname = current_schema()",
    "SELECT 'policy', policyname, tablename FROM pg_policies WHERE schemaname = current_schema()",
    "SELECT 'view', viewname, viewname FROM pg_views WHERE schemaname = current_schema()",
)
_SQLITE = ("SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('trigger', 'view')",)


def foreign_objects(connection: Connection) -> Iterator[str]:
    """Yield a sentence for each trigger, rule, policy or view that can change what is stored.

    A ledger has none of them. In PostgreSQL only those on the ledger's tables count, and views with
    the name of one. In SQLite all count: the file belongs to the ledger alone.
    """
    sqlite = connection.dialect.name == "sqlite"
    ours = {table.name for table in metadata.sorted_tables}
    for query in _SQLITE if sqlite else _POSTGRES:
        for kind, name, table in connection.exec_driver_sql(query):
            if sqlite or table in ours:
                where = "" if kind == "view" else f" on the table {table!r}"
                yield f"the {kind} {name!r}{where} is not of greentrain and can hide or change rows"


def broken_indexes(connection: Connection) -> Iterator[str]:
    """Yield each fault that SQLite finds in the tables of payments and in their indexes.

    Balances are read through an index, and an index without its entries makes a used budget whole.
    """
    if connection.dialect.name == "sqlite":
        for table in _PAYMENTS:
            yield from _faults(connection, f"integrity_check({table})")


def damage(connection: Connection) -> tuple[str, ...]:
    """Return a sentence for each fault in the whole file, and for each object from outside."""
    faults: Iterator[str] = iter(())
    if connection.dialect.name == "sqlite":
        faults = _faults(connection, f"integrity_check({_MOST})")
    return (*faults, *foreign_objects(connection))


@contextmanager
def damage_meanwhile(connection: Connection) -> Iterator[Callable[[], tuple[str, ...]]]:
    """Look for :func:`damage` while the ``with`` block reads the same database.

    SQLite checks a file in a thread with its own connection, which leaves the processor core of
    this thread free.

    Args:
        connection: A connection to the database, which the ``with`` block uses.

    Yields:
        A function that waits for the result, and returns it.
    """
    if connection.dialect.name != "sqlite" or connection.engine.url.database in (None, ""):
        found = damage(connection)
        yield lambda: found
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield thread.submit(_damage_of, connection.engine).result


def _damage_of(engine: Engine) -> tuple[str, ...]:
    with engine.begin() as connection:
        return damage(connection)


def _faults(connection: Connection, pragma: str) -> Iterator[str]:
    for (found,) in connection.exec_driver_sql(f"PRAGMA {pragma}"):
        if found != "ok":
            yield f"the file is damaged, or was truncated: {str(found).splitlines()[-1]}"
