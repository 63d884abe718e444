"""How the joules of one NVIDIA card come about: its energy counter, or its power over time."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import psutil

from greentrain.energy._nvml_devices import Card
from greentrain.energy.meter import Method, Source

_log = logging.getLogger(__name__)

_COUNTER_UNCERTAINTY = 0.05
_COUNTER_REFERENCE = (
    "NVIDIA states +/-5 % of the power reading for Fermi and Kepler (NVML, nvmlDeviceGetPowerUsage)"
    " and nothing for later cards; taken for all, as one standard uncertainty"
)
_SAMPLED_UNCERTAINTY = 0.1
_SAMPLED_REFERENCE = (
    "the sensor's 5 % as for the counter, and as much again or more for loads that change between "
    "samples: A100 and H100 see only 25 % of the time (Yang et al. 2024, arXiv:2312.02741)"
)

# No card or module draws more: beyond it, a counter that fell has not restarted from zero.
_MAX_POWER_W = 5000.0
# Counter and power are compared over this long, of which a counter's tick is 2 %.
_CHECK_S = 5.0
_CHECK_MAX_GAP_S = 0.5
_CHECK_MAX_RATIO = 1.5
_CHECK_MIN_J = 25.0
_LOOK_FOR_OTHERS_S = 60.0
_LOOK_AT_LIMIT_S = 1.0
# A Grace superchip carries CPU and GPU on one module; H200 and B200 are plain GPUs.
_SUPERCHIP = re.compile(r"\bG[BH]\d{2,3}\b")


class CounterGauge:
    """Joules from a counter in millijoules, which may restart.

    Args:
        read_mj: Gives the counter in mJ.
        now_s: The present time in seconds.
    """

    def __init__(self, read_mj: Callable[[], float], now_s: float) -> None:
        self._read_mj = read_mj
        self._last_mj, self._last_s = read_mj(), now_s
        self._total_mj = 0.0
        self.restarts = 0

    @property
    def energy_j(self) -> float:
        """Joules until the last update."""
        return self._total_mj / 1e3

    def update(self, now_s: float) -> None:
        """Read the counter; after a restart the joules since then are counted."""
        value_mj = self._read_mj()
        if value_mj >= self._last_mj:
            self._total_mj += value_mj - self._last_mj
        else:
            self.restarts += 1
            # One tick's worth of a second is allowed for beside the time between two reads.
            if value_mj <= 1e3 * _MAX_POWER_W * (now_s - self._last_s + 1.0):
                self._total_mj += value_mj
        self._last_mj, self._last_s = value_mj, now_s


class PowerGauge:
    """Joules from power readings, by the trapezoidal rule.

    Args:
        read_w: Gives the power in W.
        now_s: The present time in seconds.
    """

    def __init__(self, read_w: Callable[[], float], now_s: float) -> None:
        self.read_w = read_w
        self._last_w, self._last_s = read_w(), now_s
        self.energy_j = 0.0
        self.widest_gap_s = 0.0

    def update(self, now_s: float) -> None:
        """Take one sample."""
        power_w, gap_s = self.read_w(), now_s - self._last_s
        self.energy_j += 0.5 * (power_w + self._last_w) * gap_s
        self.widest_gap_s = max(self.widest_gap_s, gap_s)
        self._last_w, self._last_s = power_w, now_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """The counter and the power drawn since some time, which are to agree."""

    began_s: float
    began_j: float
    restarts: int
    power: PowerGauge


class MeteredCard:
    """One card with the best gauge that it offers, and what is known about its figure.

    Not thread-safe: the meter holds its lock around every call.

    Args:
        nvml: The bindings, initialised.
        card: The card.
        now_s: The present time in seconds; joules are counted from here.
    """

    def __init__(self, nvml: ModuleType, card: Card, now_s: float) -> None:
        self.card = card
        self.name = f"gpu:{card.index}"
        self._nvml = nvml
        self._notes: dict[str, str] = {"order": card.note}
        self._gone = False
        self._suspect = False
        self._gauge: CounterGauge | PowerGauge | None = None
        self._check: _Check | None = None
        self._open(now_s)
        if card.mig:
            self._notes["mig"] = "shared: MIG divides the card and the figure is the whole card's"
        self._look_for_others(now_s)
        self._limit_w: float | None = None
        self._limit_read_s = -math.inf
        self.look_at_limit(now_s)

    @property
    def wants_samples(self) -> bool:
        """Whether :meth:`sample` has to be called many times a second."""
        return not self._gone and (isinstance(self._gauge, PowerGauge) or self._check is not None)

    @property
    def covers_cpu(self) -> bool:
        """Whether the figure is that of a module with a CPU on it."""
        return "module" in self._notes

    @property
    def source(self) -> Source:
        """What is known about the figure now."""
        method: Method = "counter" if isinstance(self._gauge, CounterGauge) else "sampled"
        share, reference = (
            (_COUNTER_UNCERTAINTY, _COUNTER_REFERENCE)
            if method == "counter"
            else (_SAMPLED_UNCERTAINTY, _SAMPLED_REFERENCE)
        )
        doubtful = self._suspect or self._gauge is None
        return Source(
            name=self.name,
            method=method,
            relative_uncertainty=None if doubtful else share,
            device=f"{self.card.name} ({self.card.uuid})",
            uuid=self.card.uuid,
            power_limit_w=self._limit_w,
            note="; ".join(note for note in self._notes.values() if note),
            reference="" if doubtful else reference,
        )

    def look_at_limit(self, now_s: float) -> None:
        """Read the power limit in force, unless that was done within the last second."""
        if now_s - self._limit_read_s < _LOOK_AT_LIMIT_S:
            return
        self._limit_read_s = now_s
        try:
            limit_mw = self._nvml.nvmlDeviceGetEnforcedPowerLimit(self.card.handle)
        except self._nvml.NVMLError:
            limit_mw = 0
        self._limit_w = limit_mw / 1e3 if limit_mw > 0 else None

    def sample(self, now_s: float) -> None:
        """Take one sample of what is integrated over time."""
        try:
            if isinstance(self._gauge, PowerGauge):
                self._gauge.update(now_s)
            elif self._check is not None:
                self._compare(now_s)
        except self._nvml.NVMLError as error:
            if self._check is None:
                self._fail(error)
            self._check = None  # the next reading tells whether the counter is well

    def read_j(self, now_s: float) -> float | None:
        """Return the joules since the beginning; ``None`` while the card cannot be read."""
        if self._gone or self._gauge is None:
            return None
        try:
            self._gauge.update(now_s)
        except self._nvml.NVMLError as error:
            self._fail(error)
            return None
        if isinstance(self._gauge, CounterGauge) and self._gauge.restarts:
            self._tell(
                "restart",
                "the counter restarted; the joules before that since the reading before are "
                "missing",
            )
        if now_s - self._looked_s >= _LOOK_FOR_OTHERS_S:
            self._look_for_others(now_s)
        return self._gauge.energy_j

    def _open(self, now_s: float) -> None:
        nvml, handle = self._nvml, self.card.handle

        def energy_mj() -> float:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))

        def module_mj() -> float:
            return self._field(nvml.NVML_FI_DEV_ENERGY, nvml.NVML_POWER_SCOPE_MODULE)

        def instant_w() -> float:
            return self._field(nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_POWER_SCOPE_GPU) / 1e3

        def power_w() -> float:
            return float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3

        def module_w() -> float:
            return self._field(nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_POWER_SCOPE_MODULE) / 1e3

        counted_mj, why_not = self._first_readable(energy_mj, module_mj)
        module = counted_mj is module_mj or (counted_mj is not None and self._counts_module())
        drawn_w, why_no_power = self._first_readable(
            *((module_w,) if module else (instant_w, power_w, module_w)), positive=True
        )
        if module or drawn_w is module_w:
            self._notes["module"] = (
                "module: the figure covers GPU, CPU and memory of the superchip, so no CPU is to "
                "be added to it"
            )
        if counted_mj is not None:
            self._gauge = CounterGauge(counted_mj, now_s)
            if drawn_w is not None:
                self._begin_check(drawn_w, now_s)
        elif drawn_w is not None:
            kind = "averaged" if drawn_w is power_w else "instant"
            self._notes["sampled"] = (
                f"no energy counter ({why_not}): {kind} power, sampled and integrated"
            )
            self._gauge = PowerGauge(drawn_w, now_s)
        else:
            self._tell(
                "nothing",
                f"not measurable: neither energy counter ({why_not}) nor power ({why_no_power})",
            )

    def _first_readable(
        self, *readers: Callable[[], float], positive: bool = False
    ) -> tuple[Callable[[], float] | None, str]:
        """Return the first reader that answers, and what the first of them says otherwise."""
        reason = ""
        for read in readers:
            try:
                if read() > 0 or not positive:
                    return read, reason
                reason = reason or "reads 0"
            except self._nvml.NVMLError as error:
                reason = reason or str(error)
        return None, reason

    def _field(self, field: int, scope: int) -> float:
        nvml = self._nvml
        value: Any = nvml.nvmlDeviceGetFieldValues(self.card.handle, [(field, scope)])[0]
        if value.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(value.nvmlReturn)
        wide = value.valueType in (
            nvml.NVML_VALUE_TYPE_UNSIGNED_LONG,
            nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
        )
        return float(value.value.ullVal if wide else value.value.uiVal)

    def _counts_module(self) -> bool:
        """Whether the card's plain counter covers a CPU too.

        On GH200 it does (ml-energy/zeus#172). Elsewhere it does if the module's own counter, where
        there is one, shows the same.
        """
        superchip = _SUPERCHIP.search(self.card.name)
        if superchip is None:
            return False
        nvml = self._nvml
        try:
            module_mj = self._field(nvml.NVML_FI_DEV_ENERGY, nvml.NVML_POWER_SCOPE_MODULE)
            card_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(self.card.handle)
        except nvml.NVMLError:
            return superchip[0].startswith("GH")
        return bool(abs(module_mj - card_mj) <= 1e-3 * module_mj)

    def _begin_check(self, read_w: Callable[[], float], now_s: float) -> None:
        if isinstance(self._gauge, CounterGauge):
            self._gauge.update(now_s)
            self._check = _Check(
                began_s=now_s,
                began_j=self._gauge.energy_j,
                restarts=self._gauge.restarts,
                power=PowerGauge(read_w, now_s),
            )

    def _compare(self, now_s: float) -> None:
        """Hold the counter against the power drawn over the first seconds."""
        check = self._check
        if check is None or not isinstance(self._gauge, CounterGauge):
            return
        check.power.update(now_s)
        starved = check.power.widest_gap_s > _CHECK_MAX_GAP_S
        if now_s - check.began_s < _CHECK_S and not starved:
            return
        self._gauge.update(now_s)
        if starved or self._gauge.restarts > check.restarts:
            # Too few samples, or too few joules, to blame anything: begin again from here.
            self._begin_check(check.power.read_w, now_s)
            return
        self._check = None
        counted_j, drawn_j = self._gauge.energy_j - check.began_j, check.power.energy_j
        low_j, high_j = sorted((counted_j, drawn_j))
        if high_j - low_j < _CHECK_MIN_J or high_j <= _CHECK_MAX_RATIO * low_j:
            return
        self._suspect = True
        self._gone = counted_j == 0  # a counter that stands still knows nothing
        seconds = now_s - check.began_s
        self._tell(
            "suspect",
            f"suspect: over the first {seconds:.0f} s the counter shows {counted_j / seconds:.0f} "
            f"W and the power reading {drawn_j / seconds:.0f} W",
        )

    def _look_for_others(self, now_s: float) -> None:
        self._looked_s = now_s
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self.card.handle)
        except self._nvml.NVMLError:
            return  # not allowed, or not known by this driver
        pids = {process.pid for process in running} - {0}
        others = len(pids - {os.getpid()})
        # In a container the driver tells the host's numbers: this process may be among them under
        # one that nobody has here.
        if os.getpid() not in pids and not all(psutil.pid_exists(pid) for pid in pids):
            others -= 1
        if others:
            self._notes["others"] = (
                f"shared: {others} other process{'es' if others > 1 else ''} on the card, whose "
                "joules are included"
            )

    def _fail(self, error: Any) -> None:
        nvml = self._nvml
        self._gone = error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED)
        what = "unknown from here on" if self._gone else "unknown while it cannot be read"
        if isinstance(self._gauge, PowerGauge) and not self._gone:
            what += " and bridged by the readings around that"
        self._tell("lost" if self._gone else "failed", f"{what} ({error})")

    def _tell(self, topic: str, text: str) -> None:
        """Note something, and warn about it the first time."""
        if topic not in self._notes:
            _log.warning("%s, %s: %s", self.name, self.card.name, text)
        self._notes[topic] = text
