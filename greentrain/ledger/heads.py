"""Read the heads of a ledger, write them to a file, and compare a ledger with such a file later.

A head is the last hash of a chain with the number of its rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from greentrain.errors import ConfigurationError
from greentrain.ledger.rows import Head, Heads
from greentrain.ledger.schema import BUDGET_CHAIN, RUN_CHAIN, entries
from greentrain.units import utc_now, utc_text


def all_heads(connection: Connection) -> dict[str, Head]:
    """Return the heads of all chains, by chain name."""
    last = select(entries.c.chain, func.max(entries.c.seq).label("seq")).group_by(entries.c.chain)
    newest = last.subquery()
    query = (
        select(entries.c.chain, entries.c.seq, entries.c.hash)
        .join(newest, (entries.c.chain == newest.c.chain) & (entries.c.seq == newest.c.seq))
        .order_by(entries.c.chain)
    )
    return {
        row.chain: {"count": row.seq + 1, "head": row.hash}
        for row in connection.execute(query).all()
    }


def changed_heads(connection: Connection, own: str) -> dict[str, list[object]]:
    """Return [count, head] of each chain that changed since the last opening row or budget row.

    That last row counts as a change of its chain. Through the row before it, each of these rows
    therefore covers all rows that were in the ledger when it was written.

    Args:
        connection: Connection of the transaction that appends the next such row.
        own: Chain of the next row, whose head is left out because the row follows from it.
    """
    openings = entries.c.chain.in_((RUN_CHAIN, BUDGET_CHAIN))
    last = select(func.max(entries.c.id)).where(openings).scalar_subquery()
    changed = (
        select(func.max(entries.c.id))
        .where(entries.c.id >= func.coalesce(last, 0), entries.c.chain != own)
        .group_by(entries.c.chain)
    )
    query = select(entries.c.chain, entries.c.seq, entries.c.hash).where(entries.c.id.in_(changed))
    return {row.chain: [row.seq + 1, row.hash] for row in connection.execute(query)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedHeads:
    """The heads of one ledger at the time of an export.

    Args:
        exported_utc: Time of the export.
        heads: The heads, as ``Ledger.heads`` returns them.
    """

    exported_utc: str
    heads: Heads

    def covers(self, chain: str, count: int = 1) -> bool:
        """Return whether the exported heads cover the first ``count`` rows of a chain."""
        return chain in self.heads and int(self.heads[chain]["count"]) >= count

    @property
    def total(self) -> int:
        """Number of rows that the heads cover."""
        return sum(self.count(chain) for chain in self.heads)

    def count(self, chain: str) -> int:
        """Return the number of rows of a chain that the heads cover."""
        return int(self.heads[chain]["count"]) if chain in self.heads else 0

    def places(self) -> dict[tuple[str, int], str]:
        """Return the hash of each head, by its chain and its row's number in the chain."""
        return {(chain, self.count(chain) - 1): head["head"] for chain, head in self.heads.items()}

    def failures(self, found: Mapping[tuple[str, int], str]) -> Iterator[str]:
        """Yield a sentence for each exported head that a ledger lacks.

        Args:
            found: The hashes that the ledger has in the :meth:`places` of the heads.
        """
        for (chain, seq), head in sorted(self.places().items()):
            row = f"row {seq} of {chain}, whose head was exported on {self.exported_utc},"
            if (chain, seq) not in found:
                yield f"{row} was cut off"
            elif found[chain, seq] != head:
                yield f"{row} was replaced"


def write_heads(path: Path, heads: Mapping[str, Heads]) -> None:
    """Write the heads of ledgers, by name of the ledger, to a new file.

    Raises:
        ConfigurationError: If the file exists or cannot be written.
    """
    now = utc_text(utc_now())
    ledgers = {name: {"exported_utc": now, "heads": held} for name, held in heads.items()}
    text = json.dumps({"greentrain_heads": 1, "ledgers": ledgers}, indent=2, sort_keys=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the heads to {str(path)!r}: {error.strerror}"
        ) from None


def read_heads(path: Path, names: Sequence[str]) -> dict[str, ExportedHeads]:
    """Read the heads of ledgers from a file of :func:`write_heads`, or from a report.json.

    If the file holds the heads of one ledger, its name is ignored: the ledger may have been moved.

    Raises:
        ConfigurationError: If the file holds no heads, or none for one of the ledgers.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = _of_report(document) or {
            name: ExportedHeads(exported_utc=str(one["exported_utc"]), heads=checked(one["heads"]))
            for name, one in document["ledgers"].items()
        }
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{str(path)!r} holds no heads; give a file that `greentrain verify --heads FILE` "
            "wrote, or a report.json"
        ) from None
    if len(found) == len(names) == 1:
        return {names[0]: next(iter(found.values()))}
    places = {name: name if name in found else Path(name).name for name in names}
    for name, place in places.items():
        if place not in found:
            raise ConfigurationError(
                f"{str(path)!r} holds no heads of {name!r}, but those of "
                f"{', '.join(sorted(found))}; verify these, or give another file"
            )
    return {name: found[place] for name, place in places.items()}


def _of_report(document: Mapping[str, Any]) -> dict[str, ExportedHeads]:
    if "verification" not in document:
        return {}
    exported_utc = str(document["period"]["last_utc"])
    verified = document["verification"]
    ledgers = verified.get("ledgers") or [{"name": "report", "heads": verified["heads"]}]
    return {
        str(one["name"]): ExportedHeads(exported_utc=exported_utc, heads=checked(one["heads"]))
        for one in ledgers
    }


def checked(heads: Mapping[str, Any]) -> Heads:
    """Return heads read from JSON with the types of :class:`greentrain.ledger.rows.Head`.

    Raises:
        KeyError: If a head lacks its count or its hash.
    """
    return {
        str(chain): {"count": int(head["count"]), "head": str(head["head"])}
        for chain, head in heads.items()
    }
