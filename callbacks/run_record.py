"""The ledger's run of one fit, validation, test or prediction."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from greentrain.carbon import CarbonAccount
from greentrain.energy import Calibration, Source, Window
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, RunLog, environment
from greentrain.units import utc_now

FOLDER = "greentrain_logs"
"""Where a run's own ledger lies, under the Trainer's ``default_root_dir``."""
HEARTBEAT_S = 10.0
"""How often what is open is written down: what a process that is killed can lose, at most."""


class RunRecord:
    """A run in a ledger, open while it is measured.

    Args:
        url: The ledger's URL.
        carbon: How joules become grams.
        given: Whether the user asked for this ledger; one of our own is done without if it fails.

    Raises:
        ConfigurationError: If the URL cannot be used.
        LedgerError: If it is no ledger or cannot be written.
    """

    def __init__(self, url: str, carbon: CarbonAccount, *, given: bool) -> None:
        self._carbon = carbon
        self._given = given
        self._ledger = Ledger(url)
        self._run: RunLog | None = None

    def begin(
        self,
        kind: str,
        name: str,
        *,
        sources: Callable[[], Iterable[Source]],
        beat: Callable[[], Iterable[Window]],
    ) -> bool:
        """Write the run's opening row, and tell whether it is there.

        Args:
            kind: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
            name: What people call it.
            sources: Gives the metered things; may wait, and is asked from a thread.
            beat: Gives the windows that are open.

        Raises:
            LedgerError: If it cannot be written to a ledger that was asked for.
        """
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
        except LedgerError as error:
            if self._given:
                raise
            _warn(error)
            self._ledger.close()
        return self._run is not None

    def window(self, window: Window) -> None:
        """Record a window; returns at once."""
        if self._run is not None:
            self._run.record(window, self._carbon.of(window))

    def calibration(self, calibration: Calibration) -> None:
        """Record how what was measured compares with the wall."""
        if self._run is not None:
            self._run.append("calibration", **calibration.as_dict())

    def close(self, status: str) -> None:
        """Write the closing row, if the ledger lets us, and let go of it."""
        try:
            if self._run is not None:
                self._run.close(status)
        except LedgerError as error:  # what was trained is not lost for want of a closing row
            rank_zero_warn(f"EnergyMonitor: the run could not be closed: {error}")
        self._ledger.close()


def own_url(trainer: Any) -> str | None:
    """Return the URL of a new ledger under a Trainer's folder; ``None`` where there is to be none.

    A trial run (``fast_dev_run``) leaves nothing behind, and a ledger is a file on a disk.
    """
    root = str(trainer.default_root_dir)
    if trainer.fast_dev_run or "://" in root:
        return None
    name = f"{utc_now():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.db"
    return f"sqlite:///{Path(root) / FOLDER / name}"


def open_record(
    trainer: Any, ledger: str | bool, own: str | None, carbon: CarbonAccount
) -> RunRecord | None:
    """Open the record of a run, where there is to be one, on the first process.

    A ledger that nobody asked for is done without if it cannot be made.

    Args:
        trainer: The Trainer.
        ledger: A URL, or whether to make one.
        own: The URL of a ledger of our own; ``None`` for none.
        carbon: How joules become grams.

    Raises:
        ConfigurationError: If the URL that was given cannot be used.
        LedgerError: If it is no ledger or cannot be written.
    """
    url = ledger if isinstance(ledger, str) else own
    if not trainer.is_global_zero or not ledger or url is None:
        return None
    given = isinstance(ledger, str)
    try:
        return RunRecord(url, carbon, given=given)
    except (ConfigurationError, LedgerError) as error:
        if given:
            raise
        _warn(error)
        return None


def _warn(error: Exception) -> None:
    rank_zero_warn(f"EnergyMonitor: the run is not recorded on disk: {error}")
