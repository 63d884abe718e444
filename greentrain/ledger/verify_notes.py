"""Remarks on the runs of a ledger and on its clocks, which are no failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.row_stream import Entry, RowLookup
from greentrain.ledger.rows import ClosingRow, HeartbeatRow, RunRow, WindowRow
from greentrain.units import format_energy

_SLACK_S, _SLACK_SHARE = 1.0, 0.001
"""Largest difference of two clocks of one machine: seconds, and a share of a window's seconds."""
_SKEW = timedelta(seconds=5)
"""Difference between the clocks of two hosts that is not worth a remark."""


class RunNotes:
    """Collect what is remarkable, row by row.

    Args:
        lookup: Reader of the same rows, for the runs that have heartbeats and never closed.
    """

    def __init__(self, lookup: RowLookup) -> None:
        self._lookup = lookup
        self._names: dict[str, str] = {}
        self._closed: set[str] = set()
        self._beating: set[str] = set()
        self._early: dict[str, tuple[int, float, WindowRow]] = {}
        self._ended: set[str] = set()
        self._late: Counter[str] = Counter()
        self._latest = ""
        self._back, self._furthest_s = 0, 0.0

    def entry(self, entry: Entry) -> None:
        """Add any row, before the method for its kind.

        Raises:
            TypeError: If its date was altered to something else than a text.
        """
        if entry.kind == "closing":
            self._ended.add(entry.chain)
        elif entry.chain in self._ended and entry.kind != "settlement":
            self._late[entry.chain] += 1
        if entry.recorded_utc < self._latest:
            self._set_back(entry.recorded_utc)
        else:
            self._latest = entry.recorded_utc

    def run(self, row: RunRow) -> None:
        """Add an opening row."""
        self._names[row["run_id"]] = row["name"]

    def closing(self, row: ClosingRow) -> None:
        """Add a closing row."""
        self._closed.add(row["run_id"])

    def heartbeat(self, row: HeartbeatRow) -> None:
        """Add a heartbeat."""
        self._beating.add(row["run_id"])

    def window(self, row: WindowRow) -> None:
        """Add a window."""
        if ahead_s := _ahead_s(row):
            count, longest_s, first = self._early.get(row["run_id"], (0, 0.0, row))
            self._early[row["run_id"]] = count + 1, max(longest_s, ahead_s), first

    def all(self) -> Iterator[str]:
        """Yield the remarks, after the last row."""
        yield from self._of_runs()
        for chain, count in sorted(self._late.items()):
            yield f"late: {chain} has {count} row(s) after its closing row"
        if self._back:
            yield (
                f"clock: {self._back} row(s) are dated up to {self._furthest_s:.0f} s before a row "
                "that precedes them, so a clock was set back or differs between hosts"
            )
        for run_id, (count, longest_s, first) in self._early.items():
            epoch = "" if first["epoch"] is None else f" of epoch {first['epoch']}"
            yield (
                f"clock: {count} window(s) of run {run_id}, from {first['phase']}{epoch} on, were "
                f"recorded up to {longest_s:.1f} s before their end: the machine's clock was set "
                "back"
            )

    def unclosed(self, covered: int = 0) -> tuple[str, ...]:
        """Return the ids of the runs without a closing row.

        Args:
            covered: Number of first runs that are left out, because an exported head covers them.
        """
        later = list(self._names)[covered:]
        return tuple(str(run_id) for run_id in later if run_id not in self._closed)

    def _of_runs(self) -> Iterator[str]:
        for run_id, name in self._names.items():
            if run_id in self._closed:
                continue
            yield f"unclosed: run {run_id} ({name}) has no closing row"
            if run_id not in self._beating:
                continue
            windows = with_recovered(
                self._lookup.rows("window", run_id=run_id),
                self._lookup.rows("heartbeat", run_id=run_id),
                (),
            )
            recovered = [window for window in windows if window["recovered"]]
            if recovered:
                energy_j = sum(window["energy_j"] or 0.0 for window in recovered)
                yield (
                    f"recovered: the last heartbeats of run {run_id} ({name}) hold "
                    f"{format_energy(energy_j)} of {len(recovered)} phase(s) that never closed"
                )

    def _set_back(self, recorded: str) -> None:
        try:
            passed = datetime.fromisoformat(self._latest) - datetime.fromisoformat(recorded)
        except (TypeError, ValueError):  # altered: the hashes show it
            return
        if passed > _SKEW:
            self._back += 1
            self._furthest_s = max(self._furthest_s, passed.total_seconds())


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
