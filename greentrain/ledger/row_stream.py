"""Read all rows of a ledger in order, a chunk at a time, so that its size needs no memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Column, Connection, Select, select

from greentrain.ledger.integrity import file_faults, foreign_objects
from greentrain.ledger.rows import Heads, RowReader
from greentrain.ledger.schema import CONTENT, entries
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

    @property
    def damage(self) -> tuple[str, ...]:
        """Sentences about damage to the database itself."""
        ...

    @property
    def orphans(self) -> tuple[str, ...]:
        """Sentences about content without an entry; complete after :meth:`in_order`."""
        ...

    def in_order(self) -> Iterator[tuple[Entry, Content | None]]:
        """Yield each entry with its content by column name; ``None`` if that was removed."""
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
        self.after = after
        self._counts = None if as_of is None else {one: as_of[one]["count"] for one in as_of}
        self._orphans: tuple[str, ...] = ()

    @property
    def damage(self) -> tuple[str, ...]:
        """Sentences about damage to the database itself; each use looks for it again."""
        return (*file_faults(self.connection), *foreign_objects(self.connection))

    @property
    def orphans(self) -> tuple[str, ...]:
        """Sentences about content without an entry; complete after :meth:`in_order`."""
        return self._orphans

    def in_order(self) -> Iterator[tuple[Entry, Content | None]]:
        """Yield each entry with its content by column name; ``None`` if that was removed."""
        contents = {kind: _Contents(self.connection, kind, self.after) for kind in CONTENT}
        query = _after(select(entries), entries.c.id, self.after)
        counts = self._counts
        for entry in map(Entry._make, chunked(self.connection, query)):
            found = contents.get(entry.kind)
            content = None if found is None else found.of(entry.id)
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

    def each(self, kind: str, **equals: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of one kind as :meth:`rows` returns them."""
        table = CONTENT[kind]
        query = (
            select(entries.c.chain, entries.c.seq, entries.c.recorded_utc, table)
            .join(entries, (entries.c.id == table.c.entry_id) & (entries.c.kind == kind))
            .order_by(table.c.entry_id)
        )
        for column, value in equals.items():
            query = query.where(table.c[column] == value)
        names = ["recorded_utc", *table.c.keys()]
        for row in chunked(self.connection, query):
            if self._counts is None or row[1] < self._counts.get(row[0], 0):
                yield dict(zip(names, row[2:], strict=True))


class _Contents:
    """The content of one kind, which is read once, in order."""

    def __init__(self, connection: Connection, kind: str, after: int | None) -> None:
        table = CONTENT[kind]
        # Sorted, as the hash takes them.
        self._names = sorted({*table.c.keys()} - {"entry_id"})
        query = select(table.c.entry_id, *(table.c[name] for name in self._names))
        self._rows = chunked(connection, _after(query, table.c.entry_id, after))
        self._next = next(self._rows, None)
        self._skipped = 0

    def of(self, entry_id: int) -> Content | None:
        """Return the content of an entry; entries have to be asked for in order."""
        row = self._next
        while row is not None and row[0] < entry_id:
            self._skipped += 1
            row = next(self._rows, None)
        if row is None or row[0] != entry_id:
            self._next = row
            return None
        self._next = next(self._rows, None)
        return dict(zip(self._names, row[1:], strict=True))

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
        yield LedgerRows(connection, as_of=as_of)


def _after(query: Select[Any], number: Column[Any], after: int | None) -> Select[Any]:
    """Select the rows after a number, in order. A forged row may have a number below 0."""
    return (query if after is None else query.where(number > after)).order_by(number)


def chunked(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    """Yield the rows of a query, of which :data:`CHUNK` are in memory at once."""
    with connection.execute(query, execution_options={"yield_per": CHUNK}) as result:
        for part in result.partitions():
            yield from part
