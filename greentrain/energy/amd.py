"""AMD cards, through CodeCarbon's class for AMD's library amdsmi.

This was tried against a stand-in for ``amdsmi`` only, not yet on a real card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from greentrain.energy._amd_devices import Card, energy_mj, power_w, visible_cards
from greentrain.energy._cards import CardMeter
from greentrain.energy._metered_card import MeteredCard, Readers, first_readable
from greentrain.errors import MeterError

_COUNTER_REFERENCE = "AMD gives no accuracy for its energy accumulator; 10 % is assumed"
_SAMPLED_REFERENCE = (
    "AMD gives no accuracy for its power reading; 10 % is assumed, and as much again for loads "
    "that change between samples"
)


class AmdMeter(CardMeter):
    """Measure the AMD cards that this process may see.

    Each card's energy accumulator is read at the edges of a window; a card without one has its
    power integrated by a thread that takes 125 samples a second (10 where a slow driver allows no
    more). During the first seconds that thread also holds accumulators against power, and one that
    contradicts it is ``suspect`` in its source's note. ``ROCR_VISIBLE_DEVICES``,
    ``HIP_VISIBLE_DEVICES`` and ``CUDA_VISIBLE_DEVICES`` are read as ROCm reads them.

    Args:
        devices: The cards to measure: numbers as this process's ROCm counts the visible cards;
            ``None`` for all that are visible.
        clock: Gives seconds.
        synchronize: Called with a card's number before it is read by the thread that started the
            meter; ROCm under torch goes by the name of CUDA.
        wait: Waits on an event for some seconds and tells whether it was set; tests with a fake
            clock give their own.

    Raises:
        ConfigurationError: If ``devices`` is empty or holds something else; on ``start``, if a card
            that was asked for is not visible.
    """

    thread_name = "greentrain-amd"

    def _open(self) -> Mapping[int, Callable[[float], MeteredCard]]:
        return {card.index: partial(_AmdCard, card) for card in visible_cards(self._devices)}

    def _shut(self) -> None:
        pass  # amdsmi stays open: CodeCarbon may be using it


class _AmdCard(MeteredCard):
    """What is AMD's own about one card."""

    counter = "accumulator"
    counted = (0.1, _COUNTER_REFERENCE)
    sampled = (0.2, _SAMPLED_REFERENCE)

    def __init__(self, card: Card, now_s: float) -> None:
        self._card, self._static = card, card.device.get_static_details()
        super().__init__(
            index=card.index,
            device=str(self._static["name"]),
            uuid=str(self._static["uuid"]),
            note=card.note,
            errors=MeterError,
            now_s=now_s,
        )

    def _readers(self) -> Readers:
        def read_mj() -> float:
            return _told(energy_mj(self._card.device), "energy")

        def read_w() -> float:
            return _told(power_w(self._card.device), "power")

        package = "MI300A" in str(self._static["name"])
        return Readers(
            energy_mj=first_readable(MeterError, read_mj),
            power_w=first_readable(MeterError, read_w),
            cpu_note="the package has the CPU in it, so no CPU is to be added" if package else "",
        )

    def _read_limit_w(self) -> float:
        return float(self._static["power_limit"] or 0.0)


def _told(value: float | None, what: str) -> float:
    if value is None:
        raise MeterError(f"amdsmi tells no {what}")
    return value
