"""Write the rows of one run."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType
from typing import Any

from greentrain.errors import LedgerError
from greentrain.ledger.events import EmissionsLike, Row, WindowLike, window_content
from greentrain.ledger.heartbeat import Heartbeat
from greentrain.ledger.outbox import Outbox
from greentrain.ledger.schema import run_chain
from greentrain.ledger.signatures import Signer
from greentrain.ledger.signed_heads import sign_heads
from greentrain.ledger.store import LedgerStore
from greentrain.ledger.writer import Writer
from greentrain.texts import get_logger

_log = get_logger(__name__)


class RunLog:
    """A run that records rows; ``Ledger.open_run`` returns one.

    As a context manager it closes the run as ``completed``, or as ``failed`` on an exception.

    Args:
        store: Store of the ledger.
        run_id: The run, whose opening row has been written.
        heartbeat: Supplier of sources and heartbeats until the run is closed.
        heartbeat_s: Seconds between two heartbeats.
        config_sha256: Hash of its settings; ``None`` without any.
        signer: Signs the heads at the end; ``None`` to sign nothing.
    """

    def __init__(
        self,
        store: LedgerStore,
        run_id: str,
        *,
        heartbeat: Heartbeat | None = None,
        heartbeat_s: float = 10.0,
        config_sha256: str | None = None,
        signer: Signer | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self.run_id = run_id
        self.config_sha256 = config_sha256
        self._closed = False
        self._process = os.getpid()
        self._outbox = Outbox(store, run_id)
        if heartbeat is None:
            self._writer = Writer(self._send)
        else:
            self._writer = Writer(
                self._send,
                edges=[heartbeat.sources],
                beats=[heartbeat.heartbeats, heartbeat.late_sources],
                period_s=heartbeat_s,
            )
            self._writer.start()

    @property
    def chain(self) -> str:
        """Name of this run's chain."""
        return run_chain(self.run_id)

    def record(self, window: WindowLike, emissions: EmissionsLike | None = None) -> None:
        """Record the energy used during one phase, and its emissions.

        Returns at once: a thread writes the row before any row that is recorded after it.

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
        """Record a row without waiting for it: a thread writes it, as :meth:`record` does.

        Raises:
            LedgerError: If the run is closed.
        """
        self._put((kind, {**content, "run_id": self.run_id}))

    def flush(self) -> None:
        """Wait until all rows recorded so far are in the ledger, or in a local file."""
        self._writer.flush()

    def close(
        self,
        status: str = "completed",
        *,
        caps: str | None = None,
        metrics: str | None = None,
        resumed_j: float | None = None,
    ) -> None:
        """Write the closing row; calling it again has no effect.

        In a forked process it has no effect either: only the process that opened a run closes it.
        If the database cannot be written to, the row is kept in a local file.

        Args:
            status: ``"completed"`` or ``"failed"``.
            caps: The caps that were enforced, as in :class:`greentrain.ledger.rows.ClosingRow`.
            metrics: The final metrics of a fit, as there.
            resumed_j: Joules that the fit had used before it was resumed.

        Raises:
            LedgerError: If the row can be written neither to the database nor to a file.
        """
        if not self._closed and os.getpid() == self._process:
            self._closed = True
            self._writer.close()
            try:
                content = {"caps": caps, "metrics": metrics, "resumed_j": resumed_j}
                row = ("closing", {"run_id": self.run_id, "status": status, **content})
                if self._outbox.send([row]):
                    self._log_head(status)
                    if self._signer is not None and self._store.path is not None:
                        sign_heads(self._signer, self._store.head, self._store.path, self.chain)
            finally:
                self._outbox.close()

    def _log_head(self, status: str) -> None:
        with suppress(LedgerError):  # the row is written
            count, head = self._store.head(self.chain) or (0, "")
            _log.info("%s is %s; its head is %s after %d rows", self.chain, status, head, count)

    def _put(self, row: Row) -> None:
        if self._closed:
            raise LedgerError(f"the run {self.run_id!r} is closed and accepts no more rows")
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
