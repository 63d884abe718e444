"""CPU and RAM through CodeCarbon's hardware models, without its tracker.

CodeCarbon's tracker drops the energy used between tasks, writes files and queries the network. Here
a thread sets up its hardware models once. They are read every second and at each reading, so that
no energy between two readings is lost.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

from greentrain.energy._codecarbon_hardware import HardwarePart, set_up
from greentrain.energy.cgroup import CpuShare
from greentrain.energy.meter import Reading, Source
from greentrain.errors import MeterError
from greentrain.texts import get_logger

_log = get_logger(__name__)

_NAMES = ("cpu", "ram")
_FIRST_S = 0.1
# A counter that cannot be read is bridged with its last power for so long, and then unknown.
_MAX_GAP_S = 10.0
# Joules beyond the ceiling wait for the next reading, up to what the ceiling gives in this time.
# A counter that is read every 10 ms is no further behind.
_BEHIND_S = 0.1
# As often as CodeCarbon's tracker samples the load: the cube of a mean is not the mean of cubes.
# A RAPL counter wraps after some minutes, so it has to be read during an epoch too.
_INTERVAL_S = 1.0


class CodeCarbonMeter:
    """Measure CPU and RAM of this machine with CodeCarbon's hardware models.

    If RAPL is readable the CPU is measured by a hardware counter. Else CodeCarbon's estimate from
    the CPU's load and rated power is used and labelled ``estimated``, as RAM always is. The figures
    are those of the whole machine.

    A thread sets up the hardware models, so neither ``start`` nor ``read`` waits. Until the thread
    is done, a reading names both sources as ``late``. The first reading after that has all joules
    since the start. ``sources`` waits: to get the last joule of a short run, read it before the
    last reading.

    A counter goes on while it cannot be read. Its last power is assumed for up to ten seconds;
    then it is unknown. Once it can be read again, its joules are exact, and the source's note
    names the gap. A counter that is reset, as after a suspend, loses joules. Its last power is
    assumed for them, for up to ten seconds; else it is unknown until the meter is closed.

    Args:
        clock: Returns seconds.
        root: Root of the file system with ``/proc`` and ``/sys``.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.perf_counter, root: Path = Path("/")
    ) -> None:
        self._clock = clock
        self._root = root
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._share: CpuShare | None = None
        self._error: Exception | None = None
        self._parts: dict[str, HardwarePart] = {}
        self._sources: tuple[Source, ...] = ()
        self._started_s = 0.0
        # By part: the time up to which joules are known, and the start of a counter's first joules.
        self._last_s: dict[str, float] = {}
        self._counted_from_s: dict[str, float] = {}
        self._energy_j: dict[str, float] = {}
        self._power_w: dict[str, float] = {}
        # Joules of the last reading, and its time.
        self._reported: dict[str, tuple[float, float]] = {}
        # Start of a gap in which a counter cannot be read, and the seconds of all gaps.
        self._gap_from_s: dict[str, float] = {}
        self._gaps_s = 0.0
        # Seconds of joules that a reset has lost; the parts that are unknown since a reset.
        self._reset_s = 0.0
        self._lost: set[str] = set()
        # Parts with a gap since their last reading, and parts that exceeded their ceiling.
        self._after_gap: set[str] = set()
        self._exceeded: set[str] = set()

    @property
    def sources(self) -> tuple[Source, ...]:
        """``cpu`` and ``ram``, once they are set up; empty before the start."""
        if self._thread is not None:
            self._ready.wait()
        notes = (self._gap_note(), self._reset_note(), self._shared_note())
        sources = (
            dataclasses.replace(source, max_power_w=None)
            if source.name in self._exceeded
            else source
            for source in self._sources
        )
        return tuple(
            dataclasses.replace(
                source,
                note="; ".join(filter(None, [source.note, *notes])),
                job_share=None if self._share is None else self._share.job_share(),
            )
            if source.name == "cpu"
            else source
            for source in sources
        )

    @property
    def cgroup_share(self) -> float | None:
        """Share of the host's busy CPU time that this process's cgroup used since the start.

        It estimates this job's part on a shared host, from 0 to 1; no figure is divided by it.
        ``None`` in the root cgroup, before the start, and if it is unknown.
        """
        return None if self._share is None else self._share.share()

    def start(self) -> None:
        """Begin at zero; harmless while it runs."""
        if self._thread is not None:
            return
        self._error = None
        self._share = CpuShare(self._root)
        self._started_s = self._clock()
        self._last_s = dict.fromkeys(_NAMES, self._started_s)
        self._energy_j, self._power_w = dict.fromkeys(_NAMES, 0.0), {}
        self._reported = dict.fromkeys(_NAMES, (0.0, self._started_s))
        self._gap_from_s, self._gaps_s = {}, 0.0
        self._reset_s, self._lost = 0.0, set()
        self._after_gap, self._exceeded = set(), set()
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="greentrain-codecarbon", daemon=True
        )
        self._thread.start()

    def read(self) -> Reading:
        """Return the joules of CPU and RAM since the start, up to the present estimate.

        Raises:
            MeterError: If CodeCarbon could not be set up.
        """
        with self._lock:
            if self._error is not None:
                raise MeterError(f"CodeCarbon could not be set up: {self._error}")
            if self._thread is None:
                return Reading(duration_s=0.0, energy_j=dict.fromkeys(_NAMES))
            now_s = self._clock()
            for name, part in self._parts.items():
                elapsed_s = now_s - self._last_s[name]
                if name not in self._power_w or elapsed_s >= part.min_interval_s:
                    self._advance(name, part, now_s)
            return Reading(
                duration_s=now_s - self._started_s,
                energy_j={name: self._estimate_j(name, now_s) for name in _NAMES},
                late=frozenset(_NAMES) - self._power_w.keys(),
            )

    def close(self) -> None:
        """Stop measuring, and wait for the thread."""
        thread = self._thread
        if thread is not None:
            self._stop.set()
            thread.join()
        with self._lock:
            self._thread = None
            self._share = None
            self._error = None
            self._parts = {}

    def _run(self, stop: threading.Event) -> None:
        try:
            parts = set_up(self._root)
            ready_s = self._clock()
            if any(part.counts_from_set_up for part in parts.values()):
                stop.wait(_FIRST_S)  # a counter's first power needs some time
            with self._lock:
                self._parts = parts
                self._sources = tuple(part.source for part in parts.values())
                self._counted_from_s = {
                    name: ready_s for name, part in parts.items() if part.counts_from_set_up
                }
        except Exception as error:  # raised by the next read: a failing meter never stops training
            with self._lock:
                self._error, self._sources = error, ()
            return
        finally:
            self._ready.set()
        if not all(part.quick for part in parts.values()):
            return
        while not stop.wait(_INTERVAL_S):
            try:
                with self._lock:
                    for name, part in self._parts.items():
                        self._advance(name, part, self._clock())
            except Exception as error:  # the next reading will raise it
                _log.debug("CodeCarbon's models could not be read: %s", error)

    def _advance(self, name: str, part: HardwarePart, now_s: float) -> None:
        """Add the energy of a part since it was read last."""
        last_s = self._last_s[name]
        counted_s = now_s - self._counted_from_s.get(name, last_s)
        if counted_s <= 0:
            return
        joules = part.used_j(counted_s)
        if joules is None:
            if name not in self._gap_from_s:
                self._gap_from_s[name] = last_s
                self._warn_of_gap()
            return
        if math.isnan(joules):
            joules = self._bridged_j(name, counted_s)
        # A tick of the counter more than the time: no power to assume for another time.
        most_w = math.inf if (limit_w := part.source.max_power_w) is None else limit_w
        self._power_w[name] = min(joules / counted_s, most_w)
        # The time before a counter was set up is charged with its first power.
        self._energy_j[name] += joules + self._power_w[name] * (now_s - last_s - counted_s)
        self._last_s[name] = now_s
        self._counted_from_s.pop(name, None)
        if (gap_from_s := self._gap_from_s.pop(name, None)) is not None:
            self._gaps_s += now_s - gap_from_s
            self._after_gap.add(name)

    def _estimate_j(self, name: str, now_s: float) -> float | None:
        """Return the joules of a part since the start; a reported figure never falls."""
        if name in self._lost or now_s - self._gap_from_s.get(name, now_s) > _MAX_GAP_S:
            return None
        if name in self._power_w:
            elapsed_s, part = now_s - self._last_s[name], self._parts[name]
            # With the last power, a rise of the load would show later as more than the rated power.
            power_w = part.power_w() if elapsed_s > 0 else None
            if power_w is None:
                power_w = self._power_w[name]
            joules = self._energy_j[name] + power_w * elapsed_s
            before_j, before_s = self._reported[name]
            most_w = part.source.max_power_w
            if most_w is not None and name not in self._exceeded:
                # A load and a counter are some milliseconds behind the clock.
                excess_j = joules - before_j - most_w * (now_s - before_s)
                if excess_j > most_w * _BEHIND_S:
                    if name in self._after_gap:  # too little was assumed for the gap
                        self._reported[name] = joules, now_s
                        self._after_gap.discard(name)
                        return None
                    self._exceeded.add(name)
                else:
                    joules -= max(excess_j, 0.0)
            self._after_gap.discard(name)
            self._reported[name] = max(before_j, joules), now_s
        return self._reported[name][0]

    def _bridged_j(self, name: str, seconds: float) -> float:
        """Return the joules to assume for a time in which a counter was reset."""
        if not self._reset_s:  # the first time
            _log.warning(
                "the CPU's energy counter was reset; its last power is assumed for the time since "
                "it was read, or its joules are unknown if that is more than %g s",
                _MAX_GAP_S,
            )
        self._reset_s += seconds
        if name not in self._power_w or seconds > _MAX_GAP_S:
            self._lost.add(name)
        return self._power_w.get(name, 0.0) * seconds

    def _warn_of_gap(self) -> None:
        if not self._gaps_s:  # the first of them
            _log.warning(
                "the CPU's energy counter cannot be read; its last power is assumed for %g s, and "
                "its joules are exact again once it can be read",
                _MAX_GAP_S,
            )

    def _gap_note(self) -> str:
        with self._lock:
            open_s = [self._clock() - since_s for since_s in self._gap_from_s.values()]
            gaps_s = self._gaps_s + sum(open_s)
        if not gaps_s:
            return ""
        return f"its counter could not be read for {gaps_s:.1f} s; a later reading has those joules"

    def _reset_note(self) -> str:
        if not self._reset_s:
            return ""
        after = "unknown since then" if self._lost else "its last power is assumed for that time"
        return f"its counter was reset, which lost {self._reset_s:.1f} s; {after}"

    def _shared_note(self) -> str:
        if self._share is None or not self._share.shared:
            return ""
        share = self._share.share()
        if share is None:
            return "shared: others on the host are included"
        return (
            "shared: others on the host are included; this process's cgroup had an estimated "
            f"{share:.0%} of the host's busy CPU time since the start, and nothing is divided by it"
        )
