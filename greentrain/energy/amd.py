"""AMD cards, through CodeCarbon's class for AMD's library amdsmi.

This was tried against a stand-in for ``amdsmi`` only, not yet on a real card.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from greentrain.energy._amd_devices import Card, energy_mj, power_w, visible_cards
from greentrain.energy._nvml_card import CounterGauge, PowerGauge
from greentrain.energy.meter import Method, Reading, Source
from greentrain.energy.nvml import synchronize_cuda
from greentrain.errors import MeterError

_log = logging.getLogger(__name__)

_INTERVAL_S = 0.1
_JOIN_S = 5.0
# Some counters stand still or lag (ROCm/amdsmi#38): each is held against the power over this long.
_CHECK_S = 5.0
_CHECK_MAX_GAP_S = 0.5
_CHECK_MAX_RATIO = 1.5
_CHECK_MIN_J = 25.0
_COUNTER_REFERENCE = "AMD gives no accuracy for its energy accumulator; 10 % is assumed"
_SAMPLED_REFERENCE = (
    "AMD gives no accuracy for its power reading; 10 % is assumed, and as much again for loads "
    "that change between samples"
)


class AmdMeter:
    """Measure the AMD cards that this process may see.

    Each card's energy accumulator is read at the edges of a window; a card without one has its
    power integrated by a thread, ten times a second. During the first seconds that thread also
    holds accumulators against power, and one that contradicts it is ``suspect`` in its source's
    note. ``ROCR_VISIBLE_DEVICES``, ``HIP_VISIBLE_DEVICES`` and ``CUDA_VISIBLE_DEVICES`` are read as
    ROCm reads them.

    Args:
        devices: The cards to measure: numbers as this process's ROCm counts the visible cards;
            ``None`` for all that are visible.
        clock: Gives seconds.
        synchronize: Called with a card's number before it is read by the thread that started the
            meter; ROCm under torch goes by the name of CUDA.
        wait: Waits on an event for some seconds and tells whether it was set; tests with a fake
            clock give their own.

    Raises:
        ConfigurationError: On ``start``, if a card that was asked for is not visible.
    """

    def __init__(
        self,
        devices: Sequence[int | str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        synchronize: Callable[[int], None] = synchronize_cuda,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._devices = None if devices is None else tuple(devices)
        self._clock = clock
        self._synchronize = synchronize
        self._wait = wait
        self._lock = threading.Lock()
        self._cards: tuple[_MeteredCard, ...] = ()
        self._running = False
        self._started_s = 0.0
        self._owner = 0
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """One source a card, with what is known about it by now; empty before the first start."""
        with self._lock:
            return tuple(card.source for card in self._cards)

    @property
    def covers_cpu(self) -> bool:
        """Whether a figure is that of a package with the CPU in it, so that none is to be added."""
        return any(card.covers_cpu for card in self._cards)

    def start(self) -> None:
        """Find the cards and begin at zero; harmless while it runs.

        Raises:
            MeterError: If amdsmi cannot be used, or no card is visible; the message has the fix.
            ConfigurationError: If a card that was asked for is not visible.
        """
        if self._running:
            return
        cards = visible_cards(self._devices)
        self._owner = threading.get_ident()
        self._synchronize_all(cards)
        now_s = self._clock()
        with self._lock:
            self._cards = tuple(_MeteredCard(card, now_s) for card in cards)
            self._started_s, self._running = now_s, True
        self._stop = threading.Event()
        self._sampler = threading.Thread(
            target=self._run, args=(self._stop,), name="greentrain-amd", daemon=True
        )
        self._sampler.start()

    def read(self) -> Reading:
        """Return the joules of each card since the start; ``None`` for one that cannot be read."""
        if self._running and threading.get_ident() == self._owner:
            self._synchronize_all([card.card for card in self._cards])
        with self._lock:
            if not self._running:
                unknown = dict.fromkeys((card.name for card in self._cards), None)
                return Reading(duration_s=0.0, energy_j=unknown)
            now_s = self._clock()
            return Reading(
                duration_s=now_s - self._started_s,
                energy_j={card.name: card.read_j(now_s) for card in self._cards},
            )

    def close(self) -> None:
        """Stop the thread; may be called twice."""
        with self._lock:
            self._running = False
            sampler, self._sampler = self._sampler, None
        self._stop.set()
        if sampler is not None:
            sampler.join(_JOIN_S)  # a driver that hangs must not hang the end of training

    def _synchronize_all(self, cards: Iterable[Card]) -> None:
        for card in cards:
            try:
                self._synchronize(card.index)
            except Exception as error:  # the training's own failure, which it will meet itself
                _log.debug("cuda:%d could not be synchronised: %s", card.index, error)

    def _run(self, stop: threading.Event) -> None:
        while not self._wait(stop, _INTERVAL_S) and self._sample():
            pass

    def _sample(self) -> bool:
        """Take one sample of every card that wants it; tell whether one will want another."""
        with self._lock:
            now_s = self._clock()
            wanting = [card for card in self._cards if card.wants_samples]
            for card in wanting:
                card.sample(now_s)
            return any(card.wants_samples for card in wanting)


class _MeteredCard:
    """One card with the best gauge that it offers, and what is known about its figure."""

    def __init__(self, card: Card, now_s: float) -> None:
        static = card.device.get_static_details()
        self.card = card
        self._device = card.device
        self._static = static
        self.name = f"gpu:{card.index}"
        self._notes = {"card": card.note}
        self._suspect = False
        self._gauge: CounterGauge | PowerGauge | None = None
        self._check: tuple[float, PowerGauge] | None = None
        has_power = power_w(self._device) is not None
        if energy_mj(self._device) is not None:
            self._gauge = CounterGauge(self._read_mj, now_s)
            self._check = (now_s, PowerGauge(self._read_w, now_s)) if has_power else None
        elif has_power:
            self._gauge = PowerGauge(self._read_w, now_s)
            self._notes["sampled"] = "no energy accumulator: averaged power, integrated at 10 Hz"
        else:
            self._tell("nothing", "not measurable: neither energy accumulator nor power")
        if self.covers_cpu:
            self._notes["package"] = "the package has the CPU in it, so no CPU is to be added"

    @property
    def covers_cpu(self) -> bool:
        """Whether the figure is that of a package with the CPU in it."""
        return "MI300A" in str(self._static["name"])

    @property
    def wants_samples(self) -> bool:
        """Whether :meth:`sample` has to be called some ten times a second."""
        return isinstance(self._gauge, PowerGauge) or self._check is not None

    @property
    def source(self) -> Source:
        """What is known about the figure now."""
        method: Method = "counter" if isinstance(self._gauge, CounterGauge) else "sampled"
        share, reference = (
            (0.1, _COUNTER_REFERENCE) if method == "counter" else (0.2, _SAMPLED_REFERENCE)
        )
        doubtful = self._suspect or self._gauge is None
        limit_w = self._static["power_limit"]
        return Source(
            name=self.name,
            method=method,
            relative_uncertainty=None if doubtful else share,
            device=str(self._static["name"]),
            uuid=str(self._static["uuid"]),
            power_limit_w=float(limit_w) if limit_w else None,
            note="; ".join(note for note in self._notes.values() if note),
            reference="" if doubtful else reference,
        )

    def read_j(self, now_s: float) -> float | None:
        """Return the joules since the beginning; ``None`` while the card cannot be read."""
        if self._gauge is None:
            return None
        try:
            self._gauge.update(now_s)
        except MeterError as error:
            self._tell("failed", str(error))
            return None
        if isinstance(self._gauge, CounterGauge) and self._gauge.restarts:
            self._tell("restart", "the accumulator fell; some joules before that are missing")
        return self._gauge.energy_j

    def sample(self, now_s: float) -> None:
        """Take one sample of what is integrated over time."""
        try:
            if isinstance(self._gauge, PowerGauge):
                self._gauge.update(now_s)
            elif self._check is not None:
                self._compare(now_s)
        except MeterError as error:
            if self._check is None:
                self._tell("failed", str(error))
            self._check = None  # the next reading tells whether the accumulator is well

    def _compare(self, now_s: float) -> None:
        """Hold the accumulator against the power drawn over the first seconds."""
        if self._check is None or not isinstance(self._gauge, CounterGauge):
            return
        began_s, power = self._check
        power.update(now_s)
        if now_s - began_s < _CHECK_S:
            return
        self._check = None
        self._gauge.update(now_s)
        counted_j, drawn_j = self._gauge.energy_j, power.energy_j
        low_j, high_j = sorted((counted_j, drawn_j))
        agree = high_j - low_j < _CHECK_MIN_J or high_j <= _CHECK_MAX_RATIO * low_j
        if agree or power.widest_gap_s > _CHECK_MAX_GAP_S or self._gauge.restarts:
            return
        self._suspect = True
        seconds = now_s - began_s
        self._tell(
            "suspect",
            f"suspect: over the first {seconds:.0f} s the accumulator shows "
            f"{counted_j / seconds:.0f} W and the power reading {drawn_j / seconds:.0f} W",
        )
        if counted_j == 0:  # one that stands still knows nothing
            self._gauge = None

    def _read_mj(self) -> float:
        return _known(energy_mj(self._device), "energy accumulator")

    def _read_w(self) -> float:
        return _known(power_w(self._device), "power")

    def _tell(self, topic: str, text: str) -> None:
        """Note something, and warn about it the first time."""
        if topic not in self._notes:
            _log.warning("%s, %s: %s", self.name, self._static["name"], text)
        self._notes[topic] = text


def _known(value: float | None, what: str) -> float:
    if value is None:
        raise MeterError(f"unknown while its {what} cannot be read")
    return value
