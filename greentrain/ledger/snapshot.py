"""Read all rows of a ledger as they are at one moment, or as they were at an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import Connection, Select, func, select

from greentrain.ledger.integrity import damage
from greentrain.ledger.row_reader import RowReader, RowsByKind
from greentrain.ledger.row_stream import Content, Entry
from greentrain.ledger.rows import Head, Heads
from greentrain.ledger.schema import CONTENT, entries
from greentrain.ledger.store import LedgerStore

Row = Mapping[str, Any]
_REPEATED = ("kind", "chain", "run_id", "reservation_id", "phase", "recorded_utc", "name")
"""Columns whose texts recur: each text is stored once, which takes a third of the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(RowReader):
    """The rows that one transaction saw.

    Args:
        spine: The entries, in order.
        content: Content of each kind of entry by the entry's id, in order.
        found_damage: Sentences about damage to the database itself.
        orphans: Sentences about content without an entry.
    """

    spine: list[Row]
    content: Mapping[str, Mapping[int, Row]]
    found_damage: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()

    def damage(self) -> AbstractContextManager[Callable[[], tuple[str, ...]]]:
        """Return the damage that was found, as ``LedgerRows.damage`` does."""
        return nullcontext(lambda: self.found_damage)

    def in_order(self) -> Iterator[tuple[Entry, Content | None]]:
        """Yield each entry with its content by column name; ``None`` if that was removed."""
        for entry in self.spine:
            held = self.content.get(entry["kind"], {}).get(entry["id"])
            content = None
            if held is not None:
                content = {name: held[name] for name in sorted(held) if name != "entry_id"}
            yield Entry(**entry), content

    def heads(self) -> dict[str, Head]:
        """Return the heads of all chains, as ``Ledger.heads`` does."""
        last: dict[str, Row] = {}
        for entry in self.spine:
            held = last.get(entry["chain"])
            if held is None or entry["seq"] > held["seq"]:
                last[entry["chain"]] = entry
        return {
            chain: {"count": entry["seq"] + 1, "head": entry["hash"]}
            for chain, entry in sorted(last.items())
        }

    def by_kind(self) -> RowsByKind:
        """Return all rows, by kind."""
        recorded = {entry["id"]: entry["recorded_utc"] for entry in self.spine}
        return cast(RowsByKind, {kind: self._dated(kind, recorded) for kind in CONTENT})

    def as_of(self, heads: Heads) -> Snapshot:
        """Return the rows that the ledger had when its chains had these heads."""
        counts = {chain: int(head["count"]) for chain, head in heads.items()}
        later = {e["id"] for e in self.spine if e["seq"] >= counts.get(e["chain"], 0)}
        if not later:
            return self
        return replace(
            self,
            spine=[entry for entry in self.spine if entry["id"] not in later],
            content={
                kind: {key: row for key, row in held.items() if key not in later}
                for kind, held in self.content.items()
            },
        )

    def _rows(self, kind: str, equals: Mapping[str, Any]) -> list[dict[str, Any]]:
        held = self.content[kind]
        recorded = {e["id"]: e["recorded_utc"] for e in self.spine if e["id"] in held}
        rows = self._dated(kind, recorded)
        return [row for row in rows if all(row[name] == equals[name] for name in equals)]

    def _dated(self, kind: str, recorded: Mapping[int, str]) -> list[dict[str, Any]]:
        return [
            {"recorded_utc": recorded[entry_id], **row}
            for entry_id, row in self.content[kind].items()
            if entry_id in recorded
        ]


def take_snapshot(store: LedgerStore) -> Snapshot:
    """Read a whole ledger in one transaction.

    Raises:
        LedgerError: If it cannot be read.
    """
    texts: dict[str, str] = {}
    with store.read() as connection:
        found = damage(connection)
        spine = list(_read(connection, select(entries).order_by(entries.c.id), texts))
        content: dict[str, Mapping[int, Row]] = {}
        for kind, table in CONTENT.items():
            query = select(table).order_by(table.c.entry_id)
            content[kind] = {row["entry_id"]: row for row in _read(connection, query, texts)}
        orphans = tuple(_orphans(connection))
    return Snapshot(spine=spine, content=content, found_damage=found, orphans=orphans)


def _read(connection: Connection, query: Select[Any], texts: dict[str, str]) -> Iterator[Row]:
    result = connection.execute(query)
    names = list(result.keys())
    repeated = [name for name in names if name in _REPEATED]
    for values in result:
        row = dict(zip(names, values, strict=True))
        for name in repeated:
            row[name] = texts.setdefault(row[name], row[name])
        yield row


def _orphans(connection: Connection) -> Iterator[str]:
    for kind, table in CONTENT.items():
        query = (
            select(func.count())
            .select_from(table)
            .outerjoin(entries, (entries.c.id == table.c.entry_id) & (entries.c.kind == kind))
            .where(entries.c.id.is_(None))
        )
        count = connection.execute(query).scalar_one()
        if count:
            yield f"{count} row(s) of {table.name} were inserted without an entry"
