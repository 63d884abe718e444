"""Find what was added to a ledger's database from outside, and what in it is damaged."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

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


def file_faults(connection: Connection) -> Iterator[str]:
    """Yield each fault that SQLite finds in the whole file, its indexes included."""
    if connection.dialect.name == "sqlite":
        yield from _faults(connection, f"integrity_check({_MOST})")


def _faults(connection: Connection, pragma: str) -> Iterator[str]:
    for (found,) in connection.exec_driver_sql(f"PRAGMA {pragma}"):
        if found != "ok":
            yield f"the file is damaged, or was truncated: {str(found).splitlines()[-1]}"
