"""Recompute a ledger's chains and sums, and name the first thing that does not follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greentrain.errors import LedgerError
from greentrain.ledger.exported_heads import ExportedHeads
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.schema import RUN_CHAIN
from greentrain.ledger.snapshot import Snapshot, damaged, take_snapshot
from greentrain.ledger.store import Store, key_sentence
from greentrain.ledger.verify_chains import chain_failures, needs_key
from greentrain.ledger.verify_money import money_failures, money_notes
from greentrain.units import format_energy

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found in a ledger.

    Args:
        rows: Rows that were recomputed.
        failures: What does not follow, one sentence each; empty for an untouched ledger.
        notes: What follows and should be known: overruns, open reservations, unclosed runs, and
            what their heartbeats tell of.
        uncovered: Ids of the runs that have no closing row, and of which no exported head shows
            that none was there: it may never have been written, or may have been cut off.
    """

    rows: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    uncovered: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything follows."""
        return not self.failures

    @property
    def exit_code(self) -> int:
        """What ``greentrain verify`` ends with: 0, 1 for failures, or 3 for uncovered runs."""
        return 1 if self.failures else 3 if self.uncovered else 0


def verify(ledger: Ledger, exported: ExportedHeads | None = None) -> Verification:
    """Recompute the hash chains, the money rules and the sums of a ledger.

    What lies after the last head that left the database can be cut off unnoticed.

    Args:
        ledger: The ledger, which is only read.
        exported: Heads that left it earlier, and that it has to have still.

    Raises:
        LedgerError: If it cannot be read, or was begun with a key and none is given.
    """
    try:
        taken = take_snapshot(ledger.store)
    except LedgerError as error:
        if not damaged(error):
            raise
        return Verification(rows=0, failures=(str(error),), notes=())
    return verify_snapshot(taken, ledger.store, exported)


def verify_snapshot(
    snapshot: Snapshot, store: Store, exported: ExportedHeads | None = None
) -> Verification:
    """Recompute what :func:`verify` does, of a ledger as it stood at some moment.

    Args:
        snapshot: Its rows.
        store: Where they are from: its key is what rows were hashed with.
        exported: Heads that left it earlier.

    Raises:
        LedgerError: If it was begun with a key and none is given.
    """
    spine, content = snapshot.spine, snapshot.content
    if store.key is None and needs_key(spine, content):
        raise LedgerError(key_sentence(store.name, spine[0]["prev_hash"], None))
    rows = {kind: list(table.values()) for kind, table in content.items()}
    failures = [
        *snapshot.damage,
        *chain_failures(spine, content, store.key),
        *snapshot.orphans,
    ]
    notes: list[str] = []
    if exported is not None:
        failures += exported.failures(spine)
    try:
        failures += money_failures(spine, rows)
        notes += [*money_notes(rows), *_notes(rows)]
    except (ArithmeticError, TypeError, ValueError) as error:
        if not failures:
            raise
        failures.append(f"what was altered cannot be added up: {error}")
    closed = {row["run_id"] for row in rows["closing"]}
    return Verification(
        rows=len(spine),
        failures=tuple(failures),
        notes=tuple(notes),
        uncovered=tuple(
            str(row["run_id"])
            for number, row in enumerate(rows["run"])
            if row["run_id"] not in closed
            and (exported is None or not exported.covers(RUN_CHAIN, number + 1))
        ),
    )


def _notes(rows: Mapping[str, Rows]) -> Iterator[str]:
    closed = {row["run_id"] for row in rows["closing"]}
    recovered = _recovered(rows)
    for row in rows["run"]:
        if row["run_id"] not in closed:
            yield f"unclosed: run {row['run_id']} ({row['name']}) has no closing row"
        if of_it := recovered.get(row["run_id"]):
            energy_j = sum(window["energy_j"] or 0.0 for window in of_it)
            yield (
                f"recovered: the last heartbeats of run {row['run_id']} ({row['name']}) hold "
                f"{format_energy(energy_j)} of {len(of_it)} phase(s) that never closed"
            )


def _recovered(rows: Mapping[str, Rows]) -> Mapping[str, Rows]:
    by_run: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    if not rows["heartbeat"]:
        return by_run
    for row in with_recovered(rows["window"], rows["heartbeat"], rows["closing"]):
        if row["recovered"]:
            by_run[row["run_id"]].append(row)
    return by_run
