"""NVIDIA cards through NVML, the driver's own library: no ``nvidia-smi``, no subprocess."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import psutil

from greentrain.energy._card_meter import CardMeter
from greentrain.energy._card_meter import synchronize_cuda as synchronize_cuda
from greentrain.energy._card_share import CardShare, own_processes
from greentrain.energy._metered_card import (
    CardReaders,
    MeteredCard,
    VisibleCard,
    first_readable,
)
from greentrain.energy._nvml_devices import select_cards, visible_cards
from greentrain.energy.job_share import JobShare
from greentrain.errors import MeterError
from greentrain.texts import get_logger

_log = get_logger(__name__)

COUNTER_ACCURACY = (
    0.05,
    "NVIDIA states +/-5 % of the power reading for Fermi and Kepler (NVML, nvmlDeviceGetPowerUsage)"
    " and nothing for later cards; taken for all, as one standard uncertainty",
)
"""Relative standard uncertainty of the energy counter, and its reference."""
SAMPLED_ACCURACY = (
    0.1,
    "the sensor's 5 % as for the counter, and as much again or more for loads that change between "
    "samples. A100 and H100 see only 25 % of the time (Yang et al. 2024, arXiv:2312.02741)",
)
"""The same for sampled power."""

# A Grace superchip carries CPU and GPU on one module; H200 and B200 are plain GPUs.
_SUPERCHIP = re.compile(r"\bG[BH]\d{2,3}\b")
_MODULE_NOTE = (
    "module: the figure covers GPU, CPU and memory of the superchip, so no CPU is to be added to it"
)
_FIXES = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": (
        "the NVIDIA driver's library libnvidia-ml.so.1 was not found; install the driver or, in a "
        "container, start it with the NVIDIA runtime and "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    ),
    "NVML_ERROR_DRIVER_NOT_LOADED": (
        "the NVIDIA driver is not loaded; load it (`modprobe nvidia`) or, in a container, pass the "
        "GPUs in"
    ),
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": (
        "the NVIDIA driver was updated under a running kernel module; reboot, or restart the "
        "container"
    ),
    "NVML_ERROR_FUNCTION_NOT_FOUND": (
        "the NVIDIA driver is too old for the nvidia-ml-py package; update the driver"
    ),
    "NVML_ERROR_NO_PERMISSION": (
        "this user has no permission to use the NVIDIA driver; ask for read and write access to "
        "/dev/nvidia*"
    ),
}


class NvmlMeter(CardMeter):
    """Measure the NVIDIA cards that this process can see.

    Each card's energy counter is read at the edges of a window, after the work queued by the
    thread that started the meter is done. A counter does not change for 0.1 s at a time. So less
    than a second after the last reading, joules are the present power multiplied by the time,
    within one tick of the counter. Joules beyond the card's power limit wait for the next reading,
    unless they are more than two ticks at that limit.

    If a card has no counter, a thread samples its power and integrates it, and its source says
    ``sampled``. The thread takes 125 samples a second, or 10 where a slow driver allows no more.
    During the first seconds the thread also compares counters with power, and the source's note
    calls a counter that contradicts it ``suspect``. Cards are read whole: if MIG or other processes
    share one, the note says so and nothing is divided.

    Args:
        devices: The cards to measure: numbers as this process's CUDA counts the visible cards, or
            UUIDs; ``None`` for all that are visible.
        clock: Returns seconds.
        synchronize: Called with a card's number before it is read.
        wait: Waits on an event for some seconds and returns ``True`` if it was set; tests with a
            fake clock pass their own.

    Raises:
        ConfigurationError: If ``devices`` is empty or holds something else; on ``start``, if one is
            not visible.

    Example:
        >>> meter = NvmlMeter(devices=[0])
        >>> meter.sources  # known once started
        ()
    """

    thread_name = "greentrain-nvml"
    _nvml: ModuleType | None = None

    def _open(self) -> Sequence[VisibleCard]:
        self._nvml = nvml = _open_nvml()
        try:
            return select_cards(visible_cards(nvml), self._devices)
        except nvml.NVMLError as error:
            raise MeterError(f"the NVIDIA cards cannot be listed: {error}") from error

    def _metered(self, card: VisibleCard, now_s: float) -> MeteredCard:
        return NvmlCard(self._nvml, card, now_s)

    def _shut(self) -> None:
        nvml: Any = self._nvml
        self._nvml = None
        if nvml is None:
            return
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            _log.debug("NVML could not be shut down: %s", error)


class NvmlCard(MeteredCard):
    """Count the joules of one NVIDIA card.

    Args:
        nvml: The bindings, initialised.
        card: The card.
        now_s: The present time in seconds; joules are counted from here.
    """

    counter = "counter"
    counted = COUNTER_ACCURACY
    sampled = SAMPLED_ACCURACY

    def __init__(self, nvml: Any, card: VisibleCard, now_s: float) -> None:
        self._nvml = nvml
        self._share: CardShare | None = CardShare(
            lambda seen_us: nvml.nvmlDeviceGetProcessUtilization(card.handle, seen_us),
            own_processes,
        )
        super().__init__(card, nvml.NVMLError, now_s)

    def _readers(self) -> CardReaders:
        nvml, handle = self._nvml, self._card.handle

        def energy_mj() -> float:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))

        def module_mj() -> float:
            return self._field(nvml.NVML_FI_DEV_ENERGY, nvml.NVML_POWER_SCOPE_MODULE)

        def instant_w() -> float:
            return self._field(nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_POWER_SCOPE_GPU) / 1e3

        def average_w() -> float:
            return float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3

        def module_w() -> float:
            return self._field(nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_POWER_SCOPE_MODULE) / 1e3

        counter_mj, no_energy = first_readable(nvml.NVMLError, energy_mj, module_mj)
        module = counter_mj is module_mj or (counter_mj is not None and self._counts_module())
        powers = (module_w,) if module else (instant_w, average_w, module_w)
        power_w, no_power = first_readable(nvml.NVMLError, *powers, positive=True)
        return CardReaders(
            energy_mj=(counter_mj, no_energy),
            power_w=(power_w, no_power),
            power_kind="averaged" if power_w is average_w else "instant",
            cpu_note=_MODULE_NOTE if module or power_w is module_w else "",
        )

    def _read_limit_w(self) -> float:
        return float(self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._card.handle)) / 1e3

    def _other_processes(self) -> int:
        running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._card.handle)
        pids = {process.pid for process in running} - {0}
        others = len(pids - {os.getpid()})
        # In a container the driver gives the host's numbers. Then this process may be listed
        # under a number that does not exist in the container.
        if os.getpid() not in pids and not all(psutil.pid_exists(pid) for pid in pids):
            others -= 1
        return others

    def _update_share(self, now_s: float) -> None:
        nvml = self._nvml
        try:
            if self._share is not None:
                self._share.update(now_s)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_FOUND:  # no sample since the last one
                self._share = None  # this driver or card gives none, or not to this user

    def _job_share(self) -> JobShare | None:
        return None if self._share is None else self._share.share

    def _is_lost(self, error: Any) -> bool:
        nvml = self._nvml
        return error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED)

    def _field(self, field: int, scope: int) -> float:
        nvml = self._nvml
        value = nvml.nvmlDeviceGetFieldValues(self._card.handle, [(field, scope)])[0]
        if value.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(value.nvmlReturn)
        wide = value.valueType in (
            nvml.NVML_VALUE_TYPE_UNSIGNED_LONG,
            nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
        )
        return float(value.value.ullVal if wide else value.value.uiVal)

    def _counts_module(self) -> bool:
        """Return ``True`` if the card's plain counter covers a CPU too.

        On GH200 it does (ml-energy/zeus#172). On other superchips it does if the module's own
        counter, where there is one, shows the same.
        """
        superchip = _SUPERCHIP.search(self._card.device)
        if superchip is None:
            return False
        nvml = self._nvml
        try:
            module_mj = self._field(nvml.NVML_FI_DEV_ENERGY, nvml.NVML_POWER_SCOPE_MODULE)
            card_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(self._card.handle)
        except nvml.NVMLError:
            return superchip[0].startswith("GH")
        return bool(abs(module_mj - card_mj) <= 1e-3 * module_mj)


def _open_nvml() -> ModuleType:
    """Load and initialise the bindings."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise MeterError(
            "the package nvidia-ml-py is not installed; install it with `pip install nvidia-ml-py`"
        ) from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        fixes = {getattr(nvml, code): text for code, text in _FIXES.items()}
        raise MeterError(
            fixes.get(error.value, f"NVML could not be initialised: {error}")
        ) from error
    return nvml
