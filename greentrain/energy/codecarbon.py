"""CPU and RAM through CodeCarbon: the one module that touches it.

CodeCarbon's tracker keeps what it draws between tasks to itself, writes files and asks the network.
Its hardware models are what is wanted here: they are set up by its ``ResourceTracker``, given a
plain namespace in place of the tracker, and asked for their energy at each reading, so that nothing
drawn between two readings is lost. The contract with CodeCarbon is held by
``tests/energy/test_codecarbon.py``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from tempfile import gettempdir
from types import SimpleNamespace
from typing import Any

from greentrain.energy.meter import Method, Reading, Source
from greentrain.errors import MeterError

_J_PER_KWH = 3.6e6
# The kernel counts a CPU's load in ticks of 10 ms: asked more often than this, it tells nothing.
_MIN_INTERVAL_S = 0.1
_REFERENCE = (
    "Fischer 2025, arXiv:2509.22092: errors of up to 40 % against a wall meter; "
    "half of that is taken as the standard uncertainty"
)
_RAPL_REFERENCE = (
    "RAPL counters lie within a few per cent of the package's power (Khan et al. 2018)"
)


class CodeCarbonMeter:
    """Measure CPU and RAM of this machine with CodeCarbon's hardware models.

    Where RAPL is readable the CPU is a hardware counter; elsewhere CodeCarbon's estimate from the
    CPU's load and rated power is used and labelled ``estimated``, as RAM always is. The figures are
    those of the whole machine. CodeCarbon takes over a second to identify the CPU, so ``start``
    returns at once and leaves that to a thread; the first ``read`` waits for it, and charges the
    time until then with the first power that is known.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._setup: threading.Thread | None = None
        self._error: Exception | None = None
        self._parts: dict[str, Any] = {}
        self._sources: tuple[Source, ...] = ()
        self._started_s = self._last_s = 0.0
        self._energy_j: dict[str, float] = {}
        self._told_j: dict[str, float] = {}
        self._power_w: dict[str, float] = {}

    @property
    def sources(self) -> tuple[Source, ...]:
        """``cpu`` and ``ram``; waits for the set-up, and is empty before the start."""
        self._wait()
        return self._sources

    def start(self) -> None:
        """Begin at zero; harmless while it runs."""
        if self._setup is not None:
            return
        self._error = None
        self._started_s = self._last_s = self._clock()
        self._energy_j, self._told_j, self._power_w = {}, {}, {}
        self._setup = threading.Thread(target=self._prepare, name="greentrain-codecarbon")
        self._setup.daemon = True
        self._setup.start()

    def read(self) -> Reading:
        """Return the joules of CPU and RAM since the start.

        Raises:
            MeterError: If CodeCarbon could not be set up.
        """
        self._wait()
        if self._error is not None:
            raise MeterError(f"CodeCarbon could not be set up: {self._error}")
        with self._lock:
            now_s = self._clock()
            elapsed_s = now_s - self._last_s
            if elapsed_s >= _MIN_INTERVAL_S or not self._power_w:
                self._advance(now_s, elapsed_s)
                elapsed_s = 0.0
            # In between, the last known power goes on; what was told is never taken back.
            for name in self._parts:
                joules = self._energy_j.get(name, 0.0) + self._power_w.get(name, 0.0) * elapsed_s
                self._told_j[name] = max(self._told_j.get(name, 0.0), joules)
            energy_j: dict[str, float | None] = dict(self._told_j)
            return Reading(duration_s=now_s - self._started_s, energy_j=energy_j)

    def _advance(self, now_s: float, elapsed_s: float) -> None:
        self._last_s = now_s
        for name, part in self._parts.items():
            _, energy = part.measure_power_and_energy(elapsed_s)
            joules = energy.kWh * _J_PER_KWH
            self._energy_j[name] = self._energy_j.get(name, 0.0) + joules
            if elapsed_s > 0:
                self._power_w[name] = joules / elapsed_s

    def close(self) -> None:
        """Stop measuring; waits for the set-up thread."""
        self._wait()
        self._setup = None
        self._parts = {}

    def _wait(self) -> None:
        if self._setup is not None:
            self._setup.join()

    def _prepare(self) -> None:
        try:
            self._parts, self._sources = _set_up()
            for part in self._parts.values():
                part.start()
        except Exception as error:  # told by the first read: a failing meter never stops training
            self._error = error


def _set_up() -> tuple[dict[str, Any], tuple[Source, ...]]:
    _quieten()
    import psutil
    from codecarbon.core.resource_tracker import ResourceTracker

    tracker: Any = SimpleNamespace(
        _force_cpu_power=None,
        _force_ram_power=None,
        _tracking_mode="machine",
        _output_dir=gettempdir(),
        _rapl_include_dram=False,
        _rapl_prefer_psys=False,
        # CodeCarbon rates a CPU as the power of one package times this number.
        _conf={"cpu_physical_count": _cpu_packages()},
        _hardware=[],
    )
    resources: Any = ResourceTracker(tracker)  # type: ignore[no-untyped-call]
    resources.set_RAM_tracking()
    resources.set_CPU_tracking()
    ram, cpu = tracker._hardware[0], tracker._hardware[1]
    how = str(resources.cpu_tracker)
    method, uncertainty, reference = _CPU_METHODS.get(how, ("estimated", 0.2, _REFERENCE))
    model = str(tracker._conf.get("cpu_model") or "unknown CPU")
    sources = (
        Source(
            name="cpu",
            method=method,
            relative_uncertainty=uncertainty,
            device=model,
            note=f"whole machine; CodeCarbon: {_describe(how, cpu)}",
            reference=reference,
        ),
        Source(
            name="ram",
            method="estimated",
            relative_uncertainty=0.5,
            device=f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
            note="whole machine; CodeCarbon: 5 W for each module it supposes",
            reference="users report errors of several times (mlco2/codecarbon#523, #629)",
        ),
    )
    return {"cpu": cpu, "ram": ram}, sources


_CPU_METHODS: dict[str, tuple[Method, float, str]] = {
    "RAPL": ("counter", 0.05, _RAPL_REFERENCE),
    "Windows EMI": ("counter", 0.05, _RAPL_REFERENCE),
    "PowerMetrics": ("sampled", 0.1, "Apple gives no accuracy for powermetrics; 10 % is assumed"),
}


def _describe(how: str, cpu: Any) -> str:
    if how == "cpu_load":
        return f"load cubed times a rated {float(cpu._tdp):g} W, as no RAPL counter is readable"
    return how


def _cpu_packages() -> int:
    from codecarbon.core.util import count_physical_cpus

    return int(count_physical_cpus())  # type: ignore[no-untyped-call]


def _quieten() -> None:
    # CodeCarbon warns of each fallback on standard error; here the sources' notes say the same. Its
    # logger module sets the level when it is imported, so it comes first.
    import codecarbon.external.logger  # noqa: F401  (imported for that effect)

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
