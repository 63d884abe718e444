"""What is NVML's own about an NVIDIA card: which fields tell energy and power, and of what."""

from __future__ import annotations

import os
import re
from types import ModuleType
from typing import Any

import psutil

from greentrain.energy._metered_card import MeteredCard, Readers, first_readable
from greentrain.energy._nvml_devices import Card

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
# A Grace superchip carries CPU and GPU on one module; H200 and B200 are plain GPUs.
_SUPERCHIP = re.compile(r"\bG[BH]\d{2,3}\b")
_MODULE_NOTE = (
    "module: the figure covers GPU, CPU and memory of the superchip, so no CPU is to be added to it"
)
_MIG_NOTE = "shared: MIG divides the card and the figure is the whole card's"


class NvmlCard(MeteredCard):
    """One NVIDIA card.

    Args:
        nvml: The bindings, initialised.
        card: The card.
        now_s: The present time in seconds; joules are counted from here.
    """

    counter = "counter"
    counted = (_COUNTER_UNCERTAINTY, _COUNTER_REFERENCE)
    sampled = (_SAMPLED_UNCERTAINTY, _SAMPLED_REFERENCE)

    def __init__(self, nvml: ModuleType, card: Card, now_s: float) -> None:
        self._nvml, self._card = nvml, card
        super().__init__(
            index=card.index,
            device=f"{card.name} ({card.uuid})",
            uuid=card.uuid,
            note="; ".join(filter(None, (card.note, _MIG_NOTE if card.mig else ""))),
            errors=nvml.NVMLError,
            now_s=now_s,
        )

    def _readers(self) -> Readers:
        nvml, handle = self._nvml, self._card.handle

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

        counted_mj, no_energy = first_readable(nvml.NVMLError, energy_mj, module_mj)
        module = counted_mj is module_mj or (counted_mj is not None and self._counts_module())
        powers = (module_w,) if module else (instant_w, power_w, module_w)
        drawn_w, no_power = first_readable(nvml.NVMLError, *powers, positive=True)
        return Readers(
            energy_mj=(counted_mj, no_energy),
            power_w=(drawn_w, no_power),
            power_kind="averaged" if drawn_w is power_w else "instant",
            cpu_note=_MODULE_NOTE if module or drawn_w is module_w else "",
        )

    def _read_limit_w(self) -> float:
        return float(self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._card.handle)) / 1e3

    def _count_others(self) -> int:
        running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._card.handle)
        pids = {process.pid for process in running} - {0}
        others = len(pids - {os.getpid()})
        # In a container the driver tells the host's numbers: this process may be among them under
        # one that nobody has here.
        if os.getpid() not in pids and not all(psutil.pid_exists(pid) for pid in pids):
            others -= 1
        return others

    def _is_lost(self, error: Any) -> bool:
        nvml = self._nvml
        return error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED)

    def _field(self, field: int, scope: int) -> float:
        nvml = self._nvml
        value: Any = nvml.nvmlDeviceGetFieldValues(self._card.handle, [(field, scope)])[0]
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
        superchip = _SUPERCHIP.search(self._card.name)
        if superchip is None:
            return False
        nvml = self._nvml
        try:
            module_mj = self._field(nvml.NVML_FI_DEV_ENERGY, nvml.NVML_POWER_SCOPE_MODULE)
            card_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(self._card.handle)
        except nvml.NVMLError:
            return superchip[0].startswith("GH")
        return bool(abs(module_mj - card_mj) <= 1e-3 * module_mj)
