"""A thread that writes rows, so that training never waits for a disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from greentrain.texts import get_logger

_log = get_logger(__name__)

T = TypeVar("T")
Supplier = Callable[[], Iterable[T]]
"""Returns rows to write."""


class Writer(Generic[T]):
    """Write rows in order, in a background thread, as many at once as are waiting.

    The thread also collects rows from suppliers. If a supplier raises, one warning says so, and it
    is called again the next time.

    Args:
        write: Takes a list of rows, and whether a caller waits for them. It keeps what it cannot
            write: rows are lost if it raises.
        name: Name of the thread.
        edges: Suppliers whose rows are written before all others, and again before the thread ends.
        beats: Suppliers whose rows are written every ``period_s`` seconds.
        period_s: Seconds from one beat to the next; ``None`` for no beat.

    Example:
        >>> written = []
        >>> writer = Writer(lambda rows, awaited: written.extend(rows))
        >>> writer.put("a row")
        >>> writer.close()
        >>> written
        ['a row']
    """

    def __init__(
        self,
        write: Callable[[list[T], bool], object],
        *,
        name: str = "greentrain-ledger",
        edges: Sequence[Supplier[T]] = (),
        beats: Sequence[Supplier[T]] = (),
        period_s: float | None = None,
    ) -> None:
        self._write = write
        self._name = name
        self._edges = edges
        self._beats = beats
        self._period_s = period_s
        self._queue: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._warned: set[object] = set()
        self._lock = threading.Lock()
        self._accepted = 0
        self._tried = 0
        self._end: threading.Event | None = None

    def start(self) -> None:
        """Start the thread if it does not run."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def put(self, row: T) -> None:
        """Add a row to be written, and return at once."""
        self.start()
        with self._lock:
            self._accepted += 1
            self._queue.put(row)

    def flush(self) -> None:
        """Wait until every row so far has been passed to ``write``."""
        # A forked process has no thread until it puts a row.
        if self._tried < self._accepted and self._thread is not None and self._thread.is_alive():
            written = threading.Event()
            self._queue.put(written)
            written.wait()

    def close(self) -> None:
        """Write what waits and end the thread; a second call does nothing."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._end = threading.Event()
            self._queue.put(self._end)
            thread.join()
        self._thread = None

    def _run(self) -> None:
        self._try(self._collected(self._edges), False)
        due_s = self._next_beat()
        ended = False
        while not ended:
            items = self._take(due_s)
            taken = [item for item in items if not isinstance(item, threading.Event)]
            waiters = [item for item in items if isinstance(item, threading.Event)]
            ended = self._end in waiters
            rows = list(taken)
            if ended:
                rows += self._collected(self._edges)
            elif due_s is not None and time.monotonic() >= due_s:
                rows += self._collected(self._beats)
                due_s = self._next_beat()
            self._try(rows, bool(waiters))
            self._tried += len(taken)
            for waiter in waiters:
                waiter.set()

    def _next_beat(self) -> float | None:
        return None if self._period_s is None else time.monotonic() + self._period_s

    def _take(self, due_s: float | None) -> list[T | threading.Event]:
        items: list[T | threading.Event] = []
        try:
            wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
            items.append(self._queue.get(timeout=wait_s))
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items

    def _collected(self, suppliers: Sequence[Supplier[T]]) -> list[T]:
        rows: list[T] = []
        for supplier in suppliers:
            try:
                rows += supplier()
            except Exception as error:  # a supplier must not end the thread
                if supplier not in self._warned:
                    self._warned.add(supplier)
                    _log.warning("rows are missing, because their supplier failed: %s", error)
        return rows

    def _try(self, rows: list[T], awaited: bool) -> None:
        try:
            self._write(rows, awaited)
        except Exception as error:  # a thread that dies would keep `flush` waiting
            name = type(error).__name__
            _log.error("%d rows could not be written and are lost: %s: %s", len(rows), name, error)
            _log.debug("the rows were lost here", exc_info=True)
