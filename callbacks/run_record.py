"""Record one fit, validation, test or prediction as a run of a ledger."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from greentrain.carbon import CarbonAccount
from greentrain.energy import Calibration, Source, Window
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import LOG_FOLDER, Ledger, RunLog, environment, file_url
from greentrain.units import utc_now

HEARTBEAT_S = 10.0
"""Seconds between two records of the open windows: the most that a killed process loses."""


class RunRecord:
    """A run in a ledger, from its opening row to its closing row; inactive without a ledger.

    Args:
        url: URL of the ledger; ``None`` to record nothing.
        carbon: Converts joules to grams.
        required: Whether a ledger that fails is an error. If not, one warning is given and nothing
            is recorded.

    Attributes:
        url: URL of the ledger; ``None`` if nothing is recorded.
        run_id: Id of the run; ``None`` before :meth:`begin`, and if nothing is recorded.

    Raises:
        ConfigurationError: If the URL of a required ledger cannot be used.
        LedgerError: If a required ledger is no ledger or cannot be written.
    """

    def __init__(self, url: str | None, carbon: CarbonAccount, *, required: bool) -> None:
        self._carbon = carbon
        self._required = required
        self._ledger: Ledger | None = None
        self._run: RunLog | None = None
        self.url: str | None = None
        self.run_id: str | None = None
        if url is not None:
            try:
                self._ledger, self.url = Ledger(url), url
            except (ConfigurationError, LedgerError) as error:
                self._fail(error)

    def begin(
        self,
        kind: str,
        name: str,
        *,
        sources: Callable[[], Iterable[Source]],
        beat: Callable[[], Iterable[Window]],
    ) -> None:
        """Write the opening row.

        Args:
            kind: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
            name: Display name of the run.
            sources: Returns the metered sources; it may wait, and is called from a thread.
            beat: Returns the open windows.

        Raises:
            LedgerError: If the row cannot be written to a required ledger.
        """
        if self._ledger is None:
            return
        try:
            self._run = self._ledger.open_run(
                kind,
                name,
                environment={**environment(), "carbon": self._carbon.as_dict()},
                sources=sources,
                beat=beat,
                emissions=self._carbon.of,
                heartbeat_s=HEARTBEAT_S,
            )
            self.run_id = self._run.run_id
        except LedgerError as error:
            self._fail(error)
            self.close("failed")

    def window(self, window: Window) -> None:
        """Record a window without waiting for the disk."""
        if self._run is not None:
            self._run.record(window, self._carbon.of(window))

    def calibration(self, calibration: Calibration) -> None:
        """Record the comparison of the measured energy with a wall meter."""
        if self._run is not None:
            self._run.append("calibration", **calibration.as_dict())

    def close(self, status: str) -> None:
        """Write the closing row, warn if that fails, and close the ledger."""
        try:
            if self._run is not None:
                self._run.close(status)
        except LedgerError as error:  # a missing closing row must not lose a trained model
            rank_zero_warn(f"EnergyMonitor: the run could not be closed: {error}")
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _fail(self, error: Exception) -> None:
        self.url = None
        if self._required:
            raise error
        rank_zero_warn(f"EnergyMonitor: the run is not recorded on disk: {error}")


def default_url(trainer: Any) -> str | None:
    """Return the URL of a new ledger under a Trainer's folder, or ``None`` for no ledger.

    A trial run (``fast_dev_run``) leaves no files. A remote folder cannot hold a SQLite ledger.
    """
    root = str(trainer.default_root_dir)
    if trainer.fast_dev_run or "://" in root:
        return None
    name = f"{utc_now():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.db"
    return file_url(Path(root) / LOG_FOLDER / name)
