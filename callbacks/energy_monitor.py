"""Measure the energy that training uses, epoch by epoch."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from rich.console import Console

from greentrain.callbacks import epoch_metrics
from greentrain.callbacks.base import Callback
from greentrain.callbacks.fit_estimate import estimate_fit
from greentrain.callbacks.fit_metrics import better_direction
from greentrain.callbacks.measurement import RunMeasurement, WindowTotal
from greentrain.callbacks.meter_lease import abandon_early, start_early
from greentrain.callbacks.metric_logging import EpochLogger, show
from greentrain.callbacks.monitored_runs import NO_RUNS, MonitoredRuns
from greentrain.callbacks.run_record import RunRecord, default_url
from greentrain.callbacks.summary import say_record, summary_table
from greentrain.callbacks.trainer_plan import is_trial
from greentrain.callbacks.training_paused import ended_as
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.energy import (
    Calibration,
    Meter,
    Reading,
    Source,
    WallMeter,
    Window,
    WindowRecorder,
    check_meter,
    energy_html,
    predict_total,
)
from greentrain.errors import ConfigurationError
from greentrain.naming import check_name, check_tag
from greentrain.units import is_number

_PREDICTION_EPOCHS = 100
"""Last epochs on which a prediction is based; a limit keeps its cost constant in a long fit."""


class EnergyMonitor(Callback):
    """Measure the energy of each epoch and validation, and log it next to the other metrics.

    A fit is divided into windows: the preparation of data, each training epoch, each validation,
    the sanity check, and the time around them. The windows are disjoint and sum to the energy of
    the fit. With several processes, each device of each host is measured once, and every process
    has the sum. The documentation's page on measuring lists the metrics and when each of them is
    logged.

    One monitor may measure several fits, validations, tests and predictions: :attr:`total` is the
    sum, and :attr:`totals` has each stage. Metrics and tables are of a single run.

    Args:
        meter: The source of joules. The default is the best meter for what the Trainer uses: its
            GPU, and CPU and RAM of the host.
        name: Name of the runs in reports; the class of the model if ``None``.
        ledger: URL of a ledger in which to record the windows, such as
            ``"sqlite:///greentrain.db"``. ``True`` creates a ledger in ``greentrain_logs/`` under
            the Trainer's ``default_root_dir``; ``False`` records nothing.
        zone: Electricity zone of this machine, such as ``"DE"``; grams are unknown without it.
        intensity: A provider of carbon intensities or its name, instead of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        pue_source: Source of the PUE figure.
        market_intensity: Market-based intensity of the electricity contract in g/kWh, or a provider
            of it; its grams are recorded next to the location-based ones.
        wall: A meter of the whole node, with which the total is compared at the end.
        idle_s: Seconds for which to measure the idle machine before the run. Idle energy is
            recorded separately and never subtracted.
        log: Whether to log metrics.
        summary: Whether to print a table at the end.
        team: Tag of the team in the ledger.
        project: Tag of the project in the ledger.
        metric: Metric by which reports compare fits. By default, what a checkpoint or else early
            stopping monitors.
        mode: Better direction of this metric, ``"max"`` or ``"min"``.

    Attributes:
        carbon: The :class:`greentrain.carbon.CarbonAccount` that converts joules to grams.

    Raises:
        ConfigurationError: If an argument is not allowed. Also in ``setup``, if the URL of the
            ledger cannot be used, or the meter needs a device that is missing.
        LedgerError: In ``setup``, if the URL does not lead to a ledger.
        MisconfigurationException: In ``setup``, if another callback was given another meter, or a
            wall meter would have to represent several nodes.

    Example:
        >>> from greentrain.energy import ConstantMeter
        >>> monitor = EnergyMonitor(ConstantMeter(100.0))
        >>> monitor.total.total_j is None  # before the fit
        True
    """

    def __init__(
        self,
        meter: Meter | WindowRecorder | None = None,
        *,
        name: str | None = None,
        ledger: str | bool = True,
        zone: str | None = None,
        intensity: IntensityProvider | str | None = None,
        pue: float | None = None,
        pue_source: str | None = None,
        market_intensity: float | IntensityProvider | None = None,
        wall: WallMeter | None = None,
        idle_s: float = 0.0,
        log: bool = True,
        summary: bool = True,
        team: str | None = None,
        project: str | None = None,
        metric: str | None = None,
        mode: Literal["max", "min"] | None = None,
    ) -> None:
        self.carbon = CarbonAccount(
            zone=zone,
            intensity=intensity,
            pue=pue,
            pue_source=pue_source,
            market_intensity=market_intensity,
        )
        if not isinstance(meter, WindowRecorder):
            check_meter(meter, "EnergyMonitor(meter=...)")
        if not (is_number(idle_s) and math.isfinite(idle_s) and idle_s >= 0):
            raise ConfigurationError(
                f"EnergyMonitor(idle_s={idle_s!r}) is not allowed; give seconds, 0 or more"
            )
        self.name = None if name is None else check_name(name, "name", "resnet on cifar")
        self.meter = meter
        self.ledger = ledger
        self.wall = wall
        self.idle_s = idle_s
        self.log_metrics = log
        self.summary = summary
        self.tags = {"team": check_tag(team, "team"), "project": check_tag(project, "project")}
        self.better = better_direction(metric, mode, "EnergyMonitor")
        self._measured: RunMeasurement | None = None
        self._fit: RunMeasurement | None = None  # the last one, whose totals are saved
        self._done, self._fit_id = NO_RUNS, ""
        self._before: dict[str, Any] = {}  # totals of the fits that the present one resumed
        self._resumed: dict[str, WindowTotal] = {}  # largest total of each fit of other monitors
        self._default_url: str | None = None
        self._said_url, self._used_j = False, 0.0
        self._logger = EpochLogger()
        self._epochs_j: list[float] = []
        # Batches and steps before the epoch, and whether all of the epoch is measured.
        self._first_batch, self._first_step, self._whole_epoch = 0, 0, True

    estimate = staticmethod(estimate_fit)

    @property
    def windows(self) -> list[Window]:
        """The last thousand closed windows, oldest first; the ledger has all windows."""
        return list(self._runs.windows)

    @property
    def total(self) -> Reading:
        """Seconds and joules by source of all runs, up to the end of the last window.

        A resumed fit includes the fit before it, unless this monitor measured that one itself.
        """
        return self._runs.total().reading

    @property
    def totals(self) -> dict[str, Reading]:
        """The same by stage: ``"fit"``, ``"validate"``, ``"test"`` and ``"predict"``, if run."""
        runs = self._runs
        return {one: runs.total(one).reading for one in dict.fromkeys(r.stage for r in runs.runs)}

    @property
    def emissions_g(self) -> float | None:
        """Grams of CO2 equivalent of ``total``; ``None`` if any are unknown."""
        runs = self._runs
        return runs.total().grams if runs.windows else None

    @property
    def sources(self) -> tuple[Source, ...]:
        """The metered sources, as described at the end of the last run."""
        return self._runs.sources

    @property
    def idle(self) -> Reading | None:
        """Energy used while idle before the last run; ``None`` if it was not measured."""
        return self._runs.idle

    @property
    def calibration(self) -> Calibration | None:
        """Comparison of the last run with the wall meter."""
        return self._runs.calibration

    @property
    def ledger_url(self) -> str | None:
        """URL of the ledger that has the last run; ``None`` if no ledger has it."""
        return self._runs.ledger_url

    @property
    def run_id(self) -> str | None:
        """Id of the last run in its ledger; ``None`` if no ledger has it."""
        runs = self._runs.runs
        return runs[-1].run_id if runs else None

    def on_prepare_data(self, trainer: Trainer) -> None:
        """Start to measure the preparation of data."""
        start_early(trainer, self.meter)

    @property
    def record(self) -> RunRecord | None:
        """The record of the open or last run, through which a :class:`BudgetGuard` pays."""
        return self._measured.record if self._measured else None

    def _repr_html_(self) -> str:
        methods = {source.name: source.method for source in self.sources}
        total, grams = self.total, self.emissions_g
        return energy_html(f"EnergyMonitor: {total}", total.energy_j, methods=methods, grams=grams)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to measure."""
        if self.wall is not None and trainer.num_nodes > 1:
            raise MisconfigurationException(
                f"EnergyMonitor(wall=...): wall measures one node, and num_nodes of this Trainer "
                f"is {trainer.num_nodes}; omit wall"
            )
        stage = getattr(stage, "value", stage)  # an enumeration, in spite of its annotation
        self._first_batch, self._first_step, self._whole_epoch = 0, 0, True
        # Open the ledger first: a meter that starts in a thread would delay it.
        url, required = self._ledger_url(trainer), isinstance(self.ledger, str)
        record = RunRecord(url, self.carbon, required=required, tags=self.tags)
        self._measured = RunMeasurement(trainer, self.meter, self.carbon, self.wall, record)
        self._measured.better = self.better
        if stage == "fit":
            self._fit, self._epochs_j = self._measured, []
            self._fit_id, self._before = f"{self.origin.token} {uuid.uuid4().hex}", {}
        self._measured.begin(stage, self.name or type(pl_module).__name__, self.idle_s)
        self._used_j = self._measured.closed.known_j or 0.0

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the sanity check apart from training."""
        self._enter("sanity_check")

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the window of the sanity check."""
        self._leave()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the window of a resumed epoch: Lightning does not call its start hook."""
        stages = ("restarted_mid_epoch", "restarted_on_epoch_end")  # since Lightning 2.5
        if any(getattr(trainer.fit_loop, stage, False) for stage in stages):
            self._begin_epoch(trainer, whole=False)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the window of an epoch."""
        self._begin_epoch(trainer, whole=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the window of a validation, interrupting that of the epoch."""
        if not trainer.sanity_checking:
            self._enter("validation", trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the epoch's metrics so far to callbacks that read metrics after a validation."""
        if self._measured is None or trainer.sanity_checking or not self.log_metrics:
            return
        epoch = self._measured.open_window("train_epoch")
        if epoch is not None:
            show(trainer, self._metrics(trainer, self._measured, epoch, self._measured.so_far()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the window of a validation."""
        if not trainer.sanity_checking:
            self._leave()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the window of the epoch and log its metrics."""
        self._leave()
        if self._measured is None or not self.log_metrics:
            return
        epoch, so_far = self._measured.windows[-1], self._measured.so_far()
        metrics = self._metrics(trainer, self._measured, epoch, so_far)
        metrics |= self._predicted(trainer, epoch, so_far.known_j or 0.0)
        if epoch_metrics.has_gpu(epoch.reading):
            metrics |= epoch_metrics.power_limits(self._measured.lease.sources())
        show(trainer, metrics)
        self._logger.log(trainer, metrics)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the measurement."""
        self._close(trainer, "completed")

    def on_exception(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """End the measurement as failed: Lightning calls no ``teardown`` then."""
        self._close(trainer, **ended_as(args))
        abandon_early(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the totals of the last fit so far, in mid-epoch too."""
        so_far, own = WindowTotal(), {}
        if self._fit is not None:
            so_far = self._fit.so_far()
            new = so_far - self._fit.resumed if self._before else so_far
            own = {self._fit_id: new.as_dict()}
        return {
            **so_far.as_dict(),
            "epochs_j": list(self._epochs_j),
            "fits": {**self._before, **own},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a fit from the totals of a checkpoint; other stages use the weights alone."""
        if self._measured is None or self._measured is not self._fit:
            return
        self._measured.resumed = WindowTotal.from_dict(state_dict)
        # A release without "fits" saved the total of all of them, by monitor.
        self._before = dict(state_dict.get("fits", {str(state_dict.get("monitor")): state_dict}))
        fits = {name: WindowTotal.from_dict(total) for name, total in self._before.items()}
        beyond = (self._beyond_counted(name, total) for name, total in fits.items())
        self._measured.new = sum(beyond, start=WindowTotal())
        self._epochs_j = list(state_dict["epochs_j"])
        self._used_j = self._measured.closed.known_j or 0.0

    def take_back(self, results: Mapping[str, Any]) -> None:
        """Add a run in a process that Lightning started from this one."""
        self._done = self._done.plus(results["runs"])
        self._resumed.update(results.get("resumed", {}))

    def _beyond_counted(self, fit: str, resumed: WindowTotal) -> WindowTotal:
        """Return what a checkpoint has of a fit beyond earlier checkpoints loaded here."""
        if fit.startswith(self.origin.token):
            return WindowTotal()
        before = self._resumed.get(fit)
        if before is not None and (before.known_j or 0.0) >= (resumed.known_j or 0.0):
            return WindowTotal()
        self._resumed[fit] = resumed
        return resumed if before is None else resumed - before

    @property
    def _runs(self) -> MonitoredRuns:
        """All runs, the present one included."""
        for results in self.origin.collect():
            self.take_back(results)
        if self._measured is None or not self._measured.is_open:
            return self._done
        return self._done.plus(MonitoredRuns.of(self._measured))

    def _metrics(
        self, trainer: Trainer, measured: RunMeasurement, epoch: Window, so_far: WindowTotal
    ) -> dict[str, float]:
        samples = epoch_metrics.epoch_samples(trainer, self._first_batch)
        metrics = epoch_metrics.energy_metrics(epoch.reading, so_far.known_j, samples=samples)
        return metrics | epoch_metrics.emission_metrics(measured.grams(epoch), so_far.grams)

    def _predicted(self, trainer: Trainer, epoch: Window, used_j: float) -> dict[str, float]:
        """Return the predicted energy of the whole fit, from epochs measured completely."""
        before_j, self._used_j = self._used_j, used_j
        if not self._whole_epoch or not epoch.reading.complete:
            return {}
        self._epochs_j = [*self._epochs_j, used_j - before_j][-_PREDICTION_EPOCHS:]
        left = epoch_metrics.epochs_left(trainer, trainer.global_step - self._first_step)
        forecast = None if left is None else predict_total(self._epochs_j, used_j, left)
        return epoch_metrics.forecast_metrics(forecast)

    def _ledger_url(self, trainer: Trainer) -> str | None:
        # As Lightning's own trial runs, it leaves no files, not even those that were asked for.
        if not self.ledger or is_trial(trainer) or not trainer.is_global_zero:
            return None
        if isinstance(self.ledger, str):
            return self.ledger
        self._default_url = self._default_url or default_url(trainer)
        return self._default_url

    def _begin_epoch(self, trainer: Trainer, *, whole: bool) -> None:
        self._enter("train_epoch", trainer.current_epoch)
        self._first_batch = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        self._first_step, self._whole_epoch = trainer.global_step, whole

    def _enter(self, phase: str, epoch: int | None = None) -> None:
        if self._measured is not None:
            self._measured.enter(phase, epoch)

    def _leave(self) -> None:
        if self._measured is not None:
            self._measured.leave()

    def _close(self, trainer: Trainer, status: str, *, alone: bool = False) -> None:
        if self._measured is None or not self._measured.close(status, alone=alone):
            return
        run = MonitoredRuns.of(self._measured)
        self._done = self._done.plus(run)
        if not trainer.is_global_zero:
            return
        self.origin.hand_over({"runs": run, "resumed": self._resumed})
        if self.summary and run.windows:
            Console().print(summary_table(self._measured))
        if run.ledger_url and run.ledger_url == self._default_url and not self._said_url:
            self._said_url = True
            say_record(run.ledger_url, printed=self.summary)
