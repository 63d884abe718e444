"""Send waiting rows to MLflow from a background thread, so that training never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from greentrain.ledger.disk_queue import QueuedRow
from greentrain.texts import get_logger, one_line
from greentrain.tracking.tracking_queue import TrackingQueue

_log = get_logger(__name__)

_PERIOD_S = 10.0
"""Seconds between two readings of the queue: a call to MLflow takes 25 to 150 ms."""
_RETRY_S = (1.0, 15.0)
"""Seconds until a server that failed is tried again: the first time, and at most."""
_LONGEST_S = 60.0
"""Seconds that the end of a stream waits at most, however well sending goes."""
_JOIN_S = 0.05
_PROBE_S = 1.0
_ROWS = 200
LONGEST_REASON = 300
"""Most characters of an error in a warning, counted without the secrets that it holds."""
MOST_METRICS = 900  # MLflow takes 1,000 in a call
TOGETHER = frozenset({"points", "figures", "tags"})
"""Kinds of rows of which several of one run are sent in one call."""
_MAY_WAIT = frozenset({"text", "file", "files", "model"})
"""Kinds of rows that are stored elsewhere and do not delay other rows if they fail."""


class Sender:
    """Send waiting rows in order, and retry each until it has arrived.

    Args:
        queue: Where rows wait.
        deliver: Sends rows of one run, in one call if their kinds are in :data:`TOGETHER`. Rows are
            sent again if it raises. Rows that are sent twice must arrive once.
        reachable: Returns whether the server responds.
        name: Name of the server in warnings.
    """

    def __init__(
        self,
        queue: TrackingQueue,
        deliver: Callable[[Sequence[QueuedRow]], None],
        *,
        reachable: Callable[[], bool],
        name: str,
    ) -> None:
        self._queue = queue
        self._deliver = deliver
        self._reachable = reachable
        self._name = name
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._failing = False
        self._progress_s = 0.0
        self._left = 0

    def put(self, run: str, kind: str, content: Any, *, replace: bool = False) -> None:
        """Add a row, and send it soon with all rows before it.

        See :meth:`.TrackingQueue.put` for the arguments.
        """
        with self._lock:
            self._ending = False
            if self._thread is None:
                self._queue.adopt()  # older rows are sent first
                self._thread = threading.Thread(
                    target=self._run, name="greentrain-mlflow", daemon=True
                )
                self._thread.start()
            self._queue.put(run, kind, content, replace=replace)
        self._wake.set()

    def finish(self, patience_s: float) -> int:
        """Send what waits, end the thread, and return how many rows still wait.

        Args:
            patience_s: Seconds to wait while no row arrives. A failed attempt ends the wait.
        """
        with self._lock:
            thread, self._ending = self._thread, True
        if thread is None:
            return 0
        self._wake.set()
        self._progress_s = begun_s = time.monotonic()
        while thread.is_alive():
            now_s = time.monotonic()
            if now_s - self._progress_s > patience_s or now_s - begun_s > _LONGEST_S:
                break
            thread.join(_JOIN_S)
        self._warn_of_dropped()
        left = self._queue.count() if thread.is_alive() else self._left
        if left and self._queue.in_memory:
            _log.warning(
                "%d rows for MLflow at %s waited in memory and are lost when this process ends; "
                "set HOME or queue_folder= to a folder that can be written",
                *(left, self._name),
            )
        elif left:
            _log.warning(
                "%d rows for MLflow at %s wait in %s; the next process that logs there sends them",
                *(left, self._name, self._queue.folder),
            )
        return left

    def _run(self) -> None:
        wait_s, retry_s = 0.0, _RETRY_S[0]
        while True:
            self._wake.wait(wait_s)
            self._wake.clear()
            ending = self._ending
            try:
                all_sent = self._send_all()
            except Exception as error:  # such as a full disk: a dead thread would send nothing
                self._warn_of_failure(error)
                all_sent = False
            self._queue.sending = 0
            if all_sent:
                wait_s, retry_s = _PERIOD_S, _RETRY_S[0]
            else:
                wait_s, retry_s = retry_s, min(2 * retry_s, _RETRY_S[1])
            with self._lock:
                if ending and self._ending:
                    self._left = self._queue.count()
                    self._queue.close()
                    self._thread = None
                    return

    def _send_all(self) -> bool:
        """Send all waiting rows, and return whether none has to be sent again."""
        self._queue.adopt()
        postponed, number = False, 0
        while rows := self._queue.after(number, _ROWS):
            for group in grouped(rows):
                try:
                    if number == 0 and not self._reachable():
                        raise ConnectionError("it does not respond")
                    number = group[-1].number
                    self._call(group)
                except Exception as error:  # training continues after any failure
                    self._warn_of_failure(error)
                    if group[0].kind not in _MAY_WAIT or not self._reachable():
                        return False
                    postponed = True
                else:
                    self._queue.remove([row.number for row in group])
                    self._progress_s = time.monotonic()
        if not postponed:
            self._failing = False
            self._warn_of_dropped()
        return not postponed

    def _call(self, group: Sequence[QueuedRow]) -> None:
        """Deliver rows, and give up if the server stops responding.

        MLflow's client retries for minutes and pauses longer each time. It continues in its own
        thread: what it sends later still arrives once.
        """
        ended, errors = threading.Event(), []

        def deliver() -> None:
            try:
                self._deliver(group)
            except Exception as error:
                errors.append(error)
            finally:
                ended.set()

        threading.Thread(target=deliver, name="mlflow-call", daemon=True).start()
        while not ended.wait(_PROBE_S):
            if not self._reachable():
                raise ConnectionError("it stopped responding")
        if errors:
            raise errors[0]

    def _warn_of_failure(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            reason = one_line(" ".join(str(error).split()), LONGEST_REASON)
            _log.warning("rows for MLflow at %s wait, because %s", self._name, reason)

    def _warn_of_dropped(self) -> None:
        if dropped := self._queue.dropped:
            self._queue.dropped = 0
            _log.warning(
                "MLflow at %s will miss the points of %d epochs, the oldest of those that waited",
                *(self._name, dropped),
            )


def grouped(rows: Sequence[QueuedRow]) -> Iterator[list[QueuedRow]]:
    """Split rows, in their order, into groups that are sent in one call each.

    Example:
        >>> rows = [
        ...     QueuedRow(number=number, run=run, kind=kind, content=[])
        ...     for number, (run, kind) in enumerate(
        ...         [("a", "run"), ("a", "points"), ("a", "points"), ("b", "points"), ("b", "end")]
        ...     )
        ... ]
        >>> [[row.number for row in group] for group in grouped(rows)]
        [[0], [1, 2], [3], [4]]
    """
    group: list[QueuedRow] = []
    metrics = 0
    for row in rows:
        size = len(row.content) if row.kind in TOGETHER else 0
        together = group and row.run == group[0].run and {row.kind, group[0].kind} <= TOGETHER
        if group and (not together or metrics + size > MOST_METRICS):
            yield group
            group, metrics = [], 0
        group.append(row)
        metrics += size
    if group:
        yield group
