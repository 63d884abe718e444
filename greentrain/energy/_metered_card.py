"""How the joules of one card come about, whoever made it: its energy counter, or its power."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from greentrain.energy._gauges import Check, CounterGauge, PowerGauge
from greentrain.energy.meter import Method, Source
from greentrain.errors import MeterError

_log = logging.getLogger(__name__)

_LOOK_FOR_OTHERS_S = 60.0
_LOOK_AT_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """What of a card can be read.

    Args:
        energy_mj: What gives the energy counter in mJ, or ``None`` and why there is none.
        power_w: The same for the power in W.
        power_kind: What the power is, such as ``"averaged"``.
        cpu_note: The note on a CPU whose joules are in the figure, or an empty text.
    """

    energy_mj: tuple[Callable[[], float] | None, str]
    power_w: tuple[Callable[[], float] | None, str]
    power_kind: str = "averaged"
    cpu_note: str = ""


class MeteredCard(ABC):
    """One card with the best gauge that it offers, and what is known about its figure.

    Not thread-safe: the meter holds its lock around every call.

    Args:
        index: Its number as this process counts.
        device: What its maker calls it.
        uuid: UUID of the whole card.
        note: What is shared or doubtful about it, or an empty text.
        errors: What reading it may raise.
        now_s: The present time in seconds; joules are counted from here.

    Attributes:
        counter: What its maker calls the energy counter.
        counted, sampled: Standard uncertainty, as a share, of a figure that comes about so, and
            where that is from.

    Raises:
        MeterError: If it tells something at first and then no more.
    """

    counter: ClassVar[str]
    counted: ClassVar[tuple[float, str]]
    sampled: ClassVar[tuple[float, str]]

    def __init__(
        self,
        *,
        index: int,
        device: str,
        uuid: str,
        note: str,
        errors: type[Exception],
        now_s: float,
    ) -> None:
        self.index = index
        self.name = f"gpu:{index}"
        self._device, self._uuid, self._errors = device, uuid, errors
        self._notes = {"card": note}
        self._gone = False
        self._suspect = False
        self._gauge: CounterGauge | PowerGauge | None = None
        self._check: Check | None = None
        readers = self._readers()
        self.covers_cpu = bool(readers.cpu_note)
        self._notes["cpu"] = readers.cpu_note
        try:
            self._open(readers, now_s)
        except errors as error:
            raise MeterError(f"{self.name}, {device}, cannot be read: {error}") from error
        self._look_for_others(now_s)
        self._limit_w: float | None = None
        self._limit_read_s = -math.inf
        self.look_at_limit(now_s)

    @property
    def wants_samples(self) -> bool:
        """Whether :meth:`sample` has to be called many times a second."""
        return not self._gone and (isinstance(self._gauge, PowerGauge) or self._check is not None)

    @property
    def source(self) -> Source:
        """What is known about the figure now."""
        method: Method = "counter" if isinstance(self._gauge, CounterGauge) else "sampled"
        share, reference = self.counted if method == "counter" else self.sampled
        doubtful = self._suspect or self._gauge is None
        return Source(
            name=self.name,
            method=method,
            relative_uncertainty=None if doubtful else share,
            device=self._device,
            uuid=self._uuid,
            power_limit_w=self._limit_w,
            note="; ".join(note for note in self._notes.values() if note),
            reference="" if doubtful else reference,
        )

    def look_at_limit(self, now_s: float) -> None:
        """Read the power limit in force, unless that was done within the last second."""
        if now_s - self._limit_read_s < _LOOK_AT_LIMIT_S:
            return
        self._limit_read_s = now_s
        try:
            limit_w = self._read_limit_w()
        except self._errors:
            limit_w = 0.0
        self._limit_w = limit_w if limit_w > 0 else None

    def sample(self, now_s: float) -> None:
        """Take one sample of what is integrated over time."""
        try:
            if isinstance(self._gauge, PowerGauge):
                self._gauge.update(now_s)
            elif self._check is not None:
                self._compare(self._check, now_s)
        except self._errors as error:
            if self._check is None:
                self._fail(error)
            self._check = None  # the next reading tells whether the counter is well

    def read_j(self, now_s: float) -> float | None:
        """Return the joules since the beginning; ``None`` while the card cannot be read."""
        if self._gone or self._gauge is None:
            return None
        try:
            self._gauge.update(now_s)
        except self._errors as error:
            self._fail(error)
            return None
        if isinstance(self._gauge, CounterGauge) and self._gauge.restarts:
            self._tell(
                "restart",
                f"the {self.counter} restarted; the joules before that since the reading before "
                "are missing",
            )
        if now_s - self._looked_s >= _LOOK_FOR_OTHERS_S:
            self._look_for_others(now_s)
        return self._gauge.energy_j

    @abstractmethod
    def _readers(self) -> Readers:
        """Find out what can be read."""

    @abstractmethod
    def _read_limit_w(self) -> float:
        """Return the power limit in force; 0 where there is none."""

    def _count_others(self) -> int:
        """Return how many other processes are known to run on the card."""
        return 0

    def _is_lost(self, error: Exception) -> bool:
        """Tell whether the card cannot be read ever again."""
        return False

    def _open(self, readers: Readers, now_s: float) -> None:
        (energy_mj, no_energy), (power_w, no_power) = readers.energy_mj, readers.power_w
        if energy_mj is not None:
            self._gauge = CounterGauge(energy_mj, now_s)
            if power_w is not None:
                self._check = Check(self._gauge, power_w, now_s)
        elif power_w is not None:
            self._gauge = PowerGauge(power_w, now_s)
            self._notes["sampled"] = (
                f"no energy {self.counter} ({no_energy}): {readers.power_kind} power, sampled and "
                "integrated"
            )
        else:
            self._tell(
                "nothing",
                f"not measurable: neither energy {self.counter} ({no_energy}) nor power "
                f"({no_power})",
            )

    def _compare(self, check: Check, now_s: float) -> None:
        """Hold the counter against the power drawn over the first seconds."""
        if not check.update(now_s):
            return
        self._check = None
        if check.agree:
            return
        self._suspect = True
        self._gone = check.counted_j == 0  # a counter that stands still knows nothing
        counted_w, drawn_w = check.counted_j / check.seconds, check.drawn_j / check.seconds
        self._tell(
            "suspect",
            f"suspect: over the first {check.seconds:.0f} s the {self.counter} shows "
            f"{counted_w:.0f} W and the power reading {drawn_w:.0f} W",
        )

    def _look_for_others(self, now_s: float) -> None:
        self._looked_s = now_s
        try:
            others = self._count_others()
        except self._errors:
            return  # not allowed, or not known by this driver
        if others:
            self._notes["others"] = (
                f"shared: {others} other process{'es' if others > 1 else ''} on the card, whose "
                "joules are included"
            )

    def _fail(self, error: Exception) -> None:
        self._gone = self._is_lost(error)
        what = "unknown from here on" if self._gone else "unknown while it cannot be read"
        if isinstance(self._gauge, PowerGauge) and not self._gone:
            what += " and bridged by the readings around that"
        self._tell("lost" if self._gone else "failed", f"{what} ({error})")

    def _tell(self, topic: str, text: str) -> None:
        """Note something, and warn about it the first time."""
        if topic not in self._notes:
            _log.warning("%s, %s: %s", self.name, self._device, text)
        self._notes[topic] = text


def first_readable(
    errors: type[Exception], *readers: Callable[[], float], positive: bool = False
) -> tuple[Callable[[], float] | None, str]:
    """Return the first reader that answers, and what the first of them says otherwise."""
    reason = ""
    for read in readers:
        try:
            if read() > 0 or not positive:
                return read, reason
            reason = reason or "reads 0"
        except errors as error:
            reason = reason or str(error)
    return None, reason
