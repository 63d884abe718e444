"""Freeze a PostgreSQL server at each statement of an update, and count what is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from _reliability import stream
from _reliability.forking import forked, spread
from _reliability.sick_disks import Batches, lost, through
from greentrain.ledger import postgres, sql_store
from tests.ledger.cluster import Cluster, programs

FROZEN_S = 60.0


def frozen(
    folder: Path, most: int, *, scale: float, part: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, Any]]:
    """Freeze a server at each statement of an update, or at some of them.

    Args:
        folder: An empty folder.
        most: Number of statements; 0 for all.
        scale: Factor of the time that the server is frozen, and of greentrain's time-outs.
        part: Which part of how many, as :func:`spread` takes it.
    """
    found = programs()
    if found is None:
        return
    postgres._GRACE_S *= scale
    sql_store.BUSY_TIMEOUT_S *= scale
    # libpq accepts no less than two seconds.
    postgres._CONNECT["connect_timeout"] = max(2, round(10 * scale))
    cluster = Cluster(found)
    try:
        stream.prepare(folder / "warm", "policy", ledger=cluster.new())  # imports late ones
        url = cluster.new()
        statements = forked(lambda: _update(folder / "all", cluster, url, 0, 0.0))["calls"]
        for number in spread(statements, most, part):
            case = _case(folder / f"{number}", cluster, number, FROZEN_S * scale)
            yield {**case, "of": statements}
    finally:
        cluster.remove()


def _case(folder: Path, cluster: Cluster, number: int, frozen_s: float) -> dict[str, Any]:
    name = f"frozen at statement {number}"
    url = cluster.new()
    try:
        found = forked(lambda: _update(folder, cluster, url, number, frozen_s))
    except RuntimeError as error:
        cluster.thaw()
        return {"case": name, "differ": [str(error)]}
    if found["calls"] < number:
        return {"case": name, "differ": None}
    return {"case": name, "differ": [*found["differ"], *lost(found["facts"], found["results"])]}


def _update(
    folder: Path, cluster: Cluster, url: str, number: int, frozen_s: float
) -> dict[str, Any]:
    """Run a stream whose server is frozen at a statement of the second experience."""
    stream.prepare(folder, "policy", ledger=url)
    freeze = _Freeze(cluster, number, frozen_s)
    event.listen(Engine, "before_cursor_execute", freeze)
    found = through(folder, "policy", Batches(), begin=freeze.begin, end=freeze.end, ledger=url)
    return {**found, "facts": stream.finish(folder, "policy", ledger=url)}


class _Freeze:
    """Freezes a server at a statement, and thaws it a while later."""

    def __init__(self, cluster: Cluster, number: int, frozen_s: float) -> None:
        self._cluster, self._number, self._frozen_s = cluster, number, frozen_s
        self._lock = threading.Lock()
        self._counts = False
        self._count = 0
        self._timer: threading.Timer | None = None

    def __call__(self, *args: Any) -> None:
        with self._lock:
            if not self._counts:
                return
            self._count += 1
            if self._count == self._number:
                self._cluster.freeze()
                self._timer = threading.Timer(self._frozen_s, self._cluster.thaw)
                self._timer.start()

    def begin(self) -> None:
        self._counts = True

    def end(self) -> int:
        """Wait until the server is back, and return the number of statements."""
        with self._lock:
            self._counts = False
        if self._timer is not None:
            self._timer.join()
        return self._count
