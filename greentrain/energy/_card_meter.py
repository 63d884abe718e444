"""Measure several cards with one lock, one sampling thread and one owning thread."""

from __future__ import annotations

import random
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from greentrain.energy._metered_card import MeteredCard, VisibleCard
from greentrain.energy.meter import Reading, Source
from greentrain.errors import ConfigurationError
from greentrain.texts import get_logger

_log = get_logger(__name__)

# Samples are a half to one and a half of this apart, at random. Evenly spaced samples keep in step
# with bursts of some period, and then see all of them or none. The random error falls with the
# root of the number of samples: at 8 ms, bursts of 20 ms come out within 3 % after 60 s.
_INTERVAL_S = 0.008
# If a sample takes long, the interval grows to keep the thread to this share of the time.
_MAX_SHARE = 0.1
_MAX_INTERVAL_S = 0.1
_JOIN_S = 5.0


def synchronize_cuda(index: int) -> None:
    """Wait for the work queued on one card, if torch runs CUDA and has work there.

    Args:
        index: The card as CUDA counts.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized() or cuda.is_current_stream_capturing():
        return
    # Without memory of this process on the card, synchronising would only create a context.
    if cuda.memory_reserved(index) > 0:
        cuda.synchronize(index)


class CardMeter(ABC):
    """Measure cards; a subclass for each maker describes the arguments.

    Attributes:
        thread_name: Name of the sampling thread.
    """

    thread_name: ClassVar[str]

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
        self._cards: tuple[MeteredCard, ...] = ()
        self._running = False
        self._started_s = 0.0
        self._owner = 0
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    @abstractmethod
    def _open(self) -> Sequence[VisibleCard]:
        """Open the driver and return the cards to measure."""

    @abstractmethod
    def _metered(self, card: VisibleCard, now_s: float) -> MeteredCard:
        """Begin to count a card's joules."""

    @abstractmethod
    def _shut(self) -> None:
        """Release the driver; called after a failed start too."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """One source for each card, with its present quality; empty before the first start."""
        with self._lock:
            if self._running:
                now_s = self._clock()
                for card in self._cards:
                    card.update_limit(now_s)
            return tuple(card.source for card in self._cards)

    @property
    def covers_cpu(self) -> bool:
        """``True`` if a card's figure includes a CPU, so that no CPU is to be added."""
        return any(card.covers_cpu for card in self._cards)

    def start(self) -> None:
        """Find the cards and begin at zero; harmless while it runs.

        Raises:
            MeterError: If the driver cannot be used, or no card is visible; the message has the
                fix.
            ConfigurationError: If a requested device is not visible.
        """
        if self._running:
            return
        try:
            visible = self._open()
            self._owner = threading.get_ident()
            self._synchronize_all(card.index for card in visible)
            now_s = self._clock()
            cards = tuple(self._metered(card, now_s) for card in visible)
        except BaseException:
            self._shut()
            raise
        with self._lock:
            self._cards, self._started_s, self._running = cards, now_s, True
        if any(card.wants_samples for card in cards):
            self._stop = threading.Event()
            self._sampler = threading.Thread(
                target=self._run, args=(self._stop,), name=self.thread_name, daemon=True
            )
            self._sampler.start()

    def read(self) -> Reading:
        """Return the joules of each card since the start.

        A card that cannot be read is ``None``; nothing is raised.
        """
        # Windows are cut by the thread that trains. Another thread, such as a heartbeat, reads
        # without synchronising: that could break a CUDA graph's capture.
        if self._running and threading.get_ident() == self._owner:
            self._synchronize_all(card.index for card in self._cards)
        with self._lock:
            if not self._running:
                return Reading(
                    duration_s=0.0, energy_j=dict.fromkeys(card.name for card in self._cards)
                )
            now_s = self._clock()
            return Reading(
                duration_s=now_s - self._started_s,
                energy_j={card.name: card.read_j(now_s) for card in self._cards},
            )

    def close(self) -> None:
        """Stop the thread and release the driver; may be called twice."""
        with self._lock:
            ran, self._running = self._running, False
            sampler, self._sampler = self._sampler, None
        self._stop.set()
        if sampler is not None:
            sampler.join(_JOIN_S)  # a driver that hangs must not hang the end of training
        if ran:
            self._shut()

    def _run(self, stop: threading.Event) -> None:
        chance = random.Random(0)  # a separate generator leaves training's random numbers alone
        interval_s = _INTERVAL_S
        while not self._wait(stop, interval_s * (0.5 + chance.random())):
            began_s = self._clock()
            if not self._sample():
                return
            sampling_s = self._clock() - began_s
            interval_s = min(max(_INTERVAL_S, sampling_s / _MAX_SHARE), _MAX_INTERVAL_S)

    def _sample(self) -> bool:
        """Sample every card that wants it; return ``True`` if one wants another sample."""
        with self._lock:
            if not self._running:
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
            except Exception as error:  # training's own failure, which training will raise
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
