"""What the wall says of a whole node: a PDU, Redfish, SLURM, or a meter that someone logs."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import get_args

from greentrain.energy._wall_feed import (
    TIMEOUT_S,
    CommandFeed,
    Feed,
    FileFeed,
    Unit,
    run_command,
)
from greentrain.energy._wall_track import MAX_GAP, Track
from greentrain.energy.boundary import NODE
from greentrain.energy.meter import Method, Reading, Source
from greentrain.errors import ConfigurationError
from greentrain.units import utc_now

_log = logging.getLogger(__name__)

_SILENT_S = 600.0
_SILENT_INTERVALS = 10.0


class WallMeter:
    r"""Read what the wall says of the whole node, every few seconds, in a thread.

    The source is a CSV file that a logger appends to, or a command that prints a reading. A file
    has a column of times, ``datetime_utc`` (ISO 8601 with a zone) or ``unix_s``, and one of
    readings, ``energy_j``, ``energy_wh``, ``energy_kwh`` (a cumulative counter) or ``power_w``
    (integrated by the trapezoidal rule). Rows from before the start are kept too, so past spans can
    be asked for.

    A reading at the wall lags. :meth:`read` gives the seconds and joules up to the last reading,
    not to this moment; :meth:`energy_between` tells what was drawn from one time to another, and is
    what a software meter is calibrated with. The node holds its cards, CPU and RAM, so this meter
    is held beside others and never added to them.

    A counter that shows the same as before has not been updated, so one of coarse steps is
    interpolated from step to step. One that falls has restarted: what lies over the restart is
    unknown, and so is :meth:`read` from then on. Power is not integrated over a gap of more than
    two and a half sampling intervals.

    Args:
        source: The path of a file, or a command as a list of the program and its arguments; no
            shell is involved. Keep passwords out of it: other users see a command's arguments.
        unit: ``"J"``, ``"Wh"``, ``"kWh"`` (a counter) or ``"W"``; for a file by default as the
            column's name says.
        column: The file's column of readings, where its name is another or there are several.
        pattern: A regular expression with one group that finds the number in what a command
            prints; by default the first number that stands by itself.
        interval_s: Seconds between two looks at the source.
        relative_uncertainty: Standard uncertainty of the wall's own figure as a share of it, from
            its data sheet; ``None`` if you do not know it.
        reference: Where that uncertainty comes from.
        device: What the meter is.
        now: Gives the present time in UTC.
        wait: Waits on an event for some seconds and tells whether it was set; tests with a fake
            clock give their own.
        run: Runs a command and returns what it printed.

    Raises:
        ConfigurationError: If an argument is not allowed; on ``start``, if the file is missing or
            is not such a file.

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
        if unit is not None and unit not in get_args(Unit):
            raise ConfigurationError(
                f"unit is {unit!r}; allowed are {', '.join(get_args(Unit))}, or None for a file "
                "whose column's name tells it"
            )
        if not (math.isfinite(interval_s) and interval_s > 0):
            raise ConfigurationError(f"interval_s is {interval_s!r}; it is in seconds, above 0")

        def feed() -> Feed:
            if isinstance(source, (str, PathLike)):
                return FileFeed(Path(source), column=column, unit=unit)
            return CommandFeed(source, unit=unit, pattern=pattern, now=now, run=run)

        _check(source, column, pattern)
        self._new_feed = feed
        self._feed = feed()
        self._track = Track(sampled=False)
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
        """One source, ``node``; empty until the start where only a file's header tells the unit."""
        with self._lock:
            if self._feed.unit is None:
                return ()
            every = self._track.interval_s
            note = self._feed.label + ("" if every is None else f", about every {every:.3g} s")
            if self._track.restarts:
                note += f"; restarts or jumps of the counter: {self._track.restarts}"
            method: Method = "sampled" if self._feed.unit == "W" else "counter"
            return (dataclasses.replace(self._described, method=method, note=note),)

    @property
    def interval_s(self) -> float | None:
        """Median seconds between two readings that were news; ``None`` before there are two."""
        with self._lock:
            return self._track.interval_s

    def start(self) -> None:
        """Take a first reading and begin to look for more; harmless while it runs.

        Raises:
            ConfigurationError: If the file is missing or is not such a file.
            MeterError: If the command fails, or the file cannot be read.
        """
        if self._thread is not None:
            return
        feed = self._new_feed()
        samples = feed.poll()
        if feed.skipped and not samples:
            raise ConfigurationError(feed.skipped)
        track = Track(sampled=feed.unit == "W")
        for sample in samples:
            track.add(*sample)
        count = len(track.times_s)
        fresh_s = MAX_GAP * max(track.interval_s or 0.0, self._poll_s)
        fresh = count > 0 and self._now().timestamp() - track.times_s[-1] <= fresh_s
        with self._lock:
            self._feed, self._track, self._first = feed, track, count - 1 if fresh else count
            self._warned.clear()
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._watch,
                args=(self._stop, feed, track),
                name="greentrain-wall",
                daemon=True,
            )
        self._thread.start()

    def read(self) -> Reading:
        """Return the seconds and joules from the start to the last reading that came.

        Joules are ``None`` before there is a reading that is not stale, over a restart or a gap,
        and where nothing new came for ten minutes and ten intervals.
        """
        with self._lock:
            found = self._track.since(self._first)
            if found is None:
                return Reading(duration_s=0.0, energy_j={NODE: None})
            duration_s, energy_j = found
            silent_s = self._now().timestamp() - self._track.times_s[-1]
            longest_s = max(_SILENT_S, _SILENT_INTERVALS * (self._track.interval_s or 0.0))
        if silent_s > longest_s:
            self._warn("silent", f"nothing new from {self._feed.label} for {silent_s:.0f} s")
            energy_j = None
        return Reading(duration_s=duration_s, energy_j={NODE: energy_j})

    def energy_between(self, start: datetime, end: datetime) -> float | None:
        """Return the joules of the node from one time to another.

        Between two readings, and up to one and a half sampling intervals before the first or after
        the last, power is taken as even.

        Args:
            start: The beginning, with a time zone.
            end: The end, not before it.

        Returns:
            Joules; ``None`` where readings do not reach that far, and over a restart or a gap.

        Raises:
            ConfigurationError: If a time has no zone, or the end is before the start.
        """
        if start.tzinfo is None or end.tzinfo is None or end < start:
            raise ConfigurationError(
                f"energy was asked for from {start!r} to {end!r}; both need a time zone, and the "
                "end is not before the start"
            )
        with self._lock:
            return self._track.between(start.timestamp(), end.timestamp())

    def poll(self) -> None:
        """Look for readings now; what fails is warned of once. Harmless while it does not run."""
        with self._lock:
            feed, track, thread = self._feed, self._track, self._thread
        if thread is not None:
            self._look(feed, track)

    def close(self) -> None:
        """Look a last time, and stop; what is known stays known until the next start."""
        with self._lock:
            thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join(2.0 * TIMEOUT_S)  # a command that hangs must not hang the end of training

    def _watch(self, stop: threading.Event, feed: Feed, track: Track) -> None:
        while not self._wait(stop, self._poll_s):
            self._look(feed, track)
        self._look(feed, track)

    def _look(self, feed: Feed, track: Track) -> None:
        try:
            with self._polling:
                samples = feed.poll()
                with self._lock:
                    for sample in samples:
                        track.add(*sample)
            if feed.skipped:
                self._warn("skipped", feed.skipped)
        except Exception as error:  # a failing meter never stops training
            self._warn("failed", f"no reading at the wall: {error}")

    def _warn(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            _log.warning("WallMeter: %s", message)


def _check(source: object, column: str | None, pattern: str | None) -> None:
    """Refuse a source that is neither, and options of the other kind of source."""
    if isinstance(source, (str, PathLike)):
        if pattern is not None:
            raise ConfigurationError(
                f"pattern is {pattern!r} and the source is the file {str(source)!r}; a pattern is "
                "for a command, give column= for a file"
            )
        return
    words = isinstance(source, Sequence) and all(isinstance(word, str) for word in source)
    if not words or not source:
        raise ConfigurationError(
            f"source is {source!r}; give the path of a CSV file, or a command as a list of texts"
        )
    if column is not None:
        raise ConfigurationError(
            f"column is {column!r} and the source is a command; a column is for a file, give "
            "pattern= for a command"
        )
