"""A thread that writes rows, so that training never waits for a disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Writer:
    """Write rows in their order, in a thread of its own, as many at once as are waiting.

    Rows that cannot be written are kept and tried again with the next ones; one warning says so.

    Args:
        write: Writes a list of rows in one transaction.
    """

    def __init__(self, write: Callable[[list[Row]], None]) -> None:
        self._write = write
        self._queue: SimpleQueue[Row | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: list[Row] = []
        self._closing = False

    def put(self, row: Row) -> None:
        """Take a row up; returns at once."""
        if self._thread is None or not self._thread.is_alive():
            self._closing = False
            self._thread = threading.Thread(target=self._run, name="greentrain-ledger", daemon=True)
            self._thread.start()
        self._queue.put(row)

    def flush(self) -> None:
        """Wait until everything that was put has been written, or has failed to be."""
        # In a process forked from the one that began the thread there is none.
        if self._thread is not None and self._thread.is_alive():
            written = threading.Event()
            self._queue.put(written)
            written.wait()

    def close(self) -> None:
        """Write what waits and end the thread; harmless the second time."""
        thread = self._thread
        if thread is not None:
            self._closing = True
            self.flush()
            thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            rows, waiters = self._take()
            self._try(self._failed + rows)
            closing = self._closing  # read before anybody is told: whoever closes has set it by now
            for waiter in waiters:
                waiter.set()
            if closing and waiters:
                return

    def _take(self) -> tuple[list[Row], list[threading.Event]]:
        items = [self._queue.get()]
        while True:
            try:
                items.append(self._queue.get_nowait())
            except Empty:
                break
        rows = [item for item in items if not isinstance(item, threading.Event)]
        return rows, [item for item in items if isinstance(item, threading.Event)]

    def _try(self, rows: list[Row]) -> None:
        if not rows:
            return
        try:
            self._write(rows)
        except Exception as error:  # a thread that dies would keep those who flush waiting
            if not self._failed:
                _log.warning("windows wait to be written, because %s", error)
            self._failed = rows
        else:
            self._failed = []
