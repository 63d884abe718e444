"""Kill a stream at every call of an update that changes a file, and compare what is left."""

from __future__ import annotations

from pathlib import Path

from _results import Row

from _reliability.hosts import row_of, tried

QUICK = 3
_QUICK_TRIES = ("mlflow:kill", "buffer:kill")
_TRIES = {
    "policy:kill": "the default policy",
    "mlflow:kill": "MLflow (SQLite)",
    "buffer:kill": "a buffer on disk, and replay",
    "policy:again": "the default policy, and the next process is killed too",
}
_NOTE = (
    "SIGKILL before each write, fsync, truncation, renaming, deletion and opening for writing. The "
    "second of three experiences is killed, until the stream is closed. Another process runs the "
    "stream to its end. Compared with an undisturbed one are experiences, joules, outcomes in the "
    "ledger, the report and MLflow, and every bit of weights and buffer"
)


def kills(folder: Path, *, quick: bool, most: int = 0) -> list[Row]:
    """Return a row for each configuration: the points at which anything was lost or doubled.

    Args:
        folder: A folder for everything.
        quick: Whether to try a few points of two configurations, in one process.
        most: Points of each configuration; 0 for all.
    """
    tries = _QUICK_TRIES if quick else tuple(_TRIES)
    found = tried(folder / "kills", tries, most=QUICK if quick else most, together=quick)
    return [
        row_of(
            "kills",
            f"points at which a kill lost, repeated or changed anything, with {_TRIES[each]}",
            found[each],
            unit="points",
            note=_NOTE if number == 0 else "likewise",
        )
        for number, each in enumerate(tries)
    ]
