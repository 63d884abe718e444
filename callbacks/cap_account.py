"""Record the cap of a guarded fit in a ledger, and pay for the fit from a budget."""

from __future__ import annotations

from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException

from greentrain.budget import Budget, format_amount
from greentrain.callbacks.base import Callback
from greentrain.callbacks.energy_monitor import EnergyMonitor
from greentrain.callbacks.measurement import RunMeasurement
from greentrain.callbacks.run_record import EnforcedCap, RunRecord
from greentrain.callbacks.stop_reason import CapUse
from greentrain.callbacks.trainer_plan import is_trial
from greentrain.carbon import CarbonAccount
from greentrain.energy import Meter, WindowRecorder
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.ledger.sqlite import same_place


class CapAccount:
    """The record of a guarded fit, and the reservation that pays for it.

    The fit is recorded once. If an :class:`EnergyMonitor` or another guard of the Trainer records
    it in the same ledger, its windows are paid for. If not, the fit is measured and recorded here.

    Args:
        trainer: The Trainer, in ``setup``.
        name: Name of the run.
        ledger: URL of the guard's ledger; ``None`` for that of the monitor.
        meter: As for :class:`greentrain.callbacks.meter_lease.MeterLease`.
        carbon: Converts joules to grams.

    Raises:
        ConfigurationError: If the URL cannot be used.
        LedgerError: If the ledger cannot be opened or written.
        MisconfigurationException: If two guards of the Trainer have a budget in one ledger.
    """

    def __init__(
        self,
        trainer: Any,
        name: str,
        *,
        ledger: str | None,
        meter: Meter | WindowRecorder | None,
        carbon: CarbonAccount,
    ) -> None:
        _check_payers(trainer)
        self._trainer = trainer
        self._carbon = carbon
        self._recording = _recording_in(trainer, ledger)
        self._own: RunMeasurement | None = None
        if self._recording is None and ledger is not None:
            writes = trainer.is_global_zero and not is_trial(trainer)
            url = ledger if writes else None
            record = RunRecord(url, carbon, required=True)
            self._own = RunMeasurement(trainer, meter, carbon, None, record)
            try:
                self._own.begin("fit", name, 0.0)
            except BaseException:
                self._own.close("failed")
                raise

    @property
    def record(self) -> RunRecord | None:
        """The record of the fit; ``None`` without one, and before the monitor is set up."""
        if self._own is not None:
            return self._own.record
        return None if self._recording is None else _record_of(self._recording)

    def note_cap(self, trainer: Any, cap: Budget) -> None:
        """Record the cap as a budget of this fit alone, unless another guard reserves for it.

        A window has one reservation. A second cap is in the closing row alone.
        """
        reserves = any(getattr(callback, "budget", None) for callback in _ours(trainer))
        if self.record is not None and not reserves and not self.record.pays:
            self.record.reserve(None, cap, parts=1, carbon=self._carbon)

    def reserve(self, trainer: Any, name: str, budget: Budget, num_fits: int) -> float | str:
        """Reserve this fit's part of a budget; every process has to call this.

        Returns:
            The amount in the budget's unit, or the sentence that says why there is none.

        Raises:
            ConfigurationError: If the ledger has another budget of this name.
            LedgerError: If the ledger cannot be written.
        """
        reserved: float | str | None = None
        if self.record is not None and trainer.is_global_zero:
            try:
                reserved = self.record.reserve(name, budget, parts=num_fits, carbon=self._carbon)
            except BudgetExceeded as refused:
                reserved = str(refused)
        reserved = trainer.strategy.broadcast(reserved)
        return f"the ledger of the budget {name!r} is closed" if reserved is None else reserved

    def end(self, use: CapUse, *, stopped: bool) -> None:
        """Note how the fit ended, in each of its records: for status, closing row and table."""
        enforced = EnforcedCap(
            cap=format_amount(use.limit, use.unit),
            used=format_amount(use.used, use.unit),
            left=format_amount(max(0.0, use.limit - use.used), use.unit),
            stopped=stopped,
            budget=use.budget,
        )
        found = (_record_of(callback) for callback in _ours(self._trainer))
        for record in {id(each): each for each in found if each is not None}.values():
            record.stopped = record.stopped or stopped
            record.caps.append(enforced)

    def close(self, status: str, *, alone: bool = False, resumed_j: float | None = None) -> None:
        """Settle and close the record if it was opened here; harmless if repeated."""
        if self._own is not None:
            self._own.record.resumed_j = resumed_j or None
            self._own.close(status, alone=alone)


def carbon_of(trainer: Any, own: CarbonAccount, cap: Budget) -> CarbonAccount:
    """Return a guard's account of grams: that of the Trainer's monitor, if it has an intensity.

    Args:
        trainer: The Trainer.
        own: Account of the guard's own arguments.
        cap: Cap of the guard.

    Raises:
        ConfigurationError: If the cap limits carbon, and the intensity is unknown.
        MisconfigurationException: If the monitor or another guard has another zone, intensity or
            PUE.
    """
    used = own
    for callback in trainer.callbacks:
        found = getattr(callback, "carbon", None) if isinstance(callback, Callback) else None
        if not isinstance(found, CarbonAccount) or found.provenance is None:
            continue
        monitors = isinstance(callback, EnergyMonitor)
        differs = monitors and own.pue not in (None, found.pue)
        if differs or not own.agrees_with(found):
            raise MisconfigurationException(
                f"BudgetGuard converts joules to grams {_in_words(own)}, and "
                f"{type(callback).__name__} {_in_words(found)}; give both the same intensity and "
                "PUE, or omit them in BudgetGuard"
            )
        if monitors:
            used = found
    if cap.carbon_g is not None and used.provenance is None:
        raise ConfigurationError(
            f"BudgetGuard(cap={str(cap)!r}) limits carbon, and the carbon intensity is unknown; "
            "add a zone such as zone='DE', or an intensity, here or to EnergyMonitor"
        )
    return used


def _ours(trainer: Any) -> list[Callback]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Callback)]


def _record_of(callback: Callback) -> RunRecord | None:
    record = getattr(callback, "record", None)
    return record if isinstance(record, RunRecord) else None


def _recording_in(trainer: Any, ledger: str | None) -> Callback | None:
    """Return the monitor, or else another guard, that records this fit in a ledger."""
    for callback in _ours(trainer):
        if isinstance(callback, EnergyMonitor) and (
            ledger is None or same_place(ledger, callback.ledger)
        ):
            return callback
    for callback in _ours(trainer):
        same = ledger is not None and same_place(ledger, getattr(callback, "ledger", None))
        if same and not isinstance(callback, EnergyMonitor) and _record_of(callback) is not None:
            return callback
    return None


def _check_payers(trainer: Any) -> None:
    """Refuse two budgets of one ledger: a window has one reservation."""
    payers = [callback for callback in _ours(trainer) if getattr(callback, "budget", None)]
    for index, payer in enumerate(payers):
        for other in payers[:index]:
            if same_place(payer.ledger, other.ledger):  # type: ignore[attr-defined]
                raise MisconfigurationException(
                    f"two BudgetGuards of this Trainer pay from the budgets {other.budget!r} and "  # type: ignore[attr-defined]
                    f"{payer.budget!r} of one ledger, and energy is paid for once. Omit "  # type: ignore[attr-defined]
                    "budget= in one of them: its cap is recorded with the run"
                )


def _in_words(carbon: CarbonAccount) -> str:
    zone = "without a zone" if carbon.provenance is None else f"of zone {carbon.provenance.zone!r}"
    return zone if carbon.pue is None else f"{zone} at a PUE of {carbon.pue:g}"
