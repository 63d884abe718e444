"""AMD cards, through CodeCarbon's class for AMD's library amdsmi.

Tested with a replacement for ``amdsmi`` only, not yet on a real card.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from greentrain.energy._amd_devices import energy_mj, power_w, visible_cards
from greentrain.energy._card_meter import CardMeter
from greentrain.energy._metered_card import (
    CardReaders,
    MeteredCard,
    VisibleCard,
    first_readable,
)
from greentrain.errors import MeterError


class AmdMeter(CardMeter):
    """Measure the AMD cards that this process can see.

    Works as :class:`greentrain.energy.NvmlMeter` does, from each card's energy accumulator or else
    its power. ``ROCR_VISIBLE_DEVICES``, ``HIP_VISIBLE_DEVICES`` and ``CUDA_VISIBLE_DEVICES`` are
    read as ROCm reads them.

    Args:
        devices: The cards to measure: numbers as this process's ROCm counts the visible cards;
            ``None`` for all that are visible.
        clock: Returns seconds.
        synchronize: Called with a card's number before it is read by the thread that started the
            meter; under torch, ROCm uses the name CUDA.
        wait: Waits on an event for some seconds and returns ``True`` if it was set; tests with a
            fake clock pass their own.

    Raises:
        ConfigurationError: If ``devices`` is empty or holds something else; on ``start``, if a
            requested card is not visible.
    """

    thread_name = "greentrain-amd"

    def _open(self) -> Sequence[VisibleCard]:
        return visible_cards(self._devices)

    def _metered(self, card: VisibleCard, now_s: float) -> MeteredCard:
        return AmdCard(card, MeterError, now_s)

    def _shut(self) -> None:
        pass  # amdsmi stays open: CodeCarbon may be using it


class AmdCard(MeteredCard):
    """Count the joules of one AMD card."""

    counter = "accumulator"
    counted = (0.1, "AMD gives no accuracy for its energy accumulator; 10 % is assumed")
    sampled = (
        0.2,
        "AMD gives no accuracy for its power reading; 10 % is assumed, and as much again for loads "
        "that change between samples",
    )

    def _readers(self) -> CardReaders:
        device = self._card.handle
        package = "MI300A" in self._card.device
        return CardReaders(
            energy_mj=first_readable(MeterError, partial(energy_mj, device)),
            power_w=first_readable(MeterError, partial(power_w, device)),
            cpu_note="the package includes the CPU, so no CPU is to be added" if package else "",
        )

    def _read_limit_w(self) -> float:
        return float(self._card.handle.get_static_details()["power_limit"] or 0.0)
