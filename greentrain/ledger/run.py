"""The rows of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger.schema import canonical, run_chain
from greentrain.ledger.store import Store
from greentrain.ledger.writer import Row, Writer
from greentrain.units import utc_text


class RunLog:
    """The rows of one run; get one from ``Ledger.open_run``.

    As a context manager it closes the run as ``completed``, or as ``failed`` on an exception.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        self._closed = False
        self._writer = Writer(self._write_windows)

    @property
    def chain(self) -> str:
        """The name of this run's chain."""
        return run_chain(self.run_id)

    def window(
        self,
        phase: str,
        *,
        started: datetime,
        duration_s: float,
        by_source: Mapping[str, float | None],
        epoch: int | None = None,
        reservation_id: str | None = None,
        emissions_g: float | None = None,
        intensity_g_per_kwh: float | None = None,
    ) -> None:
        """Record what was drawn during one phase, in joules by source, and the grams of it.

        Returns at once: a thread writes it, before any other row that comes after it.

        Raises:
            ConfigurationError: If a number is not finite.
        """
        for name, value in {"duration_s": duration_s, **by_source}.items():
            if value is not None and not math.isfinite(value):
                raise ConfigurationError(f"{name} of a window is {value!r}; it has to be finite")
        known = [joules for joules in by_source.values() if joules is not None]
        self._writer.put(
            {
                "run_id": self.run_id,
                "reservation_id": reservation_id,
                "phase": phase,
                "epoch": epoch,
                "started_utc": utc_text(started),
                "duration_s": duration_s,
                "energy_j": math.fsum(known) if known else None,
                "by_source": canonical(dict(by_source)),
                "complete": len(known) == len(by_source) > 0,
                "emissions_g": emissions_g,
                "intensity_g_per_kwh": intensity_g_per_kwh,
            }
        )

    def append(self, kind: str, **content: Any) -> str:
        """Append a row of this run, and return its hash."""
        self.flush()
        content["run_id"] = self.run_id
        with self._store.write() as connection:
            return self._store.append(connection, kind, self.chain, content)

    def flush(self) -> None:
        """Wait until the windows recorded so far are written."""
        self._writer.flush()

    def close(self, status: str = "completed") -> None:
        """Write the closing row, ``"completed"`` or ``"failed"``; harmless the second time."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self.append("closing", status=status)

    def _write_windows(self, rows: list[Row]) -> None:
        with self._store.write() as connection:
            for row in rows:
                self._store.append(connection, "window", self.chain, row)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("completed" if kind is None else "failed")
