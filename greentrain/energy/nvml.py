"""NVIDIA cards through NVML, the driver's own library: no ``nvidia-smi``, no subprocess."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType

from greentrain.energy._cards import CardMeter
from greentrain.energy._cards import synchronize_cuda as synchronize_cuda
from greentrain.energy._metered_card import MeteredCard
from greentrain.energy._nvml_card import NvmlCard
from greentrain.energy._nvml_devices import select_cards, visible_cards
from greentrain.errors import MeterError

_log = logging.getLogger(__name__)

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
    """Measure the NVIDIA cards that this process may see.

    The truth is each card's energy counter, read at the edges of a window once the work queued by
    the thread that started the meter is done. A card without one has its power integrated by a
    thread that takes 125 samples a second (10 where a slow driver allows no more), and its source
    says ``sampled``. During the first
    seconds that thread also holds counters against power, and a counter that contradicts it is
    ``suspect`` in its source's note. Cards are read whole: where MIG or other processes share one,
    the note says so and nothing is divided.

    Args:
        devices: The cards to measure: numbers as this process's CUDA counts the visible cards, or
            UUIDs; ``None`` for all that are visible.
        clock: Gives seconds.
        synchronize: Called with a card's number before it is read.
        wait: Waits on an event for some seconds and tells whether it was set; tests with a fake
            clock give their own.

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

    def _open(self) -> Mapping[int, Callable[[float], MeteredCard]]:
        self._nvml = nvml = _open_nvml()
        try:
            cards = select_cards(visible_cards(nvml), self._devices)
        except nvml.NVMLError as error:
            raise MeterError(f"the NVIDIA cards cannot be listed: {error}") from error
        return {card.index: partial(NvmlCard, nvml, card) for card in cards}

    def _shut(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml is None:
            return
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            _log.debug("NVML could not be shut down: %s", error)


def _open_nvml() -> ModuleType:
    """Load and initialise the bindings, or say what is missing."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise MeterError(
            "the package nvidia-ml-py is not installed; `pip install nvidia-ml-py` brings it"
        ) from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        fixes = {getattr(nvml, code): text for code, text in _FIXES.items()}
        raise MeterError(
            fixes.get(error.value, f"NVML could not be initialised: {error}")
        ) from error
    return nvml
