"""NVIDIA cards through NVML, the driver's own library: no ``nvidia-smi``, no subprocess."""

from __future__ import annotations

import importlib
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

from greentrain.energy._nvml_card import MeteredCard
from greentrain.energy._nvml_devices import select_cards, visible_cards
from greentrain.energy.meter import Reading, Source
from greentrain.errors import ConfigurationError, MeterError

_log = logging.getLogger(__name__)

# Samples are a half to one and a half of this apart, at random: evenly spaced ones keep in step
# with bursts of some period, and then see all of them or none. What is left is chance, which falls
# with the root of the number of samples: at 8 ms bursts of 20 ms come out within 3 % after 60 s.
_INTERVAL_S = 0.008
# Where a sample takes long, as many are left out as keep the thread to this share of the time.
_MAX_SHARE = 0.1
_MAX_INTERVAL_S = 0.1
_JOIN_S = 5.0

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


def synchronize_cuda(index: int) -> None:
    """Wait for the work queued on one card, if torch runs CUDA and has work there.

    Args:
        index: The card as CUDA counts.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized() or cuda.is_current_stream_capturing():
        return
    # On a card that holds none of this process's memory, synchronising would only make a context.
    if cuda.memory_reserved(index) > 0:
        cuda.synchronize(index)


class NvmlMeter:
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

    def __init__(
        self,
        devices: Sequence[int | str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        synchronize: Callable[[int], None] = synchronize_cuda,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        _check_devices(devices)
        self._devices = None if devices is None else tuple(devices)
        self._clock = clock
        self._synchronize = synchronize
        self._wait = wait
        self._lock = threading.Lock()
        self._nvml: ModuleType | None = None
        self._cards: tuple[MeteredCard, ...] = ()
        self._started_s = 0.0
        self._owner = 0
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """One source a card, with what is known about it by now; empty before the first start."""
        with self._lock:
            if self._nvml is not None:
                now_s = self._clock()
                for card in self._cards:
                    card.look_at_limit(now_s)
            return tuple(card.source for card in self._cards)

    @property
    def covers_cpu(self) -> bool:
        """Whether a figure is that of a module with the CPU on it, so that none is to be added."""
        return any(card.covers_cpu for card in self._cards)

    def start(self) -> None:
        """Find the cards and begin at zero; harmless while it runs.

        Raises:
            MeterError: If NVML cannot be used, or no card is visible; the message has the fix.
            ConfigurationError: If a device asked for is not visible.
        """
        if self._nvml is not None:
            return
        nvml = _open_nvml()
        try:
            cards = select_cards(visible_cards(nvml), self._devices)
            self._owner = threading.get_ident()
            self._synchronize_all(card.index for card in cards)
            now_s = self._clock()
            metered = tuple(MeteredCard(nvml, card, now_s) for card in cards)
        except BaseException as error:
            nvml.nvmlShutdown()
            if isinstance(error, nvml.NVMLError):
                raise MeterError(f"the NVIDIA cards cannot be listed: {error}") from error
            raise
        with self._lock:
            self._nvml, self._cards, self._started_s = nvml, metered, now_s
        if any(card.wants_samples for card in metered):
            self._stop = threading.Event()
            self._sampler = threading.Thread(
                target=self._run, args=(self._stop,), name="greentrain-nvml", daemon=True
            )
            self._sampler.start()

    def read(self) -> Reading:
        """Return the joules of each card since the start.

        A card that cannot be read is ``None``; nothing is raised.
        """
        # Windows are cut by the thread that trains. Another one, such as a heartbeat, takes the
        # figures as they are: synchronising there could break a CUDA graph's capture.
        if threading.get_ident() == self._owner:
            self._synchronize_all(card.card.index for card in self._cards)
        with self._lock:
            if self._nvml is None:
                unknown = dict.fromkeys((card.name for card in self._cards), None)
                return Reading(duration_s=0.0, energy_j=unknown)
            now_s = self._clock()
            return Reading(
                duration_s=now_s - self._started_s,
                energy_j={card.name: card.read_j(now_s) for card in self._cards},
            )

    def close(self) -> None:
        """Stop the thread and let go of NVML; may be called twice."""
        with self._lock:
            nvml, self._nvml = self._nvml, None
            sampler, self._sampler = self._sampler, None
        self._stop.set()
        if sampler is not None:
            sampler.join(_JOIN_S)  # a driver that hangs must not hang the end of training
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError as error:
                _log.debug("NVML could not be shut down: %s", error)

    def _run(self, stop: threading.Event) -> None:
        chance = random.Random(0)  # of its own: the numbers that training draws stay the same
        interval_s = _INTERVAL_S
        while not self._wait(stop, interval_s * (0.5 + chance.random())):
            began_s = self._clock()
            if not self._sample():
                return
            took_s = self._clock() - began_s
            interval_s = min(max(_INTERVAL_S, took_s / _MAX_SHARE), _MAX_INTERVAL_S)

    def _sample(self) -> bool:
        """Take one sample of every card that wants it; tell whether one will want another."""
        with self._lock:
            if self._nvml is None:
                return False
            now_s = self._clock()
            wanting = [card for card in self._cards if card.wants_samples]
            for card in wanting:
                card.sample(now_s)
            return any(card.wants_samples for card in wanting)

    def _synchronize_all(self, indices: Iterable[int]) -> None:
        for index in indices:
            try:
                self._synchronize(index)
            except Exception as error:  # the training's own failure, which it will meet itself
                _log.debug("cuda:%d could not be synchronised: %s", index, error)


def _check_devices(devices: Sequence[int | str] | None) -> None:
    if devices is None:
        return
    if isinstance(devices, str) or not isinstance(devices, Sequence) or not devices:
        raise ConfigurationError(
            f"devices is {devices!r}; give a list of card numbers or UUIDs, such as [0], or None"
        )
    for device in devices:
        number = isinstance(device, int) and not isinstance(device, bool) and device >= 0
        if not number and not (isinstance(device, str) and device):
            raise ConfigurationError(
                f"devices has {device!r}; a card is its number as CUDA counts, 0 or more, or its "
                "UUID"
            )


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
