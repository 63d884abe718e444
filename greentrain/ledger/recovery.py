"""Recover what killed runs measured from the last heartbeats of their open phases."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from greentrain.ledger.rows import (
    ClosingRow,
    HeartbeatRow,
    RecoveredWindowRow,
    SourceRow,
    WindowRow,
)


def with_recovered(
    windows: Iterable[WindowRow],
    heartbeats: Iterable[HeartbeatRow],
    closings: Iterable[ClosingRow],
) -> list[RecoveredWindowRow]:
    """Return all windows in order, and the heartbeats that replace missing windows.

    A heartbeat counts if it is the last of its phase and no window of the same run, phase and start
    was written. Its run must have no closing row: the run was killed, or is still running.
    """
    closed = {row["run_id"] for row in closings}
    rows: list[RecoveredWindowRow] = [{**row, "recovered": False} for row in windows]
    written = {_phase(row) for row in rows}
    last = {_phase(row): row for row in heartbeats if row["run_id"] not in closed}
    rows += [{**row, "recovered": True} for phase, row in last.items() if phase not in written]
    return sorted(rows, key=itemgetter("entry_id"))


def last_descriptions(sources: Iterable[SourceRow]) -> dict[str, dict[str, SourceRow]]:
    """Return the last row of each source, by run id and source name."""
    described: dict[str, dict[str, SourceRow]] = {}
    for row in sources:
        described.setdefault(row["run_id"], {})[row["name"]] = row
    return described


def _phase(row: WindowRow) -> tuple[str, str, str]:
    return row["run_id"], row["phase"], row["started_utc"]
