"""Check the hashes of most rows in a second process, while the first one checks all else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import create_engine

from greentrain.ledger import second_process
from greentrain.ledger.hashing import digest
from greentrain.ledger.row_stream import Content, Entry, LedgerRows, OrderedRows

FEWEST = 200_000
"""Fewest rows for a second process: it takes a second to start."""
SHARE = 0.75
"""Share of the rows that it hashes. To read and hash these takes as long as all else."""

Altered = dict[int, str]
"""Rows whose hash is another one: their names, by number of the entry."""


class SecondProcess(NamedTuple):
    """A second process that hashes rows.

    Args:
        last: Number of the last entry that it hashes.
        altered: Waits for the altered rows, and returns them.
    """

    last: int
    altered: Callable[[], Altered]


_PROGRAM = "from greentrain.ledger.verify_hashes import main; main()"


@contextmanager
def altered_meanwhile(rows: OrderedRows, key: bytes | None) -> Iterator[SecondProcess | None]:
    """Hash most rows of a large SQLite file in a second process, during a ``with`` block.

    It reads the same file in a separate transaction. The key goes to its standard input, where no
    other user can read it.

    Args:
        rows: The rows.
        key: Key of the hashes; ``None`` for plain ones.

    Yields:
        The process. ``None`` if all rows are to be hashed here, as they are few, in no file, or
        there is one processor core.
    """
    if not isinstance(rows, LedgerRows) or (request := _request(rows, key)) is None:
        yield None
        return
    if (process := second_process.start(_PROGRAM, request)) is None:
        yield None
        return
    with process:
        try:
            yield SecondProcess(request["last"], lambda: _received(process, rows, key, request))
        finally:
            process.kill()


def altered(rows: LedgerRows, key: bytes | None, *, last: int | None = None) -> Altered:
    """Return the rows whose hash is another one than that of their content.

    Args:
        rows: The rows.
        key: Key of the hashes; ``None`` for plain ones.
        last: Number of the last entry to check; ``None`` for all.
    """
    found: Altered = {}
    for entry, held in rows.in_order():
        if last is not None and entry.id > last:
            break
        if held is not None and isinstance(entry.seq, int) and not hashes(entry, held, key):
            found[entry.id] = row_name(entry)
    return found


def hashes(entry: Entry, held: Content, key: bytes | None) -> bool:
    """Return whether a row has the hash of its content."""
    try:
        return digest(*entry[1:6], held, key) == entry.hash
    except (TypeError, ValueError):  # it was altered to a value that a ledger cannot hold
        return False


def row_name(entry: Entry) -> str:
    """Return the name of a row in sentences about it."""
    return f"row {entry.seq} of {entry.chain} ({entry.kind})"


def main() -> None:
    """Hash the rows that standard input names, and print the altered ones as JSON."""
    request = json.load(sys.stdin)
    key = None if request["key"] is None else bytes.fromhex(request["key"])
    engine = create_engine(request["url"])
    with engine.connect() as connection:
        rows = LedgerRows(connection, as_of=request["as_of"], after=request["after"])
        json.dump(altered(rows, key, last=request["last"]), sys.stdout)
    engine.dispose()


def _request(rows: LedgerRows, key: bytes | None) -> dict[str, Any] | None:
    """Return what the second process has to know; ``None`` if there is none."""
    if not sys.executable or (os.cpu_count() or 1) < 2:
        return None
    url, before, last = rows.connection.engine.url, rows.after or 0, rows.last_entry()
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    if last - before < FEWEST:
        return None
    return {
        "url": url.render_as_string(hide_password=False),
        "key": None if key is None else key.hex(),
        "as_of": rows.as_of,
        "after": rows.after,
        "last": before + round(SHARE * (last - before)),
    }


def _received(
    process: subprocess.Popen[bytes], rows: LedgerRows, key: bytes | None, request: dict[str, Any]
) -> Altered:
    """Return the result of the second process; if it failed, hash the rows here."""
    held = second_process.result(process, request["last"])
    if isinstance(held, dict):
        return {int(number): name for number, name in held.items()}
    again = LedgerRows(rows.connection, as_of=rows.as_of, after=rows.after)
    return altered(again, key, last=request["last"])
