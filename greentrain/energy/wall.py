"""Measure a whole node at the wall: through a PDU, Redfish, SLURM, or a logged meter."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from os import PathLike

from greentrain.energy._wall_input import (
    TIMEOUT_S,
    CommandInput,
    FileInput,
    Unit,
    open_input,
    run_command,
)
from greentrain.energy._wall_series import MAX_GAP, EnergySeries
from greentrain.energy.boundary import NODE
from greentrain.energy.meter import Reading, Source
from greentrain.errors import ConfigurationError
from greentrain.texts import get_logger
from greentrain.units import utc_now

_log = get_logger(__name__)

_SILENT_S = 600.0
_SILENT_INTERVALS = 10.0


class WallMeter:
    r"""Read the whole node's energy at the wall every few seconds, in a thread.

    The source is a CSV file that a logger appends to, or a command that prints a sample. A file has
    a column of times: ``datetime_utc`` (ISO 8601 with a zone) or ``unix_s``. Its column of samples
    is a cumulative counter (``energy_j``, ``energy_wh``, ``energy_kwh``) or ``power_w``, which is
    integrated by the trapezoidal rule. Rows from before the start are kept, so past spans can be
    queried.

    Samples at the wall lag. :meth:`read` returns the seconds and joules up to the last sample, not
    to this moment. :meth:`energy_between` returns the joules from one time to another, which
    calibrate a software meter. The node includes its cards, CPU and RAM, so compare this meter with
    others and never add it to them.

    A counter that shows the same as before has not been updated, so a counter with coarse steps is
    interpolated from step to step. A counter that falls has restarted: joules over the restart are
    unknown, and so is :meth:`read` from then on. Power is not integrated over a gap of more than
    two and a half sampling intervals.

    Args:
        source: The path of a file, or a command as a list of the program and its arguments; no
            shell is involved. Keep passwords out of it: other users see a command's arguments.
        unit: ``"J"``, ``"Wh"``, ``"kWh"`` (a counter) or ``"W"``; for a file by default as the
            column's name implies.
        column: The file's column of samples, if its name is another or there are several.
        pattern: A regular expression with one group that finds the number in the command's output;
            by default the first separate number is read.
        interval_s: Seconds between two polls of the source.
        relative_uncertainty: Standard uncertainty of the wall's own figure as a share of it, from
            its data sheet; ``None`` if it is unknown.
        reference: Origin of that uncertainty.
        device: Model of the meter.
        now: Returns the present time in UTC.
        wait: Waits on an event for some seconds and returns ``True`` if it was set; tests with a
            fake clock pass their own.
        run: Runs a command and returns its output.

    Raises:
        ConfigurationError: If an argument is not allowed; on ``start``, if the file is missing or
            has another form.

    Example:
        >>> from datetime import UTC, datetime
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "pdu.csv"
        >>> _ = path.write_text("unix_s,energy_wh\n0,100\n60,105\n120,110\n")
        >>> wall = WallMeter(path)
        >>> wall.start()
        >>> begin, end = datetime.fromtimestamp(30, UTC), datetime.fromtimestamp(120, UTC)
        >>> wall.energy_between(begin, end)  # 2.5 and 5 Wh
        27000.0
        >>> wall.close()
    """

    def __init__(
        self,
        source: str | PathLike[str] | Sequence[str],
        *,
        unit: Unit | None = None,
        column: str | None = None,
        pattern: str | None = None,
        interval_s: float = 10.0,
        relative_uncertainty: float | None = None,
        reference: str = "",
        device: str = "",
        now: Callable[[], datetime] = utc_now,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        run: Callable[[Sequence[str]], str] = run_command,
    ) -> None:
        if not (math.isfinite(interval_s) and interval_s > 0):
            raise ConfigurationError(
                f"interval_s is {interval_s!r}; it must be in seconds, above 0"
            )
        self._open_input = functools.partial(
            open_input, source, unit=unit, column=column, pattern=pattern, now=now, run=run
        )
        self._input = self._open_input()
        self._series = EnergySeries(sampled=False)
        self._described = Source(
            name=NODE,
            method="counter",
            relative_uncertainty=relative_uncertainty,
            device=device,
            reference=reference,
        )
        self._poll_s = interval_s
        self._now = now
        self._wait = wait
        self._lock = threading.Lock()
        self._polling = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._first = 0
        self._warned: set[str] = set()

    @property
    def sources(self) -> tuple[Source, ...]:
        """One source, ``node``; empty until the start if only a file's header has the unit."""
        with self._lock:
            if self._input.unit is None:
                return ()
            every_s = self._series.interval_s
            note = self._input.label + ("" if every_s is None else f", about every {every_s:.3g} s")
            if self._series.restarts:
                note += f"; restarts or jumps of the counter: {self._series.restarts}"
            if self._input.unit == "W":
                return (dataclasses.replace(self._described, method="sampled", note=note),)
            return (dataclasses.replace(self._described, note=note),)

    @property
    def interval_s(self) -> float | None:
        """Median seconds between two new samples; ``None`` before there are two."""
        with self._lock:
            return self._series.interval_s

    def start(self) -> None:
        """Read the first samples and begin to poll for more; harmless while it runs.

        Raises:
            ConfigurationError: If the file is missing or has another form.
            MeterError: If the command fails, or the file cannot be read.
        """
        if self._thread is not None:
            return
        source = self._open_input()
        samples = source.poll()
        if source.skipped and not samples:
            raise ConfigurationError(source.skipped)
        series = EnergySeries(sampled=source.unit == "W")
        for sample in samples:
            series.add(*sample)
        count = len(series.times_s)
        fresh_s = MAX_GAP * max(series.interval_s or 0.0, self._poll_s)
        fresh = count > 0 and self._now().timestamp() - series.times_s[-1] <= fresh_s
        with self._lock:
            self._input, self._series, self._first = source, series, count - 1 if fresh else count
            self._warned.clear()
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._watch,
                args=(self._stop, source, series),
                name="greentrain-wall",
                daemon=True,
            )
        self._thread.start()

    def read(self) -> Reading:
        """Return the seconds and joules from the start to the last sample.

        Joules are ``None`` before there is a sample that is not stale, over a restart or a gap,
        and if nothing new arrived for ten minutes and ten intervals.
        """
        with self._lock:
            found = self._series.since(self._first)
            if found is None:
                return Reading(duration_s=0.0, energy_j={NODE: None})
            duration_s, energy_j = found
            silent_s = self._now().timestamp() - self._series.times_s[-1]
            longest_s = max(_SILENT_S, _SILENT_INTERVALS * (self._series.interval_s or 0.0))
        if silent_s > longest_s:
            self._warn("silent", f"nothing new from {self._input.label} for {silent_s:.0f} s")
            energy_j = None
        return Reading(duration_s=duration_s, energy_j={NODE: energy_j})

    def energy_between(self, start: datetime, end: datetime) -> float | None:
        """Return the joules of the node from one time to another.

        Between two samples, and up to one and a half sampling intervals before the first or after
        the last, power is assumed constant.

        Args:
            start: The beginning, with a time zone.
            end: The end, not before it.

        Returns:
            Joules; ``None`` beyond the samples, and over a restart or a gap.

        Raises:
            ConfigurationError: If a time has no zone, or the end is before the start.
        """
        if start.tzinfo is None or end.tzinfo is None or end < start:
            raise ConfigurationError(
                f"energy was requested from {start!r} to {end!r}; both need a time zone, and the "
                "end is not before the start"
            )
        with self._lock:
            return self._series.between(start.timestamp(), end.timestamp())

    def poll(self) -> None:
        """Poll for samples now; failures are logged once. Harmless while it does not run."""
        with self._lock:
            source, series, thread = self._input, self._series, self._thread
        if thread is not None:
            self._poll(source, series)

    def close(self) -> None:
        """Poll a last time and stop; the samples are kept until the next start."""
        with self._lock:
            thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join(2.0 * TIMEOUT_S)  # a command that hangs must not hang the end of training

    def _watch(
        self, stop: threading.Event, source: FileInput | CommandInput, series: EnergySeries
    ) -> None:
        while not self._wait(stop, self._poll_s):
            self._poll(source, series)
        self._poll(source, series)

    def _poll(self, source: FileInput | CommandInput, series: EnergySeries) -> None:
        try:
            with self._polling:
                samples = source.poll()
                with self._lock:
                    for sample in samples:
                        series.add(*sample)
            if source.skipped:
                self._warn("skipped", source.skipped)
        except Exception as error:  # a failing meter never stops training
            self._warn("failed", f"no reading at the wall: {error}")

    def _warn(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            _log.warning("WallMeter: %s", message)
