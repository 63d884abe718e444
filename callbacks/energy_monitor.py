"""Measure what training draws, epoch by epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer

from greentrain.callbacks.base import Callback
from greentrain.callbacks.recording import Lease
from greentrain.energy import NOTHING, Meter, Reading, Window, WindowRecorder, total
from greentrain.ledger import Ledger, RunLog, environment
from greentrain.tracking import names
from greentrain.units import wh


class EnergyMonitor(Callback):
    """Measure the energy of each epoch and validation, and log it where the other metrics go.

    The windows of a fit (each training epoch, each validation, the sanity check, and the time
    around them) are disjoint and sum to the energy of the fit. On several processes each node is
    measured once, by its first process, and the logged figures are the sum.

    Args:
        meter: Where joules come from; by default the best that this machine has.
        ledger: URL of a ledger to record the windows in, such as ``"sqlite:///greentrain.db"``.
        log: Whether to log metrics per epoch: ``energy/epoch_wh``, ``energy/total_wh``,
            ``energy/power_w``, and each source's ``energy/..._epoch_wh``.

    Attributes:
        windows: The windows of the last fit, validation, test or prediction.
        total: Their sum, with any earlier part of the fit that was resumed from a checkpoint.

    Raises:
        ConfigurationError: If the ledger's URL cannot be used; in ``setup``.
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
        log: bool = True,
    ) -> None:
        self.meter = meter
        self.ledger = ledger
        self.log_metrics = log
        self.windows: list[Window] = []
        self._earlier = NOTHING
        self._depth = 0
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to measure."""
        if trainer.local_rank != 0:
            return  # this node is measured by its first process
        self._lease = Lease(trainer, self.meter)
        recorder = self._lease.recorder
        if self.ledger is not None and trainer.is_global_zero:
            self._open_ledger = Ledger(self.ledger)
            self._run = self._open_ledger.open_run(
                "fit",
                type(pl_module).__name__,
                environment=environment(),
                sources=[dataclasses.asdict(source) for source in recorder.meter.sources],
            )
        self.windows = []
        self._earlier = NOTHING
        self._depth = recorder.depth
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
            figures = epoch_metrics(window.reading, self._so_far()) if window else {}
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
        return {"duration_s": reading.duration_s, "energy_j": dict(reading.energy_j)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the totals of a checkpoint."""
        self._earlier = Reading(**state_dict)

    def _so_far(self) -> Reading:
        return self.total + (self._lease.recorder.drawn(self._depth) if self._lease else NOTHING)

    def _enter(self, phase: str, *, epoch: int | None = None) -> None:
        if self._lease is not None:
            self._lease.recorder.enter(phase, epoch=epoch)

    def _leave(self) -> Window | None:
        return self._lease.recorder.leave() if self._lease is not None else None

    def _take(self, window: Window) -> None:
        self.windows.append(window)
        if self._run is not None:
            record_window(self._run, window)

    def _close(self, status: str) -> None:
        if self._lease is None:
            return
        recorder = self._lease.recorder
        recorder.leave_to(self._depth)
        recorder.sinks.remove(self._take)
        self._lease.release()
        self._lease = None
        if self._run is not None and self._open_ledger is not None:
            self._run.close(status)
            self._open_ledger.close()
            self._run = self._open_ledger = None


def record_window(run: RunLog, window: Window) -> None:
    """Write a window into a run of the ledger."""
    run.window(
        window.phase,
        started=window.started,
        duration_s=window.reading.duration_s,
        by_source=window.reading.energy_j,
        epoch=window.epoch,
        reservation_id=window.reservation_id,
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
