"""Set up CodeCarbon's models of CPU and RAM, but faster than it does.

CodeCarbon's set-up takes 1.5 s and 100 MB. A second goes into py-cpuinfo, a process that finds the
CPU's name in ten ways. Most of the rest goes into pandas, for one row of a table. On Linux the name
is in ``/proc/cpuinfo`` and the csv module reads the table. CodeCarbon's own matcher finds the row,
so the rated power is the same. On other systems CodeCarbon's own set-up is used.
``tests/energy/test_codecarbon.py`` tests the parts of CodeCarbon that are used here.
"""

from __future__ import annotations

import csv
import logging
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from types import SimpleNamespace
from typing import Any

from greentrain.energy import host_hardware
from greentrain.energy._rapl_limit import rapl_limit_w
from greentrain.energy.meter import Method, Source

_GIB = 2**30
_J_PER_KWH = 3.6e6
LOAD_REFERENCE = (
    "Fischer 2025, arXiv:2509.22092: errors of up to 40 % against a wall meter; "
    "half of that is taken as the standard uncertainty"
)
_RAPL_REFERENCE = (
    "RAPL counters lie within a few per cent of the package's power (Khan et al. 2018)"
)
APPLE_REFERENCE = "Apple gives no accuracy for powermetrics; 10 % is assumed"
_RAM_REFERENCE = "users report errors of several times (mlco2/codecarbon#523, #629)"

CPU_METHODS: dict[str, tuple[Method, float | None, str]] = {
    "RAPL": ("counter", 0.05, _RAPL_REFERENCE),
    "Windows EMI": ("counter", 0.05, _RAPL_REFERENCE),
    "PowerMetrics": ("sampled", 0.1, APPLE_REFERENCE),
    "raspberry": ("sampled", None, ""),
}
"""Method, uncertainty and reference of CodeCarbon's CPU tracking modes; others are estimates."""

_LISTED = " in CodeCarbon's table"
# CodeCarbon's modules are changed during a set-up.
_SETTING_UP = threading.Lock()
# More than any CPU package uses: a counter that fell was reset if a wrap would be more.
_MAX_PACKAGE_W = 1000.0
# Modes that are quick to read, so that they can be read every second.
_QUICK = ("RAPL", "Windows EMI", "cpu_load")


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwarePart:
    """One of CodeCarbon's hardware objects, started, and its source.

    Args:
        hardware: Object that gives power and energy for a duration in seconds.
        source: Source of the figure.
        quick: ``True`` if it is quick to read.
    """

    hardware: Any
    source: Source
    quick: bool

    @property
    def counts_from_set_up(self) -> bool:
        """``True`` if its first energy covers only the time since it was set up."""
        return self.source.method == "counter"

    @property
    def min_interval_s(self) -> float:
        """Seconds after which it can be read again.

        A counter is right at any time. The kernel counts a CPU's load in ticks of 10 ms: over less
        than 0.1 s it would show little but noise.
        """
        return 0.01 if self.counts_from_set_up else 0.1

    def used_j(self, seconds: float) -> float | None:
        """Return the joules since the last call, so many seconds ago.

        Returns:
            ``None`` if a counter could not be read. CodeCarbon reports 0 J then, and forgets where
            the counter was. Here the next call covers this one too, because a counter goes on.
            NaN if a counter was reset, which CodeCarbon takes for a wrap: these joules are lost.
        """
        interface = getattr(self.hardware, "_intel_interface", None)
        files = tuple(getattr(interface, "_rapl_files", ()))
        before = [file.last_energy for file in files]
        with quiet():
            _, energy = self.hardware.measure_power_and_energy(seconds)
        if any(file.last_energy is None for file in files):
            for file, last in zip(files, before, strict=True):
                file.last_energy = last
            return None
        most_kwh = _MAX_PACKAGE_W * seconds / _J_PER_KWH
        if any(
            file.sample_skipped  # without an earlier value, or after a fall of unknown range
            or (file.last_energy < last and file.energy_delta.kWh > most_kwh)
            for file, last in zip(files, before, strict=True)
        ):
            return math.nan
        return float(energy.kWh) * _J_PER_KWH

    def power_w(self) -> float | None:
        """Return the mean power since :meth:`used_j`, from the load; ``None`` for other parts."""
        load = getattr(self.hardware, "_cpu_load_meter", None)
        if load is None or getattr(self.hardware, "_mode", None) != "cpu_load":
            return None
        since = load._last_times
        try:
            with quiet():
                return float(self.hardware.total_power().W)
        finally:
            load._last_times = since  # this was a look, and the interval goes on


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what CodeCarbon logs in this thread, and leave its logger as the user has set it.

    It warns of each fallback, and of AMD's library if another package installed it. Here the
    sources' notes and ``greentrain doctor`` say the same. A tracker of the user's logs on.
    """
    log = logging.getLogger("codecarbon")
    before = log.level, log.handlers[:], log.propagate
    first, thread = "codecarbon.external.logger" not in sys.modules, threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    log.addFilter(is_of_others)
    try:
        if first:  # the import sets level and handlers
            import codecarbon.external.logger  # noqa: F401  (imported for that effect)

            if before[0] or before[1]:
                log.setLevel(before[0])
                log.handlers, log.propagate = before[1:]
        yield
    finally:
        log.removeFilter(is_of_others)


@quiet()
def set_up(root: Path = Path("/")) -> dict[str, HardwarePart]:
    """Set up and start CodeCarbon's models of the CPU and the RAM of the whole machine.

    Args:
        root: Root of the file system.

    Returns:
        The parts by name: ``cpu`` and ``ram``.
    """
    import psutil

    load_from = psutil.cpu_times()
    from codecarbon.core.resource_tracker import ResourceTracker

    tracker: Any = SimpleNamespace(
        _force_cpu_power=None,
        _force_ram_power=None,
        _tracking_mode="machine",
        _output_dir=gettempdir(),
        _rapl_include_dram=False,
        _rapl_prefer_psys=False,
        _conf={},
        _hardware=[],
    )
    resources: Any = ResourceTracker(tracker)  # type: ignore[no-untyped-call]
    with _SETTING_UP, _whole_machine():
        resources.set_RAM_tracking()
        ram = tracker._hardware[0]
        # CodeCarbon rates a CPU as the power of one package times this number.
        tracker._conf["cpu_physical_count"] = packages = cpu_packages(root)
        mode = _mode(root)
        if mode is None:
            resources.set_CPU_tracking()
            cpu, how = tracker._hardware[1], str(resources.cpu_tracker)
            model, rating = str(tracker._conf.get("cpu_model") or ""), ""
            if how == "cpu_load":
                cpu._tdp, rating = machine_power_w(model, packages, root)
        else:
            cpu, how, model, rating = _linux_cpu(mode, packages, root)
    for hardware in (cpu, ram):
        hardware.start()
    if how == "cpu_load" and hasattr(cpu, "_cpu_load_meter"):  # from CodeCarbon 3.3.1 on
        cpu._cpu_load_meter._last_times = load_from  # the first load covers the set-up too
    return {"cpu": _cpu_part(cpu, how, model, rating), "ram": _ram_part(ram)}


@contextmanager
def _whole_machine() -> Iterator[None]:
    """Make CodeCarbon count the machine's CPUs and memory and not those of a SLURM job.

    The load that it multiplies is the whole machine's. It needs ``scontrol`` for a job's part, and
    containers lack that.
    """
    from codecarbon.core import util
    from codecarbon.external import ram

    places: tuple[Any, ...] = (util, ram)
    jobs = [place.SLURM_JOB_ID for place in places]
    try:
        for place in places:
            place.SLURM_JOB_ID = None
        yield
    finally:
        for place, job in zip(places, jobs, strict=True):
            place.SLURM_JOB_ID = job


def _mode(root: Path) -> str | None:
    """Return the mode to set up the CPU in; ``None`` to leave that to CodeCarbon."""
    import codecarbon.core.cpu

    cpu: Any = codecarbon.core.cpu
    if not sys.platform.startswith("linux"):
        return None
    if cpu.is_rapl_available():
        return "RAPL"
    raspberry = hasattr(cpu, "is_raspberry") and cpu.is_raspberry()  # from 3.3.1 on
    return None if raspberry or not cpu.is_psutil_available() else "cpu_load"


def _linux_cpu(how: str, packages: int, root: Path) -> tuple[Any, str, str, str]:
    from codecarbon.core.util import detect_cpu_model
    from codecarbon.external.hardware import CPU, MODE_CPU_LOAD

    model = cpu_model(root) or detect_cpu_model() or ""
    options: dict[str, Any] = {"output_dir": gettempdir(), "tracking_mode": "machine"}
    if how == "RAPL":
        hardware = CPU.from_utils(mode="intel_rapl", model=model, **options)
        return hardware, how, model, ""
    power_w, rating = machine_power_w(model, packages, root)
    watts: Any = power_w  # CodeCarbon's annotation wants whole ones
    hardware = CPU.from_utils(mode=MODE_CPU_LOAD, model=model, tdp=watts, **options)
    return hardware, how, model, rating


def cpu_model(root: Path = Path("/")) -> str | None:
    """Return the CPU's name from the kernel; ``None`` if it has none, as on ARM."""
    return next(iter(_cpu_fields("model name", root)), None)


def cpu_packages(root: Path = Path("/")) -> int:
    """Return the number of CPU packages of the machine."""
    if found := len(set(_cpu_fields("physical id", root))):
        return found
    from codecarbon.core.util import count_physical_cpus

    return int(count_physical_cpus())  # type: ignore[no-untyped-call]


def _cpu_fields(name: str, root: Path) -> list[str]:
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return []
    fields = (line.partition(":") for line in lines)
    return [text for key, _, value in fields if key.strip() == name and (text := value.strip())]


def machine_power_w(model: str, packages: int, root: Path = Path("/")) -> tuple[float, str]:
    """Rate all CPUs of the machine: never beyond what its number of cores can use.

    A virtual machine shows any number of packages, often one for each core. Its cores are then
    rated as those of a CPU that is not in CodeCarbon's table.

    Args:
        model: The CPU's name; empty if it is unknown.
        packages: Number of packages that the machine shows.
        root: Root of the file system.

    Returns:
        Watts and their origin.
    """
    from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE
    from codecarbon.core.util import count_cpus

    threads = count_cpus()
    cores_w = float(threads * DEFAULT_POWER_PER_CORE)
    power_w, origin = rated_power_w(model)
    per_core = f"{DEFAULT_POWER_PER_CORE} W for each of {threads} threads"
    if power_w is None:
        return cores_w, f"without a name, so {per_core}"
    if not origin.endswith(_LISTED):
        return power_w, origin  # of all threads already
    if packages > 1:
        power_w, origin = power_w * packages, f"{origin}, times {packages} packages"
    if power_w <= cores_w or not _is_virtual(packages, root):
        return power_w, origin
    return cores_w, (
        f"{per_core}, because a virtual machine has a part of the CPU only; "
        f"{power_w:g} W would be {origin}"
    )


def _is_virtual(packages: int, root: Path) -> bool:
    """Return ``True`` in a virtual machine, and if each of several packages has one thread."""
    one_each = 1 < packages == len(_cpu_fields("processor", root))
    return one_each or host_hardware.virtual_machine(root)


@cache
def rated_power_w(model: str) -> tuple[float | None, str]:
    """Rate a CPU as CodeCarbon does, but without pandas.

    It is the power of one package for a CPU in CodeCarbon's table, and of all threads for others.

    Args:
        model: The CPU's name; empty if it is unknown.

    Returns:
        Watts and their origin; ``None`` if CodeCarbon uses a constant instead.
    """
    from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE, TDP
    from codecarbon.core.util import count_cpus

    if not model:
        return None, "CodeCarbon's constant for a CPU without a name"
    table = cpu_table()
    matcher: Any = TDP.__new__(TDP)  # its __init__ would run py-cpuinfo and pandas
    name = matcher._get_matching_cpu(model, {"Name": [name for name, _ in table]})
    # Of two rows of one name CodeCarbon takes the first.
    power_w = _number(next((watts for row, watts in table if row == name), ""))
    if power_w:
        return power_w, f"{name}{_LISTED}"
    threads = count_cpus()
    return (
        float(threads * DEFAULT_POWER_PER_CORE),
        f"not in CodeCarbon's table, so {DEFAULT_POWER_PER_CORE} W for each of {threads} threads",
    )


def cpu_table() -> list[tuple[str, str]]:
    """Return name and rated watts, as text, of each CPU that the installed CodeCarbon lists."""
    from codecarbon.input import DataSource

    path = Path(DataSource().cpu_power_path)  # type: ignore[no-untyped-call]
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["Name"], row["TDP"]) for row in csv.DictReader(file)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # CodeCarbon itself fails on a few cells of the table
        return None


def _cpu_part(cpu: Any, how: str, model: str, rating: str) -> HardwarePart:
    method, uncertainty, reference = CPU_METHODS.get(how, ("estimated", 0.2, LOAD_REFERENCE))
    most_w = float(cpu._tdp) if how == "cpu_load" else None
    if how == "cpu_load":
        origin = f" ({rating})" if rating else ""
        how_text = (
            f"load cubed times a rated {float(cpu._tdp):g} W{origin}, as no RAPL counter is "
            "readable"
        )
    else:
        how_text = how
    if how == "RAPL":
        most_w = rapl_limit_w([Path(file.path).parent for file in cpu._intel_interface._rapl_files])
    source = Source(
        name="cpu",
        method=method,
        relative_uncertainty=uncertainty,
        max_power_w=most_w,
        device=model or "unknown CPU",
        note=f"whole machine; CodeCarbon: {how_text}",
        reference=reference,
    )
    return HardwarePart(hardware=cpu, source=source, quick=how in _QUICK)


def _ram_part(ram: Any) -> HardwarePart:
    import psutil

    measured = type(ram).__name__ == "Raspberry"
    how = "raspberry" if measured else f"a constant {ram.total_power().W:g} W, by supposed modules"
    source = Source(
        name="ram",
        method="sampled" if measured else "estimated",
        relative_uncertainty=None if measured else 0.5,
        max_power_w=None if measured else float(ram.total_power().W),
        device=f"{psutil.virtual_memory().total / _GIB:.0f} GiB",
        note=f"whole machine; CodeCarbon: {how}",
        reference="" if measured else _RAM_REFERENCE,
    )
    return HardwarePart(hardware=ram, source=source, quick=not measured)
