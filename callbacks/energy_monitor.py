"""Measure what training draws, epoch by epoch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from rich.console import Console

from greentrain.callbacks import epoch_metrics as figures
from greentrain.callbacks.base import Callback
from greentrain.callbacks.measurement import Measurement, Sum
from greentrain.callbacks.metric_logging import Loggers, show
from greentrain.callbacks.run_record import open_record, own_url
from greentrain.callbacks.summary import summary_table
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.energy import (
    NOTHING,
    Calibration,
    Meter,
    Reading,
    Source,
    WallMeter,
    Window,
    WindowRecorder,
    predict_total,
)
from greentrain.errors import ConfigurationError

_LOOK_BACK = 100
"""Epochs that a prediction rests on: the last ones, so that it costs the same in a long fit."""


class EnergyMonitor(Callback):
    """Measure the energy of each epoch and validation, and log it where the other metrics go.

    The windows of a fit (each training epoch, each validation, the sanity check, and the time
    around them) are disjoint and sum to the energy of the fit. On several processes each device of
    each host is measured once, and every process has the sum. The metrics, and which of them there
    are when, stand in the documentation's page on measuring.

    Args:
        meter: Where joules come from; by default the best for what the Trainer uses: its card, and
            CPU and RAM of the host.
        ledger: URL of a ledger to record the windows in, such as ``"sqlite:///greentrain.db"``;
            ``True`` for a new one in ``greentrain_logs/`` under the Trainer's
            ``default_root_dir``; ``False`` for none.
        zone: Where this machine gets its power, such as ``"DE"``; without it no grams are claimed.
        intensity: A provider of carbon intensities, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        pue_source: Where that figure comes from.
        wall: A meter of the whole node, with which what was measured is compared at the end.
        idle_s: Seconds to measure the idle machine for before anything starts; recorded apart and
            never taken off.
        log: Whether to log metrics.
        summary: Whether to print a table at the end.

    Raises:
        ConfigurationError: If an argument cannot be used; in ``setup``, if the ledger's URL cannot
            be, or the meter asks for what is not there.
        LedgerError: In ``setup``, if what the URL names is no ledger.
        MisconfigurationException: If another callback was given another meter, or a wall meter is
            to stand for several nodes; in ``setup``.

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
        ledger: str | bool = True,
        zone: str | None = None,
        intensity: IntensityProvider | None = None,
        pue: float | None = None,
        pue_source: str | None = None,
        wall: WallMeter | None = None,
        idle_s: float = 0.0,
        log: bool = True,
        summary: bool = True,
    ) -> None:
        self.carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue, pue_source=pue_source)
        if not (math.isfinite(idle_s) and idle_s >= 0):
            raise ConfigurationError(f"idle_s is {idle_s!r}; it is in seconds, 0 or more")
        self.meter = meter
        self.ledger = ledger
        self.wall = wall
        self.idle_s = idle_s
        self.log_metrics = log
        self.summary = summary
        self._measured: Measurement | None = None
        self._own_url: str | None = None
        self._loggers = Loggers()
        self._epochs_j: list[float] = []
        self._spent_j = 0.0
        self._begun = _Begun()

    @property
    def windows(self) -> list[Window]:
        """The last thousand closed windows, in their order; the ledger has all."""
        return list(self._measured.windows) if self._measured else []

    @property
    def total(self) -> Reading:
        """Seconds and joules by source, up to the last window's end."""
        return self._measured.closed.reading if self._measured else NOTHING

    @property
    def emissions_g(self) -> float | None:
        """Grams of CO2 equivalent, up to the last window's end; ``None`` where not all is known."""
        return self._measured.closed.grams if self._measured and self.windows else None

    @property
    def sources(self) -> tuple[Source, ...]:
        """The metered things, as they were known at the end."""
        return self._measured.sources if self._measured else ()

    @property
    def idle(self) -> Reading | None:
        """What was drawn while idle."""
        return self._measured.idle if self._measured else None

    @property
    def calibration(self) -> Calibration | None:
        """How the total compares with the wall."""
        return self._measured.calibration if self._measured else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to measure."""
        if self.wall is not None and trainer.num_nodes > 1:
            raise MisconfigurationException(
                f"wall measures one node, and this Trainer has {trainer.num_nodes}; leave it out"
            )
        stage = getattr(stage, "value", stage)  # an enumeration, for all its annotation
        self._epochs_j, self._spent_j, self._begun = [], 0.0, _Begun()
        if self.ledger is True:
            self._own_url = self._own_url or own_url(trainer)
        # The ledger first: what the meter starts in a thread would keep it waiting.
        record = open_record(trainer, self.ledger, self._own_url, self.carbon)
        self._measured = Measurement(trainer, self.meter, self.carbon, self.wall, record)
        self._measured.begin(stage, type(pl_module).__name__, self.idle_s)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the sanity check apart from training."""
        self._enter("sanity_check")

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the sanity check's window."""
        self._leave()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the window of an epoch that goes on: Lightning tells of its end only."""
        stages = ("restarted_mid_epoch", "restarted_on_epoch_end")  # before 2.5 there were none
        if any(getattr(trainer.fit_loop, stage, False) for stage in stages):
            self._begin_epoch(trainer, whole=False)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch's window."""
        self._begin_epoch(trainer, whole=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a validation's window, interrupting the epoch's."""
        if not trainer.sanity_checking:
            self._enter("validation", trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's figures so far, for callbacks that look at metrics after a validation."""
        if self._measured is None or trainer.sanity_checking or not self.log_metrics:
            return
        epoch = self._measured.open_window("train_epoch")
        if epoch is not None:
            show(trainer, self._metrics(trainer, self._measured, epoch, self._measured.so_far()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a validation's window."""
        if not trainer.sanity_checking:
            self._leave()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch's window and log its figures."""
        self._leave()
        if self._measured is None or not self.log_metrics:
            return
        epoch, so_far = self._measured.windows[-1], self._measured.so_far()
        metrics = self._metrics(trainer, self._measured, epoch, so_far)
        metrics |= self._expected(trainer, epoch, so_far.known_j or 0.0)
        if figures.has_card(epoch.reading):
            metrics |= figures.power_limits(self._measured.lease.sources())
        show(trainer, metrics)
        self._loggers.log(trainer, metrics)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close everything."""
        self._close(trainer, "completed")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close everything: Lightning calls no ``teardown`` then."""
        self._close(trainer, "failed", alone=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the totals so far, in mid-epoch too."""
        so_far = self._measured.so_far() if self._measured else Sum()
        return {**so_far.as_dict(), "epochs_j": list(self._epochs_j)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the totals of a checkpoint."""
        if self._measured is not None:
            self._measured.closed = Sum.from_dict(state_dict)
            self._epochs_j = list(state_dict["epochs_j"])
            self._spent_j = self._measured.closed.known_j or 0.0

    def _metrics(
        self, trainer: Trainer, measured: Measurement, epoch: Window, so_far: Sum
    ) -> dict[str, float]:
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed - self._begun.batches
        samples = figures.samples_of(trainer.train_dataloader, batches)
        return figures.energy_metrics(
            epoch.reading,
            so_far.known_j,
            samples=None if samples is None else samples * trainer.world_size,
        ) | figures.emission_metrics(measured.grams(epoch), so_far.grams)

    def _expected(self, trainer: Trainer, epoch: Window, spent_j: float) -> dict[str, float]:
        """Return what the whole fit is expected to draw, were it to run to its end."""
        before_j, self._spent_j = self._spent_j, spent_j
        if not self._begun.whole or not epoch.reading.complete:
            return {}
        self._epochs_j = [*self._epochs_j, spent_j - before_j][-_LOOK_BACK:]
        left = figures.epochs_left(trainer, trainer.global_step - self._begun.steps)
        if left is None:
            return {}
        return figures.forecast_metrics(predict_total(self._epochs_j, spent_j, left))

    def _begin_epoch(self, trainer: Trainer, *, whole: bool) -> None:
        self._enter("train_epoch", trainer.current_epoch)
        self._begun = _Begun(
            batches=trainer.fit_loop.epoch_loop.batch_progress.total.completed,
            steps=trainer.global_step,
            whole=whole,
        )

    def _enter(self, phase: str, epoch: int | None = None) -> None:
        if self._measured is not None:
            self._measured.enter(phase, epoch)

    def _leave(self) -> None:
        if self._measured is not None:
            self._measured.leave()

    def _close(self, trainer: Trainer, status: str, *, alone: bool = False) -> None:
        if self._measured is None or not self._measured.close(status, alone=alone):
            return
        if self.summary and self.windows and trainer.is_global_zero:
            Console().print(summary_table(self._measured))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """How far training was when an epoch began."""

    batches: int = 0
    steps: int = 0
    whole: bool = True
