"""The best meter that this machine has."""

from __future__ import annotations

from greentrain.energy.codecarbon import CodeCarbonMeter
from greentrain.energy.composite import CompositeMeter
from greentrain.energy.meter import Meter
from greentrain.energy.nvml import NvmlMeter
from greentrain.errors import MeterError


def detect() -> Meter:
    """Build the best meter here: NVIDIA GPUs through NVML where there are any, CPU and RAM.

    Where NVML counts a whole module with its CPU and memory, nothing is added on top.

    Returns:
        A started meter: identifying the hardware is what starting means.

    Example:
        >>> meter = detect()
        >>> {source.name for source in meter.sources} >= {"cpu", "ram"}
        True
        >>> meter.close()
    """
    members: list[Meter] = []
    gpus = NvmlMeter()
    try:
        gpus.start()
    except MeterError:
        pass  # no NVIDIA driver, or no card that this process may see: `greentrain doctor` says why
    else:
        if gpus.sources:
            members.append(gpus)
        else:
            gpus.close()
    if not (members and gpus.covers_cpu):
        members.append(CodeCarbonMeter())
    meter = CompositeMeter(*members)
    meter.start()
    return meter
