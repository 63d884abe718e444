"""A thread that writes rows, so that training never waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue

from greentrain.ledger.rows import Row, kept

_log = logging.getLogger(__name__)

Ask = Callable[[], Iterable[Row]]


class Writer:
    """Write rows in their order, in a thread of its own, as many at once as are waiting.

    Rows that are not taken are kept and given again with the next ones; one warning says so.
    Besides those that it is given, the thread asks for rows. Who raises when asked is warned of
    once, and asked again the next time.

    Args:
        write: Takes a list of rows, and whether somebody waits for them.
        edges: Asked for rows that go before all others, and again before the thread ends.
        beats: Asked for rows every ``period_s`` seconds.
        period_s: Seconds from one beat to the next; ``None`` for no beat.
    """

    def __init__(
        self,
        write: Callable[[list[Row], bool], object],
        *,
        edges: Sequence[Ask] = (),
        beats: Sequence[Ask] = (),
        period_s: float | None = None,
    ) -> None:
        self._write = write
        self._edges = edges
        self._beats = beats
        self._period_s = period_s
        self._queue: SimpleQueue[Row | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: list[Row] = []
        self._complained: set[Ask] = set()
        self._lock = threading.Lock()
        self._accepted = 0
        self._tried = 0
        self._end: threading.Event | None = None

    def start(self) -> None:
        """Start the thread if it does not run."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="greentrain-ledger", daemon=True)
            self._thread.start()

    def put(self, row: Row) -> None:
        """Take a row up; returns at once."""
        self.start()
        with self._lock:
            self._accepted += 1
            self._queue.put(row)

    def flush(self) -> None:
        """Wait until everything that was put has been written, or has failed to be."""
        # In a process forked from the one that began the thread there is none.
        if self._tried < self._accepted and self._thread is not None and self._thread.is_alive():
            written = threading.Event()
            self._queue.put(written)
            written.wait()

    def close(self) -> None:
        """Write what waits and end the thread; harmless the second time."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._end = threading.Event()
            self._queue.put(self._end)
            thread.join()
        self._thread = None

    def _run(self) -> None:
        self._try(self._asked(self._edges), False)
        due_s = self._next_beat()
        ended = False
        while not ended:
            items = self._take(due_s)
            taken = [item for item in items if not isinstance(item, threading.Event)]
            waiters = [item for item in items if isinstance(item, threading.Event)]
            ended = self._end in waiters
            rows = list(taken)
            if ended:
                rows += self._asked(self._edges)
            elif due_s is not None and time.monotonic() >= due_s:
                rows += self._asked(self._beats)
                due_s = self._next_beat()
            self._try(rows, bool(waiters))
            self._tried += len(taken)
            for waiter in waiters:
                waiter.set()

    def _next_beat(self) -> float | None:
        return None if self._period_s is None else time.monotonic() + self._period_s

    def _take(self, due_s: float | None) -> list[Row | threading.Event]:
        items: list[Row | threading.Event] = []
        try:
            wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
            items.append(self._queue.get(timeout=wait_s))
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items

    def _asked(self, asks: Sequence[Ask]) -> list[Row]:
        rows: list[Row] = []
        for ask in asks:
            try:
                rows += ask()
            except Exception as error:  # whoever is asked must not end the thread
                if ask not in self._complained:
                    self._complained.add(ask)
                    _log.warning("the ledger goes without what it asked for: %s", error)
        return rows

    def _try(self, rows: list[Row], awaited: bool) -> None:
        rows = self._failed + rows
        try:
            self._write(rows, awaited)
        except Exception as error:  # a thread that dies would keep those who flush waiting
            if not self._failed:
                _log.warning("windows wait in memory to be written, because %s", error)
            self._failed = kept(rows)
        else:
            self._failed = []
