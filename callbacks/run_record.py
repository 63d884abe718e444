"""Record one fit, validation, test or prediction as a run of a ledger."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from greentrain.budget import Budget
from greentrain.callbacks.messages import warn
from greentrain.carbon import CarbonAccount
from greentrain.energy import NOTHING, Calibration, Reading, Source, Window
from greentrain.errors import ConfigurationError, GreentrainError, LedgerError
from greentrain.ledger import (
    LOG_FOLDER,
    Ledger,
    LedgerAccount,
    ReservedPart,
    RunLog,
    canonical,
    environment,
    file_url,
)
from greentrain.units import utc_now

HEARTBEAT_S = 10.0
"""Seconds between two records of the open windows: the most that a killed process loses."""
STOPPED = "stopped"
"""Status of a run that a cap ended."""
_BEFORE_RESERVING = ("idle", "setup")
"""Phases before a reservation: their windows wait for it, or for the next window."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EnforcedCap:
    """A cap of a run, at its end.

    Args:
        cap: The cap, with its unit.
        used: How much of it was used, with its unit.
        left: How much was left, with its unit.
        stopped: Whether it ended the run.
        budget: The budget of several fits that it is from; ``None`` without.
    """

    cap: str
    used: str
    left: str
    stopped: bool
    budget: str | None


class RunRecord:
    """A run in a ledger, from its opening row to its closing row; inactive without a ledger.

    Args:
        url: URL of the ledger; ``None`` to record nothing.
        carbon: Converts joules to grams.
        required: Whether a ledger that fails is an error. If not, one warning is given and nothing
            is recorded.
        tags: ``team`` and ``project``, if they are given.

    Attributes:
        url: URL of the ledger; ``None`` if nothing is recorded.
        run_id: Id of the run; ``None`` before :meth:`begin`, and if nothing is recorded.
        stopped: Whether a cap ended the run, which is closed as ``"stopped"`` then.
        caps: Each cap of the run, for the closing row and for a table.
        metrics: Final metrics of a fit, for the closing row.
        resumed_j: Joules that the fit had used before it was resumed; ``None`` if it was not.

    Raises:
        ConfigurationError: If the URL of a required ledger cannot be used.
        LedgerError: If a required ledger is no ledger or cannot be written.
    """

    def __init__(
        self,
        url: str | None,
        carbon: CarbonAccount,
        *,
        required: bool,
        tags: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        self._carbon = carbon
        self._tags = tags
        self._required = required
        self._ledger: Ledger | None = None
        self._run: RunLog | None = None
        self.url: str | None = None
        self.run_id: str | None = None
        self._payment: _Payment | None = None
        self._waiting: list[Window] = []
        self.stopped = False
        self.caps: list[EnforcedCap] = []
        self.metrics: Sequence[Mapping[str, Any]] = ()
        self.resumed_j: float | None = None
        if url is not None:
            try:
                self._ledger, self.url = Ledger(url), url
            except (ConfigurationError, LedgerError) as error:
                self._fail(error)

    @property
    def pays(self) -> bool:
        """``True`` once a reservation pays for the windows."""
        return self._payment is not None

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
        self._name = name
        try:
            self._run = self._ledger.open_run(
                kind,
                name,
                environment={**environment(), "carbon": self._carbon.as_dict()},
                sources=sources,
                beat=lambda: map(self._paid, [*self._waiting, *beat()]),
                emissions=self._carbon.of,
                heartbeat_s=HEARTBEAT_S,
                team=self._tags.get("team"),
                project=self._tags.get("project"),
            )
            self.run_id = self._run.run_id
        except LedgerError as error:
            self._fail(error)
            self.close("failed")

    def window(self, window: Window) -> None:
        """Record a window without waiting for the disk."""
        self._waiting.append(window)
        if window.phase not in _BEFORE_RESERVING:
            self._write()

    def event(self, topic: str, figures: Mapping[str, Any]) -> None:
        """Record an event of the run, such as a pause, without waiting for the disk."""
        if self._run is not None:
            self._run.note("event", topic=topic, content=canonical(figures))

    def calibration(self, calibration: Calibration) -> None:
        """Record the comparison of the measured energy with a wall meter."""
        if self._run is not None:
            self._run.append("calibration", **calibration.as_dict())

    def reserve(
        self, name: str | None, budget: Budget, *, parts: int, carbon: CarbonAccount
    ) -> float | None:
        """Reserve a part of a budget for the window of the set-up, and all that close from now on.

        The joules of these windows are settled when the record is closed.

        Args:
            name: Name of the budget, which is opened if there is none; ``None`` for a budget of
                this run alone.
            budget: Its terms.
            parts: As for :meth:`greentrain.ledger.LedgerAccount.reserve_part`.
            carbon: Bounds the grams of a budget of carbon.

        Returns:
            The amount reserved, in the budget's unit. ``None`` if the run is not recorded here, or
            if its windows are paid for already.

        Raises:
            BudgetExceeded: If nothing is left.
            ConfigurationError: If the ledger has another budget of this name.
            LedgerError: If the ledger cannot be written, and the budget has a name.
        """
        if self._ledger is None or self._run is None or self._payment is not None:
            return None
        try:
            own = f"{self._name} {self._run.run_id[:8]}"
            budget_id = self._ledger.open_budget(own if name is None else name, budget)
            account = self._ledger.account(budget_id, self._run, carbon=carbon)
            part = account.reserve_part(parts, f"a fit of {self._name}")
        except LedgerError as error:
            if name is not None:
                raise
            warn(f"BudgetGuard: the cap is not recorded on disk: {error}")
            return None
        self._payment = _Payment(account, part)
        self._write()
        return part.amount

    def close(self, status: str) -> None:
        """Settle, write the closing row, warn if that fails, and close the ledger."""
        try:
            self._write()
            if self._payment is not None:
                self._payment.settle()
        except GreentrainError as error:  # its whole amount stays spent until it is released
            warn(f"BudgetGuard: the energy used could not be settled: {error}")
        try:
            if self._run is not None:
                self._run.close(
                    STOPPED if self.stopped and status == "completed" else status,
                    caps=json.dumps([dataclasses.asdict(cap) for cap in self.caps])
                    if self.caps
                    else None,
                    metrics=json.dumps(list(self.metrics)) if self.metrics else None,
                    resumed_j=self.resumed_j,
                )
        except LedgerError as error:  # a missing closing row must not lose a trained model
            warn(f"EnergyMonitor: the run could not be closed: {error}")
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _write(self) -> None:
        windows, self._waiting = self._waiting, []
        if self._run is None:
            return
        for window in map(self._paid, windows):
            self._run.record(window, self._carbon.of(window))
            if window.reservation_id is not None and self._payment is not None:
                self._payment.used += window.reading

    def _paid(self, window: Window) -> Window:
        if self._payment is None or window.phase == "idle":
            return window
        return dataclasses.replace(window, reservation_id=self._payment.part.reservation_id)

    def _fail(self, error: Exception) -> None:
        self.url = None
        if self._required:
            raise error
        warn(f"EnergyMonitor: the run is not recorded on disk: {error}")


@dataclasses.dataclass(slots=True)
class _Payment:
    """A reservation that pays for the windows of a run.

    Args:
        account: The account that it was made with.
        part: The reservation.
        used: What the windows used.
    """

    account: LedgerAccount
    part: ReservedPart
    used: Reading = NOTHING

    def settle(self) -> None:
        """Settle the energy used; at least the reservation if some of it is unknown."""
        known_j = self.used.total_j or 0.0
        self.account.settle(
            self.part.reservation_id,
            known_j if self.used.complete else max(known_j, self.part.amount_j),
        )


def default_url(trainer: Any) -> str | None:
    """Return the URL of a new ledger under a Trainer's folder, or ``None`` for no ledger.

    A trial run (``fast_dev_run``) leaves no files. A remote folder cannot hold a SQLite ledger.
    """
    root = str(trainer.default_root_dir)
    if trainer.fast_dev_run or "://" in root:
        return None
    name = f"{utc_now():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.db"
    return file_url(Path(root) / LOG_FOLDER / name)
