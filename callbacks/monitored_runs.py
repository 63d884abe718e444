"""The runs that one monitor has measured, and their totals."""

from __future__ import annotations

from dataclasses import dataclass

from greentrain.callbacks.measurement import KEPT_WINDOWS, RunMeasurement, WindowTotal
from greentrain.energy import Calibration, Reading, Source, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoredRun:
    """One fit, validation, test or prediction.

    Args:
        stage: The stage of the Trainer.
        model: Class of the model.
        run_id: Id of the run in the ledger; ``None`` if no ledger has it.
        total: What the run adds to the total of its monitor.
    """

    stage: str
    model: str
    run_id: str | None
    total: WindowTotal


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoredRuns:
    """Runs in their order, and the details of the last one.

    Args:
        runs: The runs.
        windows: The last thousand windows of all runs.
        sources: Sources of the last run.
        idle: Energy used while idle before the last run.
        calibration: Comparison of the last run with a wall meter.
        ledger_url: URL of the ledger of the last run.
    """

    runs: tuple[MonitoredRun, ...] = ()
    windows: tuple[Window, ...] = ()
    sources: tuple[Source, ...] = ()
    idle: Reading | None = None
    calibration: Calibration | None = None
    ledger_url: str | None = None

    @classmethod
    def of(cls, measured: RunMeasurement) -> MonitoredRuns:
        """Return the one run of a measurement, up to the end of its last window."""
        run = MonitoredRun(
            stage=measured.phase,
            model=measured.name,
            run_id=measured.record.run_id,
            total=measured.new + measured.own,
        )
        return cls(
            runs=(run,),
            windows=tuple(measured.windows),
            sources=measured.sources,
            idle=measured.idle,
            calibration=measured.calibration,
            ledger_url=measured.record.url,
        )

    def plus(self, later: MonitoredRuns) -> MonitoredRuns:
        """Return these runs and later ones."""
        return MonitoredRuns(
            runs=(*self.runs, *later.runs),
            windows=(*self.windows, *later.windows)[-KEPT_WINDOWS:],
            sources=later.sources,
            idle=later.idle,
            calibration=later.calibration,
            ledger_url=later.ledger_url,
        )

    def total(self, stage: str | None = None) -> WindowTotal:
        """Return the sum over all runs, or over those of one stage."""
        totals = (run.total for run in self.runs if stage in (None, run.stage))
        return sum(totals, start=WindowTotal())


NO_RUNS = MonitoredRuns()
