"""Measure one fit, validation, test or prediction from its start to its end."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from greentrain.callbacks.fit_metrics import final_metrics
from greentrain.callbacks.messages import warn
from greentrain.callbacks.meter_lease import MeterLease
from greentrain.callbacks.ranks import gather, merge_readings
from greentrain.callbacks.run_record import RunRecord
from greentrain.carbon import CarbonAccount
from greentrain.energy import (
    NOTHING,
    Calibration,
    Meter,
    Reading,
    Source,
    WallMeter,
    Window,
    WindowRecorder,
    calibrate_windows,
)
from greentrain.errors import GreentrainError, MeterError
from greentrain.units import utc_now

KEPT_WINDOWS = 1000
"""Windows kept in memory; a longer fit needs no more memory."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WindowTotal:
    """Sum of the joules and grams of disjoint windows.

    Args:
        reading: Seconds and joules by source; a source that is unknown in one window is unknown.
        known_j: Sum of the known joules; ``None`` if no joules are known.
        grams: Grams of CO2 equivalent; ``None`` if the grams of one window are unknown.
    """

    reading: Reading = NOTHING
    known_j: float | None = None
    grams: float | None = 0.0

    def __add__(self, other: WindowTotal) -> WindowTotal:
        """Return the total of the windows of both."""
        known = [each.known_j for each in (self, other) if each.known_j is not None]
        return WindowTotal(
            reading=self.reading + other.reading,
            known_j=sum(known) if known else None,
            grams=None if self.grams is None or other.grams is None else self.grams + other.grams,
        )

    def __sub__(self, other: WindowTotal) -> WindowTotal:
        """Return what this later total has beyond an earlier one of the same windows."""
        return WindowTotal(
            reading=self.reading - other.reading,
            known_j=None if self.known_j is None else self.known_j - (other.known_j or 0.0),
            grams=None if self.grams is None or other.grams is None else self.grams - other.grams,
        )

    def plus(self, reading: Reading, grams: float | None) -> WindowTotal:
        """Return the total with one more window."""
        return self + WindowTotal(reading=reading, known_j=reading.total_j, grams=grams)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {
            "duration_s": self.reading.duration_s,
            "energy_j": dict(self.reading.energy_j),
            "known_j": self.known_j,
            "emissions_g": self.grams,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WindowTotal:
        """Return the total that :meth:`as_dict` was called on."""
        reading = Reading(duration_s=values["duration_s"], energy_j=values["energy_j"])
        return cls(reading=reading, known_j=values["known_j"], grams=values["emissions_g"])


class RunMeasurement:
    """Windows of all processes in one run of a Trainer, their total, and their record on disk.

    Args:
        trainer: The Trainer.
        meter: As for :class:`MeterLease`.
        carbon: Converts joules to grams.
        wall: A meter of the whole node, or ``None``.
        record: Record of the windows; closed with the measurement.

    Attributes:
        windows: The last closed windows, without the window of the idle machine.
        resumed: Total of the fit before a resume.
        new: The part of it that no earlier run of the same monitor counts.
        own: Total of all closed windows of this measurement.
        phase: The stage of the Trainer.
        name: Display name of the run.
        idle: Energy used while idle.
        calibration: Comparison of the windows with the wall meter.
        sources: The metered sources, known once the measurement is closed.
        lease: The shared meter.
        record: The record.
        better: As for :func:`greentrain.callbacks.fit_metrics.final_metrics`.
    """

    def __init__(
        self,
        trainer: Any,
        meter: Meter | WindowRecorder | None,
        carbon: CarbonAccount,
        wall: WallMeter | None,
        record: RunRecord,
    ) -> None:
        self.windows: deque[Window] = deque(maxlen=KEPT_WINDOWS)
        self.resumed, self.new, self.own = WindowTotal(), WindowTotal(), WindowTotal()
        self.phase = self.name = ""
        self.idle: Reading | None = None
        self.calibration: Calibration | None = None
        self.sources: tuple[Source, ...] = ()
        self._carbon = carbon
        self._wall = wall
        self.better: Mapping[str, str] = {}
        self._trainer: Any = trainer
        self.record = record
        self._alone = False
        self._open = True
        self._known_j: float | None = None
        try:
            self.lease = MeterLease(trainer, meter)
        except BaseException:
            record.close("failed")
            raise
        self._recorder = self.lease.recorder
        self._depth = self._recorder.depth
        self._recorder.sinks.append(self._add_window)
        self._began = utc_now()

    @property
    def closed(self) -> WindowTotal:
        """Total of all closed windows, including those before a resume."""
        return self.resumed + self.own

    @property
    def is_open(self) -> bool:
        """``True`` until the measurement ends."""
        return self._open

    def begin(self, phase: str, name: str, idle_s: float) -> None:
        """Open the outermost phase, after measuring the idle machine if requested.

        Args:
            phase: The stage of the Trainer.
            name: Display name of the run.
            idle_s: Seconds for which to measure the idle machine.

        Raises:
            LedgerError: If the run cannot be recorded in the ledger that was given.
            ConfigurationError: If the wall meter is configured wrongly.
        """
        self.phase, self.name = phase, name
        self.record.begin(phase, name, sources=self.lease.sources, beat=self._recorder.open_windows)
        if self.lease.setup is not None and not self.lease.within:
            self._add_window(self.lease.setup)
        if self._wall is not None:
            try:
                self._wall.start()
            except MeterError as error:  # a failing meter never stops training
                _warn_wall(error)
                self._wall = None
        if idle_s:
            with self._recorder.phase("idle"):
                time.sleep(idle_s)
        self._began = utc_now()
        self._recorder.enter(phase)

    def enter(self, phase: str, epoch: int | None = None) -> None:
        """Begin a phase, interrupting the open one."""
        if self._open:
            self._recorder.enter(phase, epoch=epoch)

    def leave(self) -> None:
        """End the open phase."""
        if self._open:
            self._recorder.leave()

    def open_window(self, phase: str) -> Window | None:
        """Return the energy that an open phase has used in all processes; every one has to call."""
        for window in self._recorder.open_windows():
            if window.phase == phase:
                return dataclasses.replace(window, reading=self._of_all(window.reading))
        return None

    def grams(self, window: Window) -> float | None:
        """Return the grams of a window."""
        return self._carbon.of(window).grams

    def so_far(self) -> WindowTotal:
        """Return the total of all processes up to now; every process has to call it."""
        so_far = self.closed
        if self._open and self._recorder.depth > self._depth:
            used = self._of_all(self._recorder.used(self._depth))
            grams = self._carbon.emissions(used.total_j, self._began, utc_now()).grams
            so_far = so_far.plus(used, grams)
        # A source that fails makes an open phase unknown; joules known before stay known.
        if so_far.known_j is None or (self._known_j or 0.0) > so_far.known_j:
            so_far = dataclasses.replace(so_far, known_j=self._known_j)
        self._known_j = so_far.known_j
        return so_far

    def close(self, status: str, *, alone: bool = False) -> bool:
        """End all phases, close the record and release the meter.

        Args:
            status: ``"completed"`` or ``"failed"``.
            alone: Whether other processes may not take part. Then nothing waits for them, and the
                energy of their sources is unknown.

        Returns:
            Whether the measurement was open.
        """
        if not self._open:
            return False
        self._alone = alone
        self._recorder.leave_to(self._depth)
        self._open = False
        self._recorder.sinks.remove(self._add_window)
        self.sources = self.lease.sources()
        if self._wall is not None:
            self._compare(self._wall)
        self.record.resumed_j = self.record.resumed_j or self.resumed.known_j
        if self.phase == "fit" and status == "completed" and self._knows_all():
            self.record.metrics = final_metrics(self._trainer, self.better)
        self._trainer = None  # a monitor that is kept must not keep the model
        self.record.close(status)
        self.lease.release()
        return True

    def _knows_all(self) -> bool:
        """Return whether the energy of the whole fit is known, also of that before a resume."""
        resumed = getattr(self._trainer, "ckpt_path", None) is not None
        return not resumed or self.record.resumed_j is not None

    def _add_window(self, window: Window) -> None:
        window = dataclasses.replace(window, reading=self._of_all(window.reading))
        if window.phase == "idle":
            self.idle = window.reading
        else:
            self.windows.append(window)
            self.own = self.own.plus(window.reading, self.grams(window))
        self.record.window(window)

    def _of_all(self, reading: Reading) -> Reading:
        if not self.lease.several:
            return reading
        if self._alone:
            unknown = dict.fromkeys(source.name for source in self.lease.others)
            return dataclasses.replace(reading, energy_j={**reading.energy_j, **unknown})
        return merge_readings(gather(reading))

    def _compare(self, wall: WallMeter) -> None:
        try:
            self.calibration = calibrate_windows(self.windows, wall)
            if self.calibration is not None:
                self.record.calibration(self.calibration)
        except GreentrainError as error:  # a failing meter never stops training
            _warn_wall(error)
        finally:
            wall.close()


def _warn_wall(error: GreentrainError) -> None:
    warn(f"EnergyMonitor: no comparison with the wall meter: {error}")
