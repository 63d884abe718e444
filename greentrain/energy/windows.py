"""Record nested windows of energy, with no joule counted twice."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from greentrain.energy.energy_total import EnergyTotal, energy_html
from greentrain.energy.meter import NOTHING, Meter, Reading, Source
from greentrain.energy.steady_clock import steady_clock
from greentrain.errors import GreentrainError
from greentrain.texts import get_logger

_log = get_logger(__name__)
_MOST_SPANS = 512
"""Times between inner phases that a window keeps at most; more are joined in pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(EnergyTotal):
    """Energy used during one phase, without the phases inside it.

    Args:
        phase: Name of the phase: ``"train_epoch"``, ``"validation"``, ``"probe"``, ...
        started: When it began, in UTC.
        ended: When it ended, in UTC; phases inside it lie in between.
        reading: Seconds and joules by source.
        epoch: The epoch, if there is one.
        reservation_id: The reservation that pays for it, if there is one.
        spans: The times between phases inside it, in order; empty if they are not known.
    """

    phase: str
    started: datetime
    ended: datetime
    reading: Reading
    epoch: int | None = None
    reservation_id: str | None = None
    spans: tuple[tuple[datetime, datetime], ...] = ()

    @property
    def total_j(self) -> float | None:
        """Joules of all measured sources; ``None`` if there is none."""
        return self.reading.total_j

    def _repr_html_(self) -> str:
        epoch = "" if self.epoch is None else f" {self.epoch}"
        return energy_html(f"{self.phase}{epoch}: {self.reading}", self.reading.energy_j)


@dataclass(slots=True)
class _Frame:
    phase: str
    epoch: int | None
    started: datetime
    reservation_id: str | None = None
    used: Reading = NOTHING
    spans: list[tuple[datetime, datetime]] = field(default_factory=list)
    # Earlier and later reading of each span whose joules are late.
    unknown: list[tuple[Reading, Reading]] = field(default_factory=list)

    def add_span(self, start: datetime, end: datetime) -> None:
        """Add a time in which no phase inside this one was open."""
        if end > start:
            self.spans.append((start, end))
        if len(self.spans) >= _MOST_SPANS:
            pairs = zip(self.spans[::2], self.spans[1::2], strict=True)
            # The later one moves to the end of the earlier one, so that no time is added.
            self.spans = [(first[0], first[1] + (last[1] - last[0])) for first, last in pairs]


class WindowRecorder:
    """Read a meter at the edges of nested phases, and pass on one window for each phase.

    A phase inside another interrupts it, so the windows are disjoint and sum to the energy used
    while any phase was open. Energy used outside all phases is left out. Phases are opened and
    closed by one thread; :meth:`open_windows` may be called from another.

    Args:
        meter: A started meter.
        *sinks: Called with each window as it closes; have to be quick. A ``GreentrainError`` that
            they raise is logged once and does not stop anything.
        now: Returns the present time in UTC. By default the system's time when the outermost phase
            began, and the seconds since then: windows are in order if the system's clock is set.

    Example:
        >>> from greentrain.energy.constant import ConstantMeter
        >>> seconds = [0.0]
        >>> meter = ConstantMeter(10.0, clock=lambda: seconds[0])
        >>> meter.start()
        >>> windows = []
        >>> recorder = WindowRecorder(meter, windows.append)
        >>> with recorder.phase("fit"):
        ...     seconds[0] = 1.0
        ...     with recorder.phase("validation"):
        ...         seconds[0] = 4.0
        >>> [(window.phase, window.reading.total_j) for window in windows]
        [('validation', 30.0), ('fit', 10.0)]
    """

    def __init__(
        self,
        meter: Meter,
        *sinks: Callable[[Window], None],
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.meter = meter
        self.reservation_id: str | None = None
        self.sinks = list(sinks)
        self._given_now = now
        self._now = now or steady_clock()
        self._frames: list[_Frame] = []
        self._since = datetime.min  # when the innermost phase began, or went on
        self._edge: Reading | None = None
        self._warned: set[str] = set()
        self._lock = threading.RLock()

    def read(self) -> Reading:
        """Read the meter; if it fails, everything is unknown and one warning is logged.

        Joules that are no number are unknown, too. Seconds never go back.
        """
        try:
            reading = _plain(self.meter.read())
        except Exception as error:  # a failing meter never stops training
            self._warn("meter", f"the meter failed and its figures are unknown: {error}")
            last = self._edge or NOTHING
            return Reading(duration_s=last.duration_s, energy_j=dict.fromkeys(last.energy_j))
        if not reading.duration_s >= (earliest_s := self._edge.duration_s if self._edge else 0.0):
            self._warn("seconds", "the meter's seconds went back, so they are taken as 0")
            reading = dataclasses.replace(reading, duration_s=earliest_s)
        return self._without(reading, lambda joules: not math.isfinite(joules))

    @property
    def sources(self) -> tuple[Source, ...]:
        """The meter's sources; empty, with one warning, if it cannot name them."""
        try:
            return tuple(self.meter.sources)
        except Exception as error:  # a failing meter never stops training
            self._warn("sources", f"the meter's sources are unknown: {error}")
            return ()

    def enter(self, phase: str, *, epoch: int | None = None) -> None:
        """Begin a phase, interrupting the one that is open."""
        with self._lock:
            if not self._frames:
                self._now = self._given_now or steady_clock()
            self._cut()
            now = self._now()
            if self._frames:
                self._frames[-1].add_span(self._since, now)
            self._frames.append(_Frame(phase, epoch, now, self.reservation_id))
            self._since = now

    def leave(self) -> Window:
        """End the open phase and pass its window on.

        Wait for a meter that is still being set up; the time of waiting is not in the window.
        """
        with self._lock:
            self._cut()
            ended = self._now()
            self._frames[-1].add_span(self._since, ended)
            self._since = ended
        if self._edge is not None and self._edge.late:
            self._wait_for_sources()
        with self._lock:
            if self._edge is not None and self._edge.late:
                self._spread(self.read())
            window = self._window(self._frames.pop(), ended)
        for sink in self.sinks:
            try:
                sink(window)
            except GreentrainError as error:  # a failing sink never stops training
                self._warn("sink", f"a window could not be recorded: {error}")
        return window

    @contextmanager
    def phase(self, phase: str, *, epoch: int | None = None) -> Iterator[None]:
        """Open a phase for a block; phases left open inside it are closed with it."""
        self.enter(phase, epoch=epoch)
        depth = len(self._frames)
        try:
            yield
        finally:
            self.leave_to(depth - 1)

    def leave_to(self, depth: int) -> None:
        """Close phases until only ``depth`` of them are open."""
        while len(self._frames) > depth:
            self.leave()

    def used(self, depth: int = 0) -> Reading:
        """Return the energy that the open phases beyond ``depth`` have used up to now."""
        return total(self.open_windows()[depth:])

    def open_windows(self) -> list[Window]:
        """Return the windows of the open phases as if they ended now, the outermost first."""
        with self._lock:
            if not self._frames or self._edge is None:
                return []
            now, reading = self._now(), self.read()
            if self._edge.late and not reading.late:
                self._spread(reading)
            windows = [self._window(frame, now) for frame in self._frames]
            last = windows[-1].reading + self._difference(reading, self._edge)
            spans = (*windows[-1].spans, (self._since, now))
            windows[-1] = dataclasses.replace(windows[-1], reading=last, spans=spans)
            return windows

    @property
    def depth(self) -> int:
        """Number of open phases."""
        return len(self._frames)

    def _window(self, frame: _Frame, ended: datetime) -> Window:
        return Window(
            phase=frame.phase,
            started=frame.started,
            ended=ended,
            reading=functools.reduce(
                operator.add,
                (self._difference(later, earlier) for earlier, later in frame.unknown),
                frame.used,
            ),
            epoch=frame.epoch,
            reservation_id=frame.reservation_id,
            spans=tuple(frame.spans),
        )

    def _wait_for_sources(self) -> None:
        try:
            _ = self.meter.sources
        except Exception as error:  # the next reading shows the unknown sources
            _log.debug("the meter's sources are unknown: %s", error)

    def _cut(self) -> None:
        reading = self.read()
        if self._edge is not None:
            if self._edge.late and not reading.late:
                self._spread(reading)
            if self._frames and reading.late:
                self._frames[-1].unknown.append((self._edge, reading))
            elif self._frames:
                self._frames[-1].used += self._difference(reading, self._edge)
            # After a fall the next rise may be the way back: it is no joule that was used.
            fallen = [name for name, j in (reading - self._edge).energy_j.items() if (j or 0.0) < 0]
            energy_j = {**reading.energy_j, **dict.fromkeys(fallen)}
            reading = dataclasses.replace(reading, energy_j=energy_j)
        self._edge = reading

    def _spread(self, known: Reading) -> None:
        """Share out late joules by time: to the spans of open phases, and before the last edge.

        Joules that are still late are unknown: their source did not come after waiting for it.
        """
        energy_j = {**known.energy_j, **dict.fromkeys(known.late)}
        known = dataclasses.replace(known, energy_j=energy_j, late=frozenset())
        for frame in self._frames:
            for earlier, later in frame.unknown:
                frame.used += self._difference(later.spread(known), earlier.spread(known))
            frame.unknown.clear()
        if self._edge is not None:
            self._edge = self._edge.spread(known)

    def _difference(self, reading: Reading, earlier: Reading) -> Reading:
        """Return what was used between two readings; joules that fell are unknown."""
        return self._without(reading - earlier, lambda joules: joules < 0)

    def _without(self, reading: Reading, wrong: Callable[[float], bool]) -> Reading:
        names = [name for name, j in reading.energy_j.items() if j is not None and wrong(j)]
        if not names:
            return reading
        self._warn(
            "joules",
            f"the meter's joules fell or are no number, so they are unknown: {', '.join(names)}",
        )
        return dataclasses.replace(reading, energy_j={**reading.energy_j, **dict.fromkeys(names)})

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _log.warning("%s", message)


def _plain(reading: Reading) -> Reading:
    """Return a reading with plain numbers: some meters give NumPy's or torch's; text is NaN."""
    return dataclasses.replace(
        reading,
        duration_s=float(reading.duration_s),
        energy_j={
            str(name): None if joules is None else _number(joules)
            for name, joules in reading.energy_j.items()
        },
    )


def _number(joules: object) -> float:
    try:
        return math.nan if isinstance(joules, (str, bytes)) else float(joules)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def total(windows: Iterable[Window]) -> Reading:
    """Sum up windows.

    Example:
        >>> total([]).total_j is None
        True
    """
    return functools.reduce(operator.add, (window.reading for window in windows), NOTHING)
