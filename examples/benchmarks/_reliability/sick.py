"""Sick disks and servers: training continues, and nothing is lost once they work again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _ledger.cases import Cases, cases
from _results import Row

from _reliability.hosts import row_of, tried
from _reliability.kills import kill_rows
from tests.ledger.cluster import programs

QUICK = 2
SCALE = 0.05
SLEEPERS = 12
"""Processes that wait for frozen servers, each for another; most of the time they sleep."""
WORKERS = 2
_TESTS = {
    "sick": Cases(
        what="tests of sick disks and servers that failed: full, read-only, deleted, silent",
        files=(
            "tests/ledger/test_sick_disk.py",
            "tests/ledger/test_file.py",
            "tests/ledger/test_silent_server.py",
        ),
    )
}
_LOST = (
    "training ended, or a window, an outcome or a joule was missing or doubled once it worked again"
)


def sick(folder: Path, *, most: int = 0) -> list[Row]:
    """Return the rows of sick disks, frozen servers, and of the tests of others.

    Args:
        folder: A folder for everything.
        most: Cases of each sickness; 0 for all.
    """
    with ThreadPoolExecutor(1) as pool:
        if programs() is None:
            note = "not run: PostgreSQL is not installed"
            servers = [Row(id="sick", what="frozen servers", value=None, unit="cases", note=note)]
        else:
            asleep = pool.submit(_frozen, folder, 1.0, most, parts=SLEEPERS)
        disks = tried(folder / "disks", ["buffer:sick"], most=most, parts=WORKERS)["buffer:sick"]
        if programs() is not None:
            servers = [_frozen(folder, SCALE, most, parts=WORKERS), asleep.result()]
    return [_disk_row(disks), *servers, cases("sick", folder, quick=False, of=_TESTS)]


def quick(folder: Path) -> list[Row]:
    """Return rows of a few kills and sick disks, which one process tries."""
    found = tried(
        folder / "quick", ["buffer:kill", "buffer:again", "buffer:sick"], most=QUICK, together=True
    )
    disks = found.pop("buffer:sick")
    return [*kill_rows(found), _disk_row(disks)]


def _disk_row(disks: Sequence[dict[str, Any]]) -> Row:
    return row_of(
        "sick",
        f"sick disks after which {_LOST}",
        disks,
        unit="cases",
        note="Ledger, state and buffer are on the disk. It fails during an update. Full from each "
        "write on; EIO at each fsync, or from each on; no descriptors from each opened file on. "
        "Read-only from each change on; ledger's file gone from each batch on. Without a "
        "reservation nothing starts, and the experience is tried again",
    )


def _frozen(folder: Path, scale: float, most: int, *, parts: int) -> Row:
    found = tried(
        folder / f"frozen-{scale}",
        ["policy:frozen"],
        most=most,
        parts=parts,
        options=["--scale", f"{scale}"],
    )["policy:frozen"]
    return row_of(
        "sick",
        f"statements at which PostgreSQL froze for {60 * scale:g} s, after which {_LOST}",
        found,
        unit="statements",
        note="all processes of a real server are stopped"
        if scale == 1
        else f"with {scale:g} times the time-outs",
    )
