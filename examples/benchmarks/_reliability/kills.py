"""Kill a stream at every call of an update that changes a file, and compare what is left."""

from __future__ import annotations

from pathlib import Path

from _results import Row

from _reliability.hosts import row_of, tried

QUICK = 4
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


def kills(folder: Path, *, quick: bool) -> list[Row]:
    """Return a row for each configuration: the points at which anything was lost or doubled."""
    found = tried(folder / "kills", list(_TRIES), most=QUICK if quick else 0, together=quick)
    return [
        row_of(
            "kills",
            f"points at which a kill lost, repeated or changed anything, with {what}",
            found[each],
            unit="points",
            note=_NOTE if number == 0 else "likewise",
        )
        for number, (each, what) in enumerate(_TRIES.items())
    ]
