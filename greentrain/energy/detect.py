"""The best meter that this machine has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from greentrain.energy import _host
from greentrain.energy.amd import AmdMeter
from greentrain.energy.apple import AppleGpuMeter
from greentrain.energy.codecarbon import CodeCarbonMeter
from greentrain.energy.composite import CompositeMeter
from greentrain.energy.meter import Meter
from greentrain.energy.nvml import NvmlMeter
from greentrain.errors import MeterError

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Found:
    """What can be measured, and why the rest cannot.

    Args:
        meters: Meters that run.
        missing: One sentence for each kind of card that cannot be measured: ``"NVIDIA"``, and where
            there is one, ``"AMD"`` or ``"Apple"``.
    """

    meters: list[Meter] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def detect(devices: Sequence[int | str] | None = None, *, cpu: bool = True) -> Meter:
    """Build the best meter here: the cards that can be measured, CPU and RAM.

    NVIDIA cards are measured through NVML. Where there are none, AMD's are through amdsmi and
    Apple's GPU, a part of the host's chip as the CPU is, through powermetrics. Where a figure is
    that of a whole module with its CPU and memory, nothing is added on top.

    Args:
        devices: The cards, as this process's CUDA or ROCm counts them, or UUIDs of NVIDIA cards;
            ``None`` for all that are visible, and ``()`` for none, as for training on a CPU.
        cpu: Whether to measure what the host has once, CPU and RAM; another process may do that.

    Returns:
        A started meter. What it takes to know about CPU and RAM is left to a thread: ``sources``
        waits for that, and readings do not.

    Raises:
        MeterError: If there is nothing to measure.
        ConfigurationError: If a card that was asked for is not visible.

    Example:
        >>> meter = detect()
        >>> {source.name for source in meter.sources} >= {"cpu", "ram"}
        True
        >>> meter.close()
    """
    found = find(devices, cpu=cpu)
    reasons = "; ".join(found.missing.values())
    if devices and not any(isinstance(meter, (NvmlMeter, AmdMeter)) for meter in found.meters):
        _log.warning("the cards %s are not measured: %s", list(devices), reasons)
    if not found.meters:
        left_out = "CPU and RAM are left to another process" if not cpu else ""
        told = "; ".join(filter(None, (left_out, reasons or "no card was asked for")))
        raise MeterError(f"there is nothing to measure: {told}")
    meter = CompositeMeter(*found.meters)
    meter.start()
    return meter


def find(devices: Sequence[int | str] | None = None, *, cpu: bool = True) -> Found:
    """Start a meter for everything that :func:`detect` measures, and tell why the rest is missing.

    Args:
        devices: As for :func:`detect`.
        cpu: As for :func:`detect`.

    Raises:
        ConfigurationError: If a card that was asked for is not visible.
    """
    found = Found()
    covers_cpu = False
    if not (isinstance(devices, (list, tuple)) and not devices):
        nvidia = NvmlMeter(devices)
        if _add(found, "NVIDIA", nvidia):
            covers_cpu = nvidia.covers_cpu
        elif _host.cards(_host.AMD):
            amd = AmdMeter(devices)
            covers_cpu = _add(found, "AMD", amd) and amd.covers_cpu
    if cpu and not covers_cpu:
        codecarbon = CodeCarbonMeter()
        codecarbon.start()
        found.meters.append(codecarbon)
        if _host.apple_silicon():
            _add(found, "Apple", AppleGpuMeter())
    return found


def _add(found: Found, kind: str, meter: Meter) -> bool:
    """Start a meter of cards and take it, or what it says, into what was found."""
    try:
        meter.start()
    except MeterError as error:
        found.missing[kind] = str(error)
        return False
    found.meters.append(meter)
    return True
