"""Measure what training draws, epoch by epoch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import LightningModule, Trainer

from greentrain.callbacks.base import Callback
from greentrain.callbacks.recording import Lease
from greentrain.carbon import UNKNOWN, CarbonAccount, Emissions, IntensityProvider
from greentrain.energy import NOTHING, Meter, Reading, Window, WindowRecorder, total
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, RunLog, environment
from greentrain.tracking import names
from greentrain.units import utc_now, wh


class EnergyMonitor(Callback):
    """Measure the energy of each epoch and validation, and log it where the other metrics go.

    The windows of a fit (each training epoch, each validation, the sanity check, and the time
    around them) are disjoint and sum to the energy of the fit. On several processes each node is
    measured once, by its first process, and the logged figures are the sum.

    Args:
        meter: Where joules come from; by default the best that this machine has.
        ledger: URL of a ledger to record the windows in, such as ``"sqlite:///greentrain.db"``.
        zone: Where this machine gets its power, such as ``"DE"``; without it no grams are claimed.
        intensity: A provider of carbon intensities, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        log: Whether to log metrics per epoch: ``energy/epoch_wh``, ``energy/total_wh``,
            ``energy/power_w``, each source's ``energy/..._epoch_wh`` and, where the intensity is
            known, ``emissions/epoch_g`` and ``emissions/total_g``.

    Attributes:
        windows: The windows of the last fit, validation, test or prediction.
        total: Their sum, with any earlier part of the fit that was resumed from a checkpoint.
        emissions_g: Grams of CO2 equivalent of the same; ``None`` where any of it is unknown.

    Raises:
        ConfigurationError: If zone, intensity or PUE cannot be used; in ``setup``, if the ledger's
            URL cannot be.
        MisconfigurationException: If another callback was given another meter; in ``setup``.

    Example:
        >>> from greentrain.energy import ConstantMeter
        >>> monitor = EnergyMonitor(ConstantMeter(100.0))
        >>> monitor.total.total_j is None  # nothing was measured yet
        True
    """

    def __init__(
        self,
        meter: Meter | WindowRecorder | None = None,
        *,
        ledger: str | None = None,
        zone: str | None = None,
        intensity: IntensityProvider | None = None,
        pue: float | None = None,
        log: bool = True,
    ) -> None:
        self.carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue)
        self.meter = meter
        self.ledger = ledger
        self.log_metrics = log
        self.windows: list[Window] = []
        self._earlier = NOTHING
        self._grams: list[float | None] = []
        self._depth = 0
        self._opened = utc_now()
        self._lease: Lease | None = None
        self._run: RunLog | None = None
        self._open_ledger: Ledger | None = None

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return f"EnergyMonitor{{'ledger': {self.ledger is not None}}}"

    @property
    def total(self) -> Reading:
        """Seconds and joules by source, up to the last window's end."""
        return self._earlier + total(self.windows)

    @property
    def emissions_g(self) -> float | None:
        """Grams of CO2 equivalent, up to the last window's end; ``None`` where not all is known."""
        known = [grams for grams in self._grams if grams is not None]
        return math.fsum(known) if known and len(known) == len(self._grams) else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to measure."""
        self._lease = Lease(trainer, self.meter)
        recorder = self._lease.recorder
        if self.ledger is not None and trainer.is_global_zero:
            self._open_ledger = Ledger(self.ledger)
            self._run = self._open_ledger.open_run(
                "fit",
                type(pl_module).__name__,
                environment={**environment(), "carbon": self.carbon.as_dict()},
                sources=[dataclasses.asdict(source) for source in recorder.meter.sources],
            )
        self.windows, self._grams = [], []
        self._earlier = NOTHING
        self._depth, self._opened = recorder.depth, utc_now()
        recorder.sinks.append(self._take)
        recorder.enter(getattr(stage, "value", stage))  # an enumeration, for all its annotation

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the sanity check apart from training."""
        self._enter("sanity_check")

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the sanity check's window."""
        self._leave()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch's window."""
        self._enter("train_epoch", epoch=trainer.current_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a validation's window, interrupting the epoch's."""
        if not trainer.sanity_checking:
            self._enter("validation", epoch=trainer.current_epoch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a validation's window."""
        if not trainer.sanity_checking:
            self._leave()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch's window and log its figures."""
        window = self._leave()
        if self.log_metrics:
            figures = self._figures(window) if window else {}
            if trainer.world_size > 1:
                figures = _summed(trainer, figures)
            pl_module.log_dict(figures, on_step=False, on_epoch=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close everything."""
        self._close("completed")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close everything: Lightning calls no ``teardown`` then."""
        self._close("failed")

    def state_dict(self) -> dict[str, Any]:
        """Return the totals so far, in mid-epoch too."""
        reading = self._so_far()
        return {
            "duration_s": reading.duration_s,
            "energy_j": dict(reading.energy_j),
            "emissions_g": self._grams_so_far(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the totals of a checkpoint."""
        self._earlier = Reading(
            duration_s=state_dict["duration_s"], energy_j=state_dict["energy_j"]
        )
        self._grams = [state_dict.get("emissions_g")] if self._earlier.energy_j else []

    def _so_far(self) -> Reading:
        return self.total + (self._lease.recorder.drawn(self._depth) if self._lease else NOTHING)

    def _grams_so_far(self) -> float | None:
        if self._lease is None:
            return self.emissions_g
        open_j = self._lease.recorder.drawn(self._depth).total_j
        since = self.carbon.emissions(open_j, self._opened, utc_now()).grams
        closed = self.emissions_g if self._grams else 0.0
        return None if since is None or closed is None else closed + since

    def _enter(self, phase: str, *, epoch: int | None = None) -> None:
        if self._lease is not None:
            self._lease.recorder.enter(phase, epoch=epoch)

    def _leave(self) -> Window | None:
        return self._lease.recorder.leave() if self._lease is not None else None

    def _take(self, window: Window) -> None:
        self.windows.append(window)
        emissions = emissions_of(window, self.carbon)
        self._grams.append(emissions.grams)
        if self._run is not None:
            record_window(self._run, window, emissions)

    def _figures(self, window: Window) -> dict[str, float]:
        figures = epoch_metrics(window.reading, self._so_far())
        grams = {
            names.EMISSIONS_EPOCH: emissions_of(window, self.carbon).grams,
            names.EMISSIONS_TOTAL: self._grams_so_far(),
        }
        return figures | {name: value for name, value in grams.items() if value is not None}

    def _close(self, status: str) -> None:
        if self._lease is None:
            return
        recorder = self._lease.recorder
        recorder.leave_to(self._depth)
        recorder.sinks.remove(self._take)
        self._lease.release()
        self._lease = None
        if self._run is not None and self._open_ledger is not None:
            try:
                self._run.close(status)
            except LedgerError as error:  # what was trained is not lost for want of a closing row
                rank_zero_warn(f"EnergyMonitor: the run could not be closed: {error}")
            self._open_ledger.close()
            self._run = self._open_ledger = None


def emissions_of(window: Window, carbon: CarbonAccount) -> Emissions:
    """Return the grams of a window."""
    return carbon.emissions(window.reading.total_j, window.started, window.ended)


def record_window(run: RunLog, window: Window, emissions: Emissions = UNKNOWN) -> None:
    """Write a window into a run of the ledger."""
    run.window(
        window.phase,
        started=window.started,
        duration_s=window.reading.duration_s,
        by_source=window.reading.energy_j,
        epoch=window.epoch,
        reservation_id=window.reservation_id,
        emissions_g=emissions.grams,
        intensity_g_per_kwh=emissions.intensity_g_per_kwh,
    )


def epoch_metrics(window: Reading, so_far: Reading) -> dict[str, float]:
    """Return the metrics of an epoch, in watt-hours and watts; what is unknown is left out.

    Example:
        >>> epoch = Reading(duration_s=36.0, energy_j={"cpu": 3600.0})
        >>> epoch_metrics(epoch, epoch)["energy/epoch_wh"]  # 100 W for 36 s
        1.0
    """
    figures = {
        names.ENERGY_EPOCH: window.total_j,
        names.ENERGY_TOTAL: so_far.total_j,
        **{names.source_epoch(name): joules for name, joules in window.energy_j.items()},
    }
    metrics = {name: wh(joules) for name, joules in figures.items() if joules is not None}
    if window.power_w is not None:
        metrics[names.ENERGY_POWER] = window.power_w
    return metrics


def _summed(trainer: Trainer, metrics: dict[str, float]) -> dict[str, float]:
    """Sum metrics over all processes, so that every rank logs the same names and values."""
    gathered: list[dict[str, float]] = [{} for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(gathered, metrics)
    every = {name for figures in gathered for name in figures}
    return {name: sum(figures.get(name, 0.0) for figures in gathered) for name in sorted(every)}
