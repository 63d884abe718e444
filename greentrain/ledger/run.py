"""The rows of one run."""

from __future__ import annotations

import logging
from contextlib import suppress
from types import TracebackType
from typing import Any

from greentrain.errors import LedgerError
from greentrain.ledger.heartbeat import Heartbeat
from greentrain.ledger.outbox import Outbox
from greentrain.ledger.rows import EmissionsLike, Row, WindowLike, window_content
from greentrain.ledger.schema import run_chain
from greentrain.ledger.store import Store
from greentrain.ledger.writer import Writer

_log = logging.getLogger(__name__)


class RunLog:
    """The rows of one run; get one from ``Ledger.open_run``.

    As a context manager it closes the run as ``completed``, or as ``failed`` on an exception.

    Args:
        store: Where rows go.
        run_id: The run, whose opening row is there.
        watch: Is asked for sources and heartbeats until the run is closed.
        heartbeat_s: Seconds from one heartbeat to the next.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        watch: Heartbeat | None = None,
        heartbeat_s: float = 10.0,
    ) -> None:
        self._store = store
        self.run_id = run_id
        self._closed = False
        self._outbox = Outbox(store, run_id)
        if watch is None:
            self._writer = Writer(self._send)
        else:
            self._writer = Writer(
                self._send,
                edges=[watch.sources],
                beats=[watch.heartbeats, watch.late_sources],
                period_s=heartbeat_s,
            )
            self._writer.start()

    @property
    def chain(self) -> str:
        """The name of this run's chain."""
        return run_chain(self.run_id)

    def record(self, window: WindowLike, emissions: EmissionsLike | None = None) -> None:
        """Record what was drawn during one phase, and the grams of it.

        Returns at once: a thread writes it, before any other row that comes after it.

        Raises:
            ConfigurationError: If a number is not finite, or a time is naive.
            LedgerError: If the run is closed.
        """
        self._put(("window", window_content(self.run_id, window, emissions)))

    def append(self, kind: str, **content: Any) -> str:
        """Append a row of this run, and return its hash."""
        self.flush()
        content["run_id"] = self.run_id
        with self._store.write() as connection:
            return self._store.append(connection, kind, self.chain, content)

    def note(self, kind: str, **content: Any) -> None:
        """Record a row for which nothing waits: like a window, it is written by a thread.

        Raises:
            LedgerError: If the run is closed.
        """
        self._put((kind, {**content, "run_id": self.run_id}))

    def flush(self) -> None:
        """Wait until the windows recorded so far are written, or wait in a file to be."""
        self._writer.flush()

    def close(self, status: str = "completed") -> None:
        """Write the closing row, ``"completed"`` or ``"failed"``; harmless the second time.

        If the database cannot be written to, it waits in a file like the windows before it.
        """
        if not self._closed:
            self._closed = True
            self._writer.close()
            try:
                row = ("closing", {"run_id": self.run_id, "status": status})
                if self._outbox.send([row]):
                    self._log_head(status)
            except OSError as error:
                raise LedgerError(f"the run {self.run_id!r} cannot be closed: {error}") from error
            finally:
                self._outbox.close()

    def _log_head(self, status: str) -> None:
        with suppress(LedgerError):  # the row is written
            count, head = self._store.head(self.chain) or (0, "")
            _log.info("%s is %s; its head is %s after %d rows", self.chain, status, head, count)

    def _put(self, row: Row) -> None:
        if self._closed:
            raise LedgerError(f"the run {self.run_id!r} is closed and takes no more windows")
        self._writer.put(row)

    def _send(self, rows: list[Row], awaited: bool) -> None:
        self._outbox.send(rows, now=awaited)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("completed" if kind is None else "failed")
