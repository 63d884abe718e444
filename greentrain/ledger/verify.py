"""Recompute a ledger's chains and sums, and list everything that does not follow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from greentrain.errors import LedgerError
from greentrain.ledger.hashing import wrong_key
from greentrain.ledger.heads import ExportedHeads
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.outbox import set_aside
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.rows import RecoveredWindowRow, RowsByKind, WindowRow
from greentrain.ledger.schema import RUN_CHAIN
from greentrain.ledger.snapshot import Snapshot
from greentrain.ledger.store import UnreadableError
from greentrain.ledger.verify_chains import chain_failures, needs_key
from greentrain.ledger.verify_money import money_failures, money_notes
from greentrain.units import format_energy

_SLACK_S, _SLACK_SHARE = 1.0, 0.001
"""Largest difference of two clocks of one machine: seconds, and a share of a window's seconds."""
_SKEW = timedelta(seconds=5)
"""Difference between the clocks of two hosts that is not worth a remark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of verifying a ledger.

    Args:
        rows: Number of rows that were recomputed.
        failures: Sentences about what does not follow; empty for an unaltered ledger.
        notes: Sentences about what follows and may matter: overruns, open reservations, unclosed
            runs, the energy recovered from their heartbeats, and clocks that were set back.
        uncovered: Ids of the runs without a closing row, if no exported head shows that there was
            none. The row may never have been written, or may have been cut off.
        readable: Whether the file could be read; if not, its failure says why.
    """

    rows: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    uncovered: tuple[str, ...] = ()
    readable: bool = True

    @property
    def ok(self) -> bool:
        """``True`` if everything follows."""
        return not self.failures

    @property
    def exit_code(self) -> int:
        """Exit code of ``greentrain verify``.

        It is 0, 1 for failures, 3 for uncovered runs, or 4 for a file that is no readable ledger.
        """
        if not self.readable:
            return 4
        return 1 if self.failures else 3 if self.uncovered else 0


def verify(ledger: Ledger, exported: ExportedHeads | None = None) -> Verification:
    """Recompute the hash chains, the rules for budgets and the sums of a ledger.

    Rows after the last head that was exported can be cut off unnoticed.

    Args:
        ledger: The ledger, which is only read.
        exported: Heads that were exported earlier, and that the ledger must still contain.

    Raises:
        LedgerError: If it cannot be read, or was created with a key and none is given.
    """
    try:
        snapshot = ledger.snapshot()
    except UnreadableError as error:
        return unreadable(error)
    return verify_snapshot(snapshot, ledger, exported)


def unreadable(error: UnreadableError) -> Verification:
    """Return the result for a file that is no readable ledger."""
    return Verification(rows=0, failures=(str(error),), notes=(), readable=False)


def verify_snapshot(
    snapshot: Snapshot, ledger: Ledger, exported: ExportedHeads | None = None
) -> Verification:
    """Verify a snapshot as :func:`verify` verifies a ledger.

    Args:
        snapshot: The rows.
        ledger: Their ledger, which has the key.
        exported: Heads that were exported earlier.

    Raises:
        LedgerError: If the ledger was created with a key and none is given.
    """
    spine, content, key = snapshot.spine, snapshot.content, ledger.store.key
    if key is None and needs_key(spine, content):
        raise LedgerError(wrong_key(ledger.name, spine[0]["prev_hash"], None))
    rows = snapshot.by_kind()
    failures = [*snapshot.damage, *chain_failures(spine, content, key), *snapshot.orphans]
    notes: list[str] = []
    if exported is not None:
        failures += exported.failures(spine)
    try:
        failures += money_failures(rows)
        notes += [
            *money_notes(rows),
            *_notes(rows),
            *_after_closing(spine),
            *_clock(spine),
            *_clock_notes(rows["window"]),
        ]
    except (ArithmeticError, TypeError, ValueError) as error:
        if not failures:
            raise
        failures.append(f"the altered amounts cannot be summed: {error}")
    notes += [
        f"refused: a row that the ledger did not take is set aside in {path.name}"
        for path in set_aside(ledger.store)
    ]
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


def _clock_notes(windows: Sequence[WindowRow]) -> Iterator[str]:
    """Yield a sentence for each run with windows that were recorded before they ended."""
    early: dict[str, list[tuple[float, WindowRow]]] = defaultdict(list)
    for window in windows:
        if ahead_s := _ahead_s(window):
            early[window["run_id"]].append((ahead_s, window))
    for run_id, found in early.items():
        first = found[0][1]
        epoch = "" if first["epoch"] is None else f" of epoch {first['epoch']}"
        longest_s = max(ahead_s for ahead_s, _ in found)
        yield (
            f"clock: {len(found)} window(s) of run {run_id}, from {first['phase']}{epoch} on, were "
            f"recorded up to {longest_s:.1f} s before their end: the machine's clock was set back"
        )


def _notes(rows: RowsByKind) -> Iterator[str]:
    closed = {row["run_id"] for row in rows["closing"]}
    recovered: dict[str, list[RecoveredWindowRow]] = defaultdict(list)
    if rows["heartbeat"]:
        for window in with_recovered(rows["window"], rows["heartbeat"], rows["closing"]):
            if window["recovered"]:
                recovered[window["run_id"]].append(window)
    for row in rows["run"]:
        if row["run_id"] not in closed:
            yield f"unclosed: run {row['run_id']} ({row['name']}) has no closing row"
        if windows := recovered.get(row["run_id"]):
            energy_j = sum(window["energy_j"] or 0.0 for window in windows)
            yield (
                f"recovered: the last heartbeats of run {row['run_id']} ({row['name']}) hold "
                f"{format_energy(energy_j)} of {len(windows)} phase(s) that never closed"
            )


def _ahead_s(window: WindowRow) -> float:
    """Return by how many seconds a window ended after its row was written; 0 within the slack."""
    try:
        ended = datetime.fromisoformat(window["started_utc"]) + timedelta(
            seconds=window["duration_s"]
        )
        ahead_s = (ended - datetime.fromisoformat(window["recorded_utc"])).total_seconds()
    except (TypeError, ValueError, OverflowError):  # altered, which the chain shows
        return 0.0
    return ahead_s if ahead_s > _SLACK_S + _SLACK_SHARE * window["duration_s"] else 0.0


def _after_closing(spine: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the runs that have rows after their closing row, except settlements of releases."""
    closed: set[str] = set()
    after: Counter[str] = Counter()
    for entry in spine:
        if entry["kind"] == "closing":
            closed.add(entry["chain"])
        elif entry["chain"] in closed and entry["kind"] != "settlement":
            after[entry["chain"]] += 1
    for chain, count in sorted(after.items()):
        yield f"late: {chain} has {count} row(s) after its closing row"


def _clock(spine: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a remark on rows that are dated before a row that precedes them."""
    latest, count, furthest_s = "", 0, 0.0
    for entry in spine:
        recorded = entry["recorded_utc"]
        if recorded < latest:
            try:
                passed = datetime.fromisoformat(latest) - datetime.fromisoformat(recorded)
            except (TypeError, ValueError):  # altered: the hashes show it
                continue
            if passed > _SKEW:
                count += 1
                furthest_s = max(furthest_s, passed.total_seconds())
        latest = max(latest, recorded)
    if count:
        yield (
            f"clock: {count} row(s) are dated up to {furthest_s:.0f} s before a row that precedes "
            "them, so a clock was set back or differs between hosts"
        )
