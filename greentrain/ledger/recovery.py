"""What a run left that was killed: the last heartbeat of each phase that never closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_Rows = Iterable[Mapping[str, Any]]


def with_recovered(windows: _Rows, heartbeats: _Rows, closings: _Rows) -> list[dict[str, Any]]:
    """Return all windows in order, those that only heartbeats tell of among them.

    A heartbeat counts where it is the last of its phase, no window of the same run, phase and start
    was written, and the run has no closing row: it was killed, or still runs.

    Args:
        windows: The rows of kind ``"window"``, in order.
        heartbeats: The rows of kind ``"heartbeat"``, in order.
        closings: The rows of kind ``"closing"``.

    Returns:
        The rows, each with ``recovered``: whether it is a heartbeat.
    """
    closed = {row["run_id"] for row in closings}
    rows = [{**row, "recovered": False} for row in windows]
    written = {_phase(row) for row in rows}
    last = {_phase(row): row for row in heartbeats if row["run_id"] not in closed}
    rows += [{**row, "recovered": True} for phase, row in last.items() if phase not in written]
    return sorted(rows, key=_place)


def last_descriptions(sources: _Rows) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the last row of each source by run id and name, of rows of kind ``"source"``."""
    described: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in sources:
        described.setdefault(row["run_id"], {})[row["name"]] = row
    return described


def _phase(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["run_id"], row["phase"], row["started_utc"]


def _place(row: Mapping[str, Any]) -> int:
    return int(row["entry_id"])
