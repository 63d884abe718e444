"""CPU and RAM through CodeCarbon's hardware models, without its tracker.

CodeCarbon's tracker drops the energy used between tasks, writes files and queries the network. Here
a thread sets up its hardware models once. They are read every second and at each reading, so that
no energy between two readings is lost.
"""

from __future__ import annotations

import dataclasses
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
_J_PER_KWH = 3.6e6
# The kernel counts a CPU's load in ticks of 10 ms: more frequent reads would show no load.
_MIN_INTERVAL_S = 0.1
# As often as CodeCarbon's tracker samples the load: the cube of a mean is not the mean of cubes.
# A RAPL counter wraps after some minutes, so it has to be read during an epoch too.
_INTERVAL_S = 1.0


class CodeCarbonMeter:
    """Measure CPU and RAM of this machine with CodeCarbon's hardware models.

    If RAPL is readable the CPU is measured by a hardware counter. Else CodeCarbon's estimate from
    the CPU's load and rated power is used and labelled ``estimated``, as RAM always is. The figures
    are those of the whole machine.

    A thread sets up the hardware models, so neither ``start`` nor ``read`` waits. Until the thread
    is done a reading is 0 J, as a counter's is between two ticks. The first reading after that has
    all joules since the start. ``sources`` waits: to get the last joule of a short run, read it
    before the last reading.

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
        self._started_s = self._last_s = 0.0
        # Start of a part's next energy, if that is not the last reading.
        self._counted_from_s: dict[str, float] = {}
        self._energy_j: dict[str, float] = {}
        self._power_w: dict[str, float] = {}
        self._reported_j: dict[str, float | None] = {}

    @property
    def sources(self) -> tuple[Source, ...]:
        """``cpu`` and ``ram``, once they are set up; empty before the start."""
        if self._thread is not None:
            self._ready.wait()
        note = self._shared_note()
        return tuple(
            dataclasses.replace(source, note=f"{source.note}; {note}")
            if note and source.name == "cpu"
            else source
            for source in self._sources
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
        self._started_s = self._last_s = self._clock()
        self._energy_j, self._power_w = {}, {}
        self._reported_j = dict.fromkeys(_NAMES, 0.0)
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
            if not self._power_w or now_s - self._last_s >= _MIN_INTERVAL_S:
                self._advance(now_s)
            for name, power_w in self._power_w.items():
                # Extrapolate the last power; a reported figure never falls.
                reported_j = self._reported_j[name]
                if reported_j is not None:
                    joules = self._energy_j[name] + power_w * (now_s - self._last_s)
                    self._reported_j[name] = max(reported_j, joules)
            return Reading(duration_s=now_s - self._started_s, energy_j=dict(self._reported_j))

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
                stop.wait(_MIN_INTERVAL_S)  # a counter's first power needs some time
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
                    self._advance(self._clock())
            except Exception as error:  # the next reading will raise it
                _log.debug("CodeCarbon's models could not be read: %s", error)

    def _advance(self, now_s: float) -> None:
        """Add the energy of every part since it was read last."""
        elapsed_s = now_s - self._last_s
        for name, part in self._parts.items():
            counted_s = now_s - self._counted_from_s.get(name, self._last_s)
            if counted_s <= 0:
                return
            _, energy = part.hardware.measure_power_and_energy(counted_s)
            if part.missed:
                self._reported_j[name] = None  # unknown from a missing read on
            # The time before a counter was set up is charged with its first power.
            power_w = energy.kWh * _J_PER_KWH / counted_s
            self._power_w[name] = power_w
            self._energy_j[name] = self._energy_j.get(name, 0.0) + power_w * elapsed_s
        if self._parts:
            self._last_s = now_s
            self._counted_from_s = {}

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
