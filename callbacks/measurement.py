"""One fit, validation, test or prediction, measured from its first moment to its last."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from greentrain.callbacks.meter_lease import Lease
from greentrain.callbacks.ranks import summed
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
"""Windows kept in memory: so many epochs that nobody looks at each, and no more in a long fit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Joules and grams of disjoint windows.

    Args:
        reading: Seconds and joules by source; a source that was ever unknown is.
        known_j: Joules that are known, whatever is missing beside them.
        grams: Grams of CO2 equivalent; ``None`` where any are unknown.
    """

    reading: Reading = NOTHING
    known_j: float | None = None
    grams: float | None = 0.0

    def plus(self, reading: Reading, grams: float | None) -> Sum:
        """Return this and one more window."""
        drawn_j = reading.total_j
        return Sum(
            reading=self.reading + reading,
            known_j=self.known_j if drawn_j is None else (self.known_j or 0.0) + drawn_j,
            grams=None if self.grams is None or grams is None else self.grams + grams,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {
            "duration_s": self.reading.duration_s,
            "energy_j": dict(self.reading.energy_j),
            "known_j": self.known_j,
            "emissions_g": self.grams,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sum:
        """Return the sum that :meth:`as_dict` told."""
        reading = Reading(duration_s=values["duration_s"], energy_j=values["energy_j"])
        return cls(reading=reading, known_j=values["known_j"], grams=values["emissions_g"])


class Measurement:
    """Windows of all processes, their sum, and their record on disk.

    Args:
        trainer: The Trainer.
        meter: As for :class:`Lease`.
        carbon: How joules become grams.
        wall: A meter of the whole node, or ``None``.
        record: Where windows are recorded, or ``None``; closed with the measurement.

    Attributes:
        windows: The last of those that are closed, without what the idle machine drew.
        closed: Their sum, and what a checkpoint brought.
        idle: What was drawn while idle.
        calibration: How the windows compare with the wall.
        sources: The metered things, once closed.
    """

    def __init__(
        self,
        trainer: Any,
        meter: Meter | WindowRecorder | None,
        carbon: CarbonAccount,
        wall: WallMeter | None,
        record: RunRecord | None,
    ) -> None:
        self.windows: deque[Window] = deque(maxlen=KEPT_WINDOWS)
        self.closed = Sum()
        self.idle: Reading | None = None
        self.calibration: Calibration | None = None
        self.sources: tuple[Source, ...] = ()
        self._carbon = carbon
        self._wall = wall
        self._alone = False
        self._open = True
        self._record = record
        self._known_j: float | None = None
        try:
            self.lease = Lease(trainer, meter)
        except BaseException:
            if record is not None:
                record.close("failed")
            raise
        self._recorder = self.lease.recorder
        self._depth = self._recorder.depth
        self._recorder.sinks.append(self._take)
        self._began = utc_now()

    def begin(self, phase: str, name: str, idle_s: float) -> None:
        """Open the outermost phase, after a look at the idle machine if one is asked for.

        Args:
            phase: The stage of the Trainer.
            name: What people call the run.
            idle_s: Seconds to look at the idle machine for.

        Raises:
            LedgerError: If the run cannot be recorded in a ledger that was asked for.
            ConfigurationError: If the wall meter is configured wrongly.
        """
        if self._record is not None and not self._record.begin(
            phase, name, sources=self.lease.sources, beat=self._recorder.open_windows
        ):
            self._record = None
        if self._wall is not None:
            try:
                self._wall.start()
            except MeterError as error:  # a failing meter never stops training
                rank_zero_warn(f"EnergyMonitor: no comparison with the wall: {error}")
                self._wall = None
        if idle_s:
            with self._recorder.phase("idle"):
                time.sleep(idle_s)
        self._began = utc_now()
        self._recorder.enter(phase)

    def enter(self, phase: str, epoch: int | None = None) -> None:
        """Begin a phase, interrupting the one that is open."""
        if self._open:
            self._recorder.enter(phase, epoch=epoch)

    def leave(self) -> None:
        """End the phase that is open."""
        if self._open:
            self._recorder.leave()

    def open_window(self, phase: str) -> Window | None:
        """Return what an open phase has drawn up to now, in all processes; each has to ask."""
        for window in self._recorder.open_windows():
            if window.phase == phase:
                return dataclasses.replace(window, reading=self._of_all(window.reading))
        return None

    def grams(self, window: Window) -> float | None:
        """Return the grams of a window."""
        return self._carbon.of(window).grams

    def so_far(self) -> Sum:
        """Return what was drawn up to now, in all processes; each of them has to ask."""
        so_far = self.closed
        if self._open and self._recorder.depth > self._depth:
            drawn = self._of_all(self._recorder.drawn(self._depth))
            grams = self._carbon.emissions(drawn.total_j, self._began, utc_now()).grams
            so_far = so_far.plus(drawn, grams)
        # A source that fails makes all of an open phase unknown; what was known once stays known.
        if so_far.known_j is None or (self._known_j or 0.0) > so_far.known_j:
            so_far = dataclasses.replace(so_far, known_j=self._known_j)
        self._known_j = so_far.known_j
        return so_far

    def close(self, status: str, *, alone: bool = False) -> bool:
        """End every phase, the record and the lease, and tell whether they were open.

        Args:
            status: ``"completed"`` or ``"failed"``.
            alone: Whether the other processes may be elsewhere, so that nothing waits for them and
                what they drew is unknown.
        """
        if not self._open:
            return False
        self._alone = alone
        self._recorder.leave_to(self._depth)
        self._open = False
        self._recorder.sinks.remove(self._take)
        self.sources = self.lease.sources()
        if self._wall is not None:
            self._compare(self._wall)
        if self._record is not None:
            self._record.close(status)
        self.lease.release()
        return True

    def _take(self, window: Window) -> None:
        window = dataclasses.replace(window, reading=self._of_all(window.reading))
        if window.phase == "idle":
            self.idle = window.reading
        else:
            self.windows.append(window)
            self.closed = self.closed.plus(window.reading, self.grams(window))
        if self._record is not None:
            self._record.window(window)

    def _of_all(self, reading: Reading) -> Reading:
        if not self.lease.several:
            return reading
        if self._alone:
            unknown = dict.fromkeys(source.name for source in self.lease.others)
            return dataclasses.replace(reading, energy_j={**reading.energy_j, **unknown})
        return summed(reading)

    def _compare(self, wall: WallMeter) -> None:
        try:
            self.calibration = calibrate_windows(self.windows, wall)
            if self._record is not None and self.calibration is not None:
                self._record.calibration(self.calibration)
        except GreentrainError as error:  # a failing meter never stops training
            rank_zero_warn(f"EnergyMonitor: no comparison with the wall: {error}")
        finally:
            wall.close()
