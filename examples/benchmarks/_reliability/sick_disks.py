"""Let the disk of a stream fail during an update, and count what is lost once it works again."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback

from _reliability import failpoints, stream
from _reliability.failpoints import NAMES, OPENS, READS, SYNCS, WRITES
from _reliability.forking import forked, spread
from greentrain.errors import LedgerError

if TYPE_CHECKING:
    from _reliability.host import Host

SICKNESSES: dict[str, dict[str, Any]] = {
    "disk full from write": {"kinds": WRITES, "error": errno.ENOSPC},
    "EIO at fsync": {"kinds": SYNCS, "error": errno.EIO, "times": 1},
    "EIO from fsync": {"kinds": SYNCS, "error": errno.EIO},
    "no descriptors from open": {"kinds": READS, "error": errno.EMFILE},
    "read-only from change": {"kinds": WRITES | OPENS | NAMES, "error": errno.EROFS},
}
"""Calls that fail during an update: all from a number on, or as many as ``times`` says."""
DELETED = "file gone from batch"


class Batches(Callback):
    """Count the batches that were trained on, and act at one of them."""

    def __init__(self, at: int = 0, act: Callable[[], object] = lambda: None) -> None:
        self.count = 0
        self._at, self._act = at, act

    def on_train_batch_start(self, *args: Any, **options: Any) -> None:
        """Count, and act."""
        self.count += 1
        if self.count == self._at:
            self._act()


def sick(host: Host, most: int, part: tuple[int, int] = (0, 1)) -> Iterator[dict[str, Any]]:
    """Try every sickness at each of its calls, or at some of them."""
    batches = 0
    for name, how in SICKNESSES.items():
        healthy = host.with_copy(lambda how=how: failing(host, **how))
        batches = healthy["batches"]
        for number in spread(healthy["calls"], most, part):
            tried = case(
                host,
                f"{name} {number}",
                lambda how=how, first=number: failing(host, first=first, **how),
            )
            yield {**tried, "of": healthy["calls"]}
    for number in spread(batches, most, part):
        tried = case(host, f"{DELETED} {number}", lambda at=number: deleted(host, at))
        yield {**tried, "of": batches}


def case(host: Host, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what differs after an update with a sickness, and a later process."""
    try:
        found = host.with_copy(work)
        facts, _ = forked(host.finish)
    except RuntimeError as error:
        return {"case": name, "differ": [str(error)]}
    return {"case": name, "differ": [*found["differ"], *lost(facts, found["results"])]}


def failing(
    host: Host,
    *,
    kinds: int,
    error: int,
    first: int = failpoints.FOR_EVER,
    times: int = failpoints.FOR_EVER,
) -> dict[str, Any]:
    """Update while calls fail."""
    # The spool is among temporary files: they are on another disk, but need descriptors too.
    folder = host.now if kinds & READS else host.now / "disk"
    batches = Batches()
    return through(
        host.now,
        host.setup,
        batches,
        begin=lambda: failpoints.arm(
            folder, kinds, first=first, last=first + times - 1, error=error
        ),
        end=failpoints.disarm,
    )


def deleted(host: Host, at: int) -> dict[str, Any]:
    """Update while the ledger's file is gone, and put it back."""
    path = host.now / "disk" / "greentrain.db"
    aside = path.with_name("aside")
    batches = Batches(at, lambda: path.rename(aside))
    return through(host.now, host.setup, batches, end=lambda: aside.rename(path))


def through(
    folder: Path,
    setup: str,
    batches: Batches,
    *,
    begin: Callable[[], object] = lambda: None,
    end: Callable[[], object],
    **changes: Any,
) -> dict[str, Any]:
    """Update on the second experience with a sickness, and on the third without one."""
    differ: list[str] = []
    results: list[str] = []
    with stream.opened(folder, setup, callbacks=[batches], **changes) as trainer:
        begin()
        try:
            results += [one.experience_id for one in trainer.run(stream.arrivals(("0", "1")))]
        except Exception as error:
            # Without a reservation nothing may start.
            if batches.count or not isinstance(error, LedgerError):
                differ.append(f"training ended: {type(error).__name__}: {error}")
        calls, trained = end(), batches.count
        results += [one.experience_id for one in trainer.run(stream.arrivals())]
    return {"calls": calls, "batches": trained, "differ": differ, "results": results}


def lost(facts: dict[str, Any], results: list[str]) -> list[str]:
    """Return the rows that are missing or doubled after the results of a process."""
    differ = [f"verify: {each}" for each in facts["failures"]]
    if facts["known"] != list(stream.NAMES):
        differ.append(f"experiences {facts['known']}")
    if abs(facts["windows_j"] - facts["true_j"]) > stream.ROUNDING_J:
        differ.append(f"windows with {facts['windows_j']} J of {facts['true_j']} J")
    if facts["charged_j"] < facts["true_j"] - stream.ROUNDING_J:
        differ.append(f"{facts['charged_j']} J charged of {facts['true_j']} J")
    recorded = [row["experience_id"] for row in facts["outcomes"]]
    if Counter(recorded) != Counter(["0", *results]):
        differ.append(f"outcomes of {recorded} for results of {['0', *results]}")
    if facts["waiting"]:
        differ.append(f"files with rows are left: {facts['waiting']}")
    return differ
