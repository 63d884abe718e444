"""Kill a stream at every call of an update that changes a file, and compare what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _results import Row

from _reliability.hosts import row_of, tried

_TRIES = {
    "policy:kill": "the default policy",
    "mlflow:kill": "MLflow (SQLite)",
    "buffer:kill": "a buffer on disk, and replay",
    "policy:again": "the default policy, and the next process is killed too",
    "buffer:again": "a buffer on disk, and the next process is killed too",
}
_NOTE = (
    "SIGKILL before each write, fsync, truncation, renaming, deletion and opening for writing. The "
    "second of three experiences is killed, until the stream is closed. Another process runs the "
    "stream to its end. Compared with an undisturbed one are experiences, joules, outcomes in the "
    "ledger, the report and MLflow, and every bit of weights and buffer"
)


def kills(folder: Path, *, most: int = 0) -> list[Row]:
    """Return a row for each configuration: the points at which anything was lost or doubled.

    Args:
        folder: A folder for everything.
        most: Points of each configuration; 0 for all.
    """
    return kill_rows(tried(folder / "kills", list(_TRIES), most=most))


def kill_rows(found: Mapping[str, Sequence[dict[str, Any]]]) -> list[Row]:
    """Return the rows of those configurations that were tried."""
    return [
        row_of(
            "kills",
            f"points at which a kill lost, repeated or changed anything, with {what}",
            found[each],
            unit="points",
            note=_NOTE if each == next(iter(found)) else "",
        )
        for each, what in _TRIES.items()
        if each in found
    ]
