"""Keep signed heads next to a ledger's file, and compare the ledger with them."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import select

from greentrain.errors import LedgerError
from greentrain.ledger.heads import ExportedHeads, checked
from greentrain.ledger.rows import Head
from greentrain.ledger.schema import BUDGET_CHAIN, RUN_CHAIN, entries
from greentrain.ledger.signatures import Checker, Signer
from greentrain.ledger.store import LedgerStore
from greentrain.regular_files import open_regular, read_regular
from greentrain.units import utc_now, utc_text

_log = logging.getLogger(__name__)
_CHUNK = 400
_LARGEST = 2**30


def head_log(file: Path) -> Path:
    """Return the file of the signed heads of a ledger's file."""
    return file.with_name(f"{file.name}.heads")


def sign_heads(
    signer: Signer, head_of: Callable[[str], tuple[int, str] | None], file: Path, chain: str
) -> None:
    """Append a line with the signed heads of a run, of all runs and of all budgets.

    A failure is a warning: the training that ends must not fail by it.

    Args:
        signer: The signer.
        head_of: Returns the rows and the head of a chain: :meth:`LedgerStore.head`.
        file: The ledger's file.
        chain: The chain of the run that has ended.
    """
    try:
        heads: dict[str, Head] = {}
        for one in (RUN_CHAIN, BUDGET_CHAIN, chain):
            if (head := head_of(one)) is not None:
                heads[one] = {"count": head[0], "head": head[1]}
        line = json.dumps(
            signer.sign("heads", {"signed_utc": utc_text(utc_now()), "heads": heads}),
            sort_keys=True,
        )
        descriptor = open_regular(head_log(file), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with os.fdopen(descriptor, "ab") as written:
            written.write(f"{line}\n".encode())
            written.flush()
            os.fsync(written.fileno())
    except (OSError, LedgerError) as error:
        _log.warning("the heads of %s were not signed: %s", chain, error)


def head_faults(store: LedgerStore, file: Path, checker: Checker) -> tuple[list[str], int]:
    """Compare a ledger with its signed heads.

    Args:
        store: The open ledger.
        file: The ledger's file.
        checker: The checker.

    Returns:
        Sentences on what does not fit, and the number of rows that signed heads cover.

    Raises:
        LedgerError: If the ledger cannot be read.
    """
    log = head_log(file)
    try:
        lines = read_regular(log, _LARGEST).splitlines()
    except FileNotFoundError:
        return [f"there are no signed heads: {log.name} is missing"], 0
    except OSError as error:
        return [f"the signed heads cannot be read: {log.name}: {error.strerror}"], 0
    faults: list[str] = []
    signed: list[ExportedHeads] = []
    for number, line in enumerate(lines, start=1):
        try:
            statement = json.loads(line)
        except (ValueError, RecursionError):
            faults.append(f"line {number} of {log.name} is cut short, or no signed head")
            continue
        if (fault := checker.fault(statement, "heads")) is not None:
            faults.append(f"line {number} of {log.name}: {fault}")
            continue
        signed.append(
            ExportedHeads(
                exported_utc=str(statement["signed_utc"]), heads=checked(statement["heads"])
            )
        )
    if not lines:
        faults.append(f"there are no signed heads: {log.name} is empty")
    found = dict(_found(store, signed))
    faults += [one for heads in signed for one in heads.failures(found)]
    most: dict[str, int] = defaultdict(int)
    for heads in signed:
        for chain in heads.heads:
            most[chain] = max(most[chain], heads.count(chain))
    return list(dict.fromkeys(faults)), sum(most.values())


def _found(
    store: LedgerStore, signed: list[ExportedHeads]
) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield the hashes that a ledger has in the places of heads."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for heads in signed:
        for chain, seq in heads.places():
            wanted[chain].add(seq)
    with store.read() as connection:
        for chain, places in wanted.items():
            ordered = sorted(places)
            for begin in range(0, len(ordered), _CHUNK):
                query = select(entries.c.seq, entries.c.hash).where(
                    entries.c.chain == chain, entries.c.seq.in_(ordered[begin : begin + _CHUNK])
                )
                for row in connection.execute(query):
                    yield (chain, row.seq), row.hash
