"""Read all rows of a ledger in order, a chunk at a time, so that its size needs no memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from sqlalchemy import Column, Connection, Select, bindparam, func, select
from sqlalchemy.exc import DBAPIError

from greentrain.ledger.integrity import damage_meanwhile
from greentrain.ledger.row_reader import RowReader
from greentrain.ledger.rows import Heads
from greentrain.ledger.schema import CONTENT, Flag, entries, read_flag, runs
from greentrain.ledger.store import LedgerStore

CHUNK = 500
"""Rows of a table that are in memory at once."""

Content = dict[str, Any]


class Entry(NamedTuple):
    """One row of the spine, with the columns of ``schema.entries``."""

    id: int
    kind: str
    chain: str
    seq: int
    recorded_utc: str
    prev_hash: str
    hash: str


class RowLookup(Protocol):
    """A reader of a few rows: see :class:`greentrain.ledger.RowReader`."""

    def rows(self, kind: str, **equals: Any) -> list[Any]:
        """Return the rows of one kind whose columns have these values, in order."""
        ...


class OrderedRows(RowLookup, Protocol):
    """All rows of a ledger at one moment: a :class:`LedgerRows`, or a snapshot."""

    def damage(self) -> AbstractContextManager[Callable[[], tuple[str, ...]]]:
        """Look for damage to the database itself, until the end of a ``with`` block.

        Its value is a function that returns sentences about the damage.
        """
        ...

    @property
    def orphans(self) -> tuple[str, ...]:
        """Sentences about content without an entry; complete after :meth:`in_order`."""
        ...

    def in_order(self) -> Iterator[tuple[Entry, Content | None]]:
        """Yield each entry with its content, sorted by column; ``None`` if that was removed."""
        ...


class LedgerRows(RowReader):
    """The rows that a transaction sees. :meth:`in_order` holds :data:`CHUNK` rows of each kind.

    Args:
        connection: Connection of the transaction.
        as_of: Heads of an earlier moment: rows that were appended later are left out.
        after: Number of an entry: it and those before it are left out of :meth:`in_order`;
            ``None`` to leave out none.
    """

    def __init__(
        self, connection: Connection, *, as_of: Heads | None = None, after: int | None = None
    ) -> None:
        self.connection = connection
        self.as_of = as_of
        self.after = after
        self._counts = None if as_of is None else {one: as_of[one]["count"] for one in as_of}
        self._orphans: tuple[str, ...] = ()
        self._unread: WeakSet[Generator[Any]] = WeakSet()

    def close(self) -> None:
        """Close the cursors of rows that were not read to their end, as after an error."""
        for rows in list(self._unread):
            rows.close()

    def damage(self) -> AbstractContextManager[Callable[[], tuple[str, ...]]]:
        """Look for damage while rows are read: see :func:`integrity.damage_meanwhile`."""
        return damage_meanwhile(self.connection)

    @property
    def orphans(self) -> tuple[str, ...]:
        """Sentences about content without an entry; complete after :meth:`in_order`."""
        return self._orphans

    def in_order(self) -> Iterator[tuple[Entry, Content | None]]:
        """Yield each entry with its content by column name; ``None`` if that was removed."""
        contents = {kind: _Contents(self._chunked, kind, self.after) for kind in CONTENT}
        query = _after(select(entries), entries.c.id, self.after)
        counts = self._counts
        # `Entry._make` takes three times as long.
        for entry in map(partial(tuple.__new__, Entry), self._chunked(query)):
            found = contents.get(entry[1])
            content = None if found is None else found.of(entry[0])
            if counts is None or entry.seq < counts.get(entry.chain, 0):
                yield entry, content
        left_over = {kind: found.left_over() for kind, found in contents.items()}
        self._orphans = tuple(
            f"{count} row(s) of {CONTENT[kind].name} were inserted without an entry"
            for kind, count in left_over.items()
            if count
        )

    def _rows(self, kind: str, equals: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(self.each(kind, **equals))

    def each(self, kind: str, *columns: str, **equals: Any) -> Iterator[dict[str, Any]]:
        """Yield rows as :meth:`rows` returns them, without having all in memory.

        Args:
            kind: A kind of entry.
            *columns: Columns to read, besides ``entry_id`` and ``recorded_utc``; all by default.
            **equals: Values that columns must have; a list for one of several.
        """
        given = tuple((name, type(value)) for name, value in equals.items())
        names, flags, query = _with_entry(kind, columns, given)
        counts = self._counts
        values = {name: value for name, value in equals.items() if value is not None}
        parts = chunks(self.connection, query, values=values, raw=True)
        self._unread.add(parts)
        for part in parts:
            if counts is not None:
                part = [row for row in part if row[-1] < counts.get(row[-2], 0)]
            # Without the chain and the number in it, which come last.
            rows = [dict(zip(names, row, strict=False)) for row in part]
            for name in flags:
                for row in rows:
                    row[name] = read_flag(row[name])
            yield from rows

    def without_run(self, kind: str) -> set[str]:
        """Return the ids of runs that rows of a kind name and that have no opening row."""
        table = CONTENT[kind]
        known = select(runs.c.run_id).where(runs.c.run_id == table.c.run_id).exists()
        return set(
            self.connection.execute(select(table.c.run_id).where(~known).distinct()).scalars()
        )

    def last_entry(self) -> int:
        """Return the highest number of an entry; 0 if there is none."""
        return self.connection.execute(select(func.max(entries.c.id))).scalar() or 0

    def moments(self, kinds: Collection[str], since: str, until: str) -> dict[str, tuple[str, str]]:
        """Return the first and last time of the rows of some kinds, by chain.

        Args:
            kinds: The kinds.
            since: Earliest time that counts.
            until: First time after those that count.
        """
        recorded = entries.c.recorded_utc
        query = (
            select(entries.c.chain, func.min(recorded), func.max(recorded))
            .where(entries.c.kind.in_(kinds), recorded >= since, recorded < until)
            .group_by(entries.c.chain)
        )
        if self._counts is not None:
            counts = self._counts
            found: dict[str, tuple[str, str]] = {}
            spine = select(entries.c.chain, entries.c.seq, recorded).where(
                entries.c.kind.in_(kinds), recorded >= since, recorded < until
            )
            for chain, seq, moment in self._chunked(spine):
                if seq < counts.get(chain, 0):
                    first, last = found.get(chain, (moment, moment))
                    found[chain] = min(first, moment), max(last, moment)
            return found
        return {row[0]: (row[1], row[2]) for row in self.connection.execute(query)}

    def _chunked(self, query: Select[Any]) -> Iterator[Any]:
        parts = chunks(self.connection, query)
        self._unread.add(parts)
        return chain.from_iterable(parts)


@lru_cache
def _with_entry(
    kind: str, columns: tuple[str, ...], equals: tuple[tuple[str, type], ...]
) -> tuple[list[str], list[str], Select[Any]]:
    """Return a query for columns of rows, and then chain and number.

    Returns:
        The names of the columns, those of them that are flags, and the query. It has a parameter
        for each column in ``equals``, which holds the types of the values, except for ``None``.
    """
    table = CONTENT[kind]
    names = ["entry_id", *columns] if columns else list(table.c.keys())
    query = (
        select(
            entries.c.recorded_utc,
            *(table.c[name] for name in names),
            entries.c.chain,
            entries.c.seq,
        )
        .join(table, (entries.c.id == table.c.entry_id) & (entries.c.kind == kind))
        .order_by(table.c.entry_id)
    )
    for column, of in equals:
        asked = table.c[column]
        if of is list:
            query = query.where(asked.in_(bindparam(column, expanding=True)))
        else:
            query = query.where(asked == (None if of is type(None) else bindparam(column)))
    flags = [name for name in names if isinstance(table.c[name].type, Flag)]
    return ["recorded_utc", *names], flags, query


class _Contents:
    """The content of one kind, which is read once, in order."""

    def __init__(
        self, read: Callable[[Select[Any]], Iterator[Any]], kind: str, after: int | None
    ) -> None:
        table = CONTENT[kind]
        # Sorted, as the hash takes them.
        self._names = sorted({*table.c.keys()} - {"entry_id"})
        query = select(*(table.c[name] for name in self._names), table.c.entry_id)
        self._rows = read(_after(query, table.c.entry_id, after))
        self._next = next(self._rows, None)
        self._skipped = 0

    def of(self, entry_id: int) -> Content | None:
        """Return the content of an entry; entries have to be asked for in order."""
        row = self._next
        while row is not None and row[-1] < entry_id:
            self._skipped += 1
            row = next(self._rows, None)
        if row is None or row[-1] != entry_id:
            self._next = row
            return None
        self._next = next(self._rows, None)
        return dict(zip(self._names, row, strict=False))  # without the number

    def left_over(self) -> int:
        """Return how many rows no entry asked for."""
        return self._skipped + (self._next is not None) + sum(1 for _ in self._rows)


@contextmanager
def read_rows(store: LedgerStore, *, as_of: Heads | None = None) -> Iterator[LedgerRows]:
    """Begin a transaction that sees the ledger at one moment, and return its rows.

    Raises:
        LedgerError: If the ledger cannot be read.
    """
    with store.read() as connection:
        rows = LedgerRows(connection, as_of=as_of)
        try:
            yield rows
        finally:
            rows.close()


def _after(query: Select[Any], number: Column[Any], after: int | None) -> Select[Any]:
    """Select the rows after a number, in order. A forged row may have a number below 0."""
    return (query if after is None else query.where(number > after)).order_by(number)


def chunks(
    connection: Connection,
    query: Select[Any],
    *,
    values: Mapping[str, Any] = MappingProxyType({}),
    raw: bool = False,
) -> Generator[Sequence[Any]]:
    """Yield the rows of a query in lists of :data:`CHUNK`, of which one is in memory at once.

    Args:
        connection: The connection.
        query: The query.
        values: Values of its parameters.
        raw: ``True`` to leave flags as the database has them, for :func:`read_flag`.
    """
    if connection.dialect.name == "sqlite":
        yield from _of_driver(connection, query, values, raw=raw)
    else:
        options = {"yield_per": CHUNK}
        with connection.execute(query, dict(values), execution_options=options) as result:
            yield from result.partitions()


def _of_driver(
    connection: Connection, query: Select[Any], values: Mapping[str, Any], *, raw: bool
) -> Iterator[list[Any]]:
    """Yield rows as SQLite's driver returns them, in half the time of SQLAlchemy's rows."""
    columns = enumerate(query.selected_columns)
    flags = [] if raw else [place for place, one in columns if isinstance(one.type, Flag)]
    with connection.execute(query, dict(values)) as result:
        while rows := _fetch(result.cursor):
            if flags:
                rows = [*map(list, rows)]
            for place in flags:
                for row in rows:
                    row[place] = read_flag(row[place])
            yield rows


def _fetch(cursor: Any) -> list[Any]:
    try:
        rows: list[Any] = cursor.fetchmany(CHUNK)
    except sqlite3.Error as error:
        raise DBAPIError(None, None, error) from error
    return rows
