"""Verify large ledgers in a second process, while the first one reads them for a report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from greentrain.errors import LedgerError
from greentrain.ledger import second_process
from greentrain.ledger.heads import ExportedHeads
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.row_stream import LedgerRows
from greentrain.ledger.rows import Heads
from greentrain.ledger.verify import Verification, refuse_missing_key, verify_snapshot

FEWEST = 30_000
"""Fewest rows for a second process: it takes most of a second to start."""
_PROGRAM = "from greentrain.ledger.verify_process import main; main()"


class LedgerAtMoment(NamedTuple):
    """A ledger to verify.

    Args:
        rows: Its rows, in a transaction.
        ledger: The ledger.
        as_of: Heads of an earlier moment, after which rows are left out; ``None`` for all rows.
    """

    rows: LedgerRows
    ledger: Ledger
    as_of: Heads | None


@contextmanager
def verified_meanwhile(
    parts: Sequence[LedgerAtMoment],
) -> Iterator[Callable[[], list[Verification]]]:
    """Verify ledgers, the large SQLite files among them in a second process.

    That process opens the same files. A result counts only if it saw the same last row; otherwise
    the ledger is verified here. So it is if the process fails, is killed, or gives no result for a
    minute and more. Keys go to its standard input, where no other user can read them.

    Args:
        parts: The ledgers.

    Yields:
        A function that waits for the results, and returns one for each ledger.

    Raises:
        LedgerError: If a ledger was created with a key and none is given.
    """
    found: list[Verification | None] = []
    requests: dict[int, dict[str, Any]] = {}
    for place, part in enumerate(parts):
        request = _request(part)
        if request is None:
            found.append(_verified(part))
        else:
            refuse_missing_key(part.ledger, LedgerRows(part.rows.connection))
            requests[place] = request
            found.append(None)
    process = second_process.start(_PROGRAM, list(requests.values())) if requests else None
    if process is None:
        yield lambda: [one or _verified(part) for one, part in zip(found, parts, strict=True)]
        return

    def results() -> list[Verification]:
        held = second_process.result(process, sum(one["last"] for one in requests.values()))
        for place, one in zip(requests, _read(held), strict=False):
            found[place] = one
        return [one or _verified(part) for one, part in zip(found, parts, strict=True)]

    with process:
        try:
            yield results
        finally:
            process.kill()


def main() -> None:
    """Verify the ledgers that standard input names, and print a result for each as JSON."""
    json.dump([_verified_elsewhere(one) for one in json.load(sys.stdin)], sys.stdout)


def _request(part: LedgerAtMoment) -> dict[str, Any] | None:
    """Return what the second process has to know; ``None`` for a ledger to verify here."""
    if not sys.executable or (os.cpu_count() or 1) < 2:
        return None
    url, last = part.rows.connection.engine.url, part.rows.last_entry()
    if url.get_backend_name() != "sqlite" or not url.database or last < FEWEST:
        return None
    key = part.ledger.store.key
    return {
        "ledger": url.database,
        "key": None if key is None else key.decode("utf-8", "surrogateescape"),
        "as_of": part.as_of,
        "last": last,
    }


def _verified(part: LedgerAtMoment) -> Verification:
    exported = None
    if part.as_of is not None:
        exported = ExportedHeads(exported_utc="the day of the report", heads=part.as_of)
    return verify_snapshot(part.rows, part.ledger, exported)


def _verified_elsewhere(request: dict[str, Any]) -> dict[str, Any] | None:
    ledger = Ledger(request["ledger"], create=False, key=request["key"])
    try:
        with ledger.reading(request["as_of"]) as rows:
            if rows.last_entry() != request["last"]:
                return None
            one = _verified(LedgerAtMoment(rows, ledger, request["as_of"]))
    except LedgerError:  # the first process meets it too, and says so
        return None
    finally:
        ledger.close()
    return {
        "rows": one.rows,
        "failures": one.failures,
        "notes": one.notes,
        "uncovered": one.uncovered,
        "heads": dict(one.heads),
    }


def _read(held: Any) -> list[Verification | None]:
    """Read the results; none if something else was printed, as by a ``sitecustomize``."""
    try:
        return [None if one is None else _result(one) for one in held or ()]
    except (TypeError, KeyError):
        return []


def _result(one: dict[str, Any]) -> Verification:
    return Verification(
        rows=one["rows"],
        failures=tuple(one["failures"]),
        notes=tuple(one["notes"]),
        uncovered=tuple(one["uncovered"]),
        heads=one["heads"],
    )
