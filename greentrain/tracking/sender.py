"""The thread that sends what waits in a spool, so that training never waits for a server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from greentrain.tracking.spool import Spool, Waiting

_log = logging.getLogger(__name__)

_PERIOD_S = 10.0
"""Seconds between two looks at the spool: MLflow takes 25 to 150 ms for a call."""
_RETRY_S = (1.0, 15.0)
"""Seconds until a server that failed is tried again: the first time, and at most."""
_LONGEST_S = 60.0
"""Seconds that the end of a stream waits at most, however well it goes."""
_GLANCE_S = 0.05
_PROBE_S = 1.0
_ROWS = 200
MOST_METRICS = 900  # MLflow takes 1,000 in a call
TOGETHER = frozenset({"points", "figures", "tags"})
"""Kinds of rows of which several of one run are sent in one call."""
_MAY_WAIT = frozenset({"text", "file", "model"})
"""What is stored elsewhere than the rest, and holds up nothing when it is not taken."""


class Sender:
    """Send what waits, in order, and again until it has arrived.

    Args:
        spool: Where it waits.
        deliver: Sends rows of one run, in one call where they are points and tags. What it raises
            means that they have to be sent again; sent twice, they have to arrive once.
        reachable: Whether there is any use in trying.
        name: What the server is called in warnings.
    """

    def __init__(
        self,
        spool: Spool,
        deliver: Callable[[Sequence[Waiting]], None],
        *,
        reachable: Callable[[], bool],
        name: str,
    ) -> None:
        self._spool = spool
        self._deliver = deliver
        self._reachable = reachable
        self._name = name
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._failing = False
        self._moved_s = 0.0
        self._left = 0

    def put(self, run: str, kind: str, content: Any, *, instead: bool = False) -> None:
        """Let something wait, and have it sent with all before it, soon.

        Args:
            run: The key of the run that it belongs to.
            kind: What it is.
            content: Plain values.
            instead: Whether it replaces what waits still of its run and kind.
        """
        with self._lock:
            self._ending = False
            if self._thread is None:
                self._spool.adopt()  # what is older goes first
                self._thread = threading.Thread(
                    target=self._run, name="greentrain-mlflow", daemon=True
                )
                self._thread.start()
            self._spool.put(run, kind, content, instead=instead)
        self._wake.set()

    def finish(self, patience_s: float) -> int:
        """Send what waits, end the thread, and return how many rows wait still.

        Args:
            patience_s: Seconds to wait while nothing arrives. A try that fails ends it sooner.
        """
        with self._lock:
            thread, self._ending = self._thread, True
        if thread is None:
            return 0
        self._wake.set()
        self._moved_s = begun_s = time.monotonic()
        while thread.is_alive():
            now_s = time.monotonic()
            if now_s - self._moved_s > patience_s or now_s - begun_s > _LONGEST_S:
                break
            thread.join(_GLANCE_S)
        self._warn_of_dropped()
        left = self._spool.count() if thread.is_alive() else self._left
        if left:
            _log.warning(
                "MLflow at %s was not told everything: %d rows wait in %s for the next process "
                "that tracks there",
                *(self._name, left, self._spool.folder),
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
                self._failed(error)
                all_sent = False
            self._spool.sending = 0
            if all_sent:
                wait_s, retry_s = _PERIOD_S, _RETRY_S[0]
            else:
                wait_s, retry_s = retry_s, min(2 * retry_s, _RETRY_S[1])
            with self._lock:
                if ending and self._ending:
                    self._left = self._spool.count()
                    self._spool.close()
                    self._thread = None
                    return

    def _send_all(self) -> bool:
        """Send all that waits, and return whether nothing has to be tried again."""
        self._spool.adopt()
        postponed, number = False, 0
        while rows := self._spool.after(number, _ROWS):
            for group in grouped(rows):
                try:
                    if number == 0 and not self._reachable():
                        raise ConnectionError("it does not answer")
                    number = group[-1].number
                    self._call(group)
                except Exception as error:  # whatever it is, training goes on
                    self._failed(error)
                    if group[0].kind not in _MAY_WAIT or not self._reachable():
                        return False
                    postponed = True
                else:
                    self._spool.remove([row.number for row in group])
                    self._moved_s = time.monotonic()
        if not postponed:
            self._failing = False
            self._warn_of_dropped()
        return not postponed

    def _call(self, group: Sequence[Waiting]) -> None:
        """Deliver rows, unless the server stops answering meanwhile.

        MLflow's client goes on trying for minutes then, and sleeps for longer and longer between.
        It is left to that, in a thread of its own: what it sends after all arrives once.
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
                raise ConnectionError("it does not answer any more")
        if errors:
            raise errors[0]

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            reason = " ".join(str(error).split())[:300]
            _log.warning("what MLflow at %s should be told waits, because %s", self._name, reason)

    def _warn_of_dropped(self) -> None:
        if dropped := self._spool.dropped:
            self._spool.dropped = 0
            _log.warning(
                "MLflow at %s will miss the points of %d epochs, the oldest of those that had to "
                "wait",
                *(self._name, dropped),
            )


def grouped(rows: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """Split rows, in their order, into what can go in one call each.

    Example:
        >>> rows = [
        ...     Waiting(number=number, run=run, kind=kind, content=[])
        ...     for number, (run, kind) in enumerate(
        ...         [("a", "run"), ("a", "points"), ("a", "points"), ("b", "points"), ("b", "end")]
        ...     )
        ... ]
        >>> [[row.number for row in group] for group in grouped(rows)]
        [[0], [1, 2], [3], [4]]
    """
    group: list[Waiting] = []
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
