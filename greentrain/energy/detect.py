"""Detect the best meter of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from greentrain.energy import host_hardware
from greentrain.energy.amd import AmdMeter
from greentrain.energy.apple import AppleGpuMeter
from greentrain.energy.codecarbon import CodeCarbonMeter
from greentrain.energy.composite import CompositeMeter
from greentrain.energy.meter import Meter
from greentrain.energy.nvml import NvmlMeter
from greentrain.errors import MeterError
from greentrain.texts import get_logger

_log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class DetectedMeters:
    """Meters of this machine, and the reasons for missing ones.

    Args:
        meters: Meters that run.
        missing: The reason for each kind of card that cannot be measured: ``"NVIDIA"``, and if
            there is one, ``"AMD"`` or ``"Apple"``.
    """

    meters: list[Meter] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def detect(devices: Sequence[int | str] | None = None, *, cpu: bool = True) -> Meter:
    """Start the best meter of this machine: of the cards that can be measured, CPU and RAM.

    NVIDIA cards are measured through NVML. If there are none, AMD's cards are measured through
    amdsmi, and Apple's GPU, which is a part of the host's chip like the CPU, through powermetrics.
    If a figure is that of a whole module with its CPU and memory, nothing is added to it.

    Args:
        devices: The cards, as this process's CUDA or ROCm counts them, or UUIDs of NVIDIA cards.
            ``None`` for all that are visible, and ``()`` for none, as for training on a CPU.
        cpu: Measure CPU and RAM, which a host has once; ``False`` if another process does.

    Returns:
        A started meter. A thread sets up CPU and RAM: ``sources`` waits for it, readings do not.

    Raises:
        MeterError: If there is nothing to measure.
        ConfigurationError: If a requested card is not visible.

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
        why = "; ".join(filter(None, (left_out, reasons or "no card was requested")))
        raise MeterError(f"there is nothing to measure: {why}")
    meter = CompositeMeter(*found.meters)
    meter.start()
    return meter


def find(devices: Sequence[int | str] | None = None, *, cpu: bool = True) -> DetectedMeters:
    """Start the meters that :func:`detect` combines, and collect the reasons for missing ones.

    Args:
        devices: As for :func:`detect`.
        cpu: As for :func:`detect`.

    Raises:
        ConfigurationError: If a requested card is not visible.
    """
    found = DetectedMeters()
    covers_cpu = False
    if not (isinstance(devices, (list, tuple)) and not devices):
        nvidia = NvmlMeter(devices)
        if _add(found, "NVIDIA", nvidia):
            covers_cpu = nvidia.covers_cpu
        elif host_hardware.cards(host_hardware.AMD):
            amd = AmdMeter(devices)
            covers_cpu = _add(found, "AMD", amd) and amd.covers_cpu
    if cpu and not covers_cpu:
        codecarbon = CodeCarbonMeter()
        codecarbon.start()
        found.meters.append(codecarbon)
        if host_hardware.apple_silicon():
            _add(found, "Apple", AppleGpuMeter())
    return found


def _add(found: DetectedMeters, kind: str, meter: Meter) -> bool:
    """Start a meter of cards; add it or the reason of its failure, and return success."""
    try:
        meter.start()
    except MeterError as error:
        found.missing[kind] = str(error)
        return False
    found.meters.append(meter)
    return True
