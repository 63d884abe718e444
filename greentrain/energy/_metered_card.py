"""Count one card's joules, for any maker: by its energy counter or by its power."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from greentrain.energy._joule_counters import (
    CounterCheck,
    EnergyCounter,
    PowerIntegrator,
    TickSpreader,
)
from greentrain.energy.job_share import JobShare
from greentrain.energy.meter import Source
from greentrain.errors import MeterError
from greentrain.texts import get_logger

_log = get_logger(__name__)

_COUNT_OTHERS_EVERY_S = 60.0
_READ_LIMIT_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleCard:
    """A card, or a die with its own figure, that this process can see.

    Args:
        index: Its number as this process's CUDA or ROCm counts.
        handle: The driver's object for the whole card, also where only a MIG instance is visible.
        device: Name of the card for people.
        uuid: UUID of the whole card.
        note: Sharing and doubts about the figure, or an empty text.
    """

    index: int
    handle: Any
    device: str
    uuid: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReaders:
    """Functions that read one card.

    Args:
        energy_mj: Function that reads the energy counter in mJ; or ``None`` and the reason.
        power_w: The same for the power in W.
        power_kind: Kind of power, such as ``"averaged"``.
        cpu_note: Note on a CPU whose joules are in the figure, or an empty text.
    """

    energy_mj: tuple[Callable[[], float] | None, str]
    power_w: tuple[Callable[[], float] | None, str]
    power_kind: str = "averaged"
    cpu_note: str = ""


class MeteredCard(ABC):
    """Count the joules of one card by the best method that it offers.

    Not thread-safe: the meter holds its lock around every call.

    Args:
        card: The card.
        errors: Exception that reading it may raise.
        now_s: The present time in seconds; joules are counted from here.

    Attributes:
        counter: Its maker's term for the energy counter.
        counted: Standard uncertainty of a counter's figure as a share, and its reference.
        sampled: The same for integrated power.

    Raises:
        MeterError: If a value can be read at first and then no more.
    """

    counter: ClassVar[str]
    counted: ClassVar[tuple[float, str]]
    sampled: ClassVar[tuple[float, str]]

    def __init__(self, card: VisibleCard, errors: type[Exception], now_s: float) -> None:
        self.index = card.index
        self.name = f"gpu:{card.index}"
        self._card, self._errors = card, errors
        self._gone = self._suspect = False
        self._joules: EnergyCounter | PowerIntegrator | None = None
        self._spread: TickSpreader | None = None
        self._check: CounterCheck | None = None
        readers = self._readers()
        self.covers_cpu = bool(readers.cpu_note)
        self._notes = {"card": card.note, "cpu": readers.cpu_note}
        try:
            self._open(readers, now_s)
        except errors as error:
            raise MeterError(f"{self.name}, {card.device}, cannot be read: {error}") from error
        self._count_others(now_s)
        self._update_share(now_s)
        self._limit_w: float | None = None
        self._highest_limit_w = 0.0  # infinite once a limit was unknown
        self._limit_read_s = -math.inf
        self.update_limit(now_s)

    @property
    def wants_samples(self) -> bool:
        """``True`` while :meth:`sample` has to be called many times a second."""
        integrates = isinstance(self._joules, PowerIntegrator) or self._check is not None
        return integrates and not self._gone

    @property
    def source(self) -> Source:
        """The source, with its present quality."""
        counts = isinstance(self._joules, EnergyCounter)
        share, reference = self.counted if counts else self.sampled
        doubtful = self._suspect or self._joules is None
        return Source(
            name=self.name,
            method="counter" if counts else "sampled",
            relative_uncertainty=None if doubtful else share,
            device=self._card.device,
            uuid=self._card.uuid,
            power_limit_w=self._limit_w,
            max_power_w=self._max_power_w,
            note="; ".join(filter(None, self._notes.values())),
            reference="" if doubtful else reference,
            job_share=self._job_share(),
        )

    @property
    def _max_power_w(self) -> float | None:
        """The highest limit since the start; ``None`` if it was unknown or the card exceeded it.

        The limit does not hold for a CPU in the same package.
        """
        most_w = self._highest_limit_w
        exceeded = self._spread is not None and self._spread.exceeded
        if isinstance(self._joules, PowerIntegrator):
            exceeded = self._joules.highest_w > most_w
        return None if self.covers_cpu or exceeded or math.isinf(most_w) else most_w

    def update_limit(self, now_s: float) -> None:
        """Read the power limit in force, unless that was done within the last second."""
        if now_s - self._limit_read_s < _READ_LIMIT_EVERY_S:
            return
        self._limit_read_s = now_s
        try:
            limit_w = self._read_limit_w()
        except self._errors:
            limit_w = 0.0
        self._limit_w = limit_w if limit_w > 0 else None
        self._highest_limit_w = max(self._highest_limit_w, self._limit_w or math.inf)

    def sample(self, now_s: float) -> None:
        """Take one sample of a power that is integrated over time."""
        try:
            if isinstance(self._joules, PowerIntegrator):
                self._joules.update(now_s)
            elif self._check is not None:
                self._compare(self._check, now_s)
        except self._errors as error:
            if self._check is None:
                self._fail(error)
            self._check = None  # the next reading shows if the counter works

    def read_j(self, now_s: float) -> float | None:
        """Return the joules since the beginning; ``None`` while the card cannot be read."""
        if self._gone or self._joules is None:
            return None
        try:
            if self._spread is None:
                self._joules.update(now_s)
            else:
                self.update_limit(now_s)
                # The limit does not hold for a CPU in the same package.
                self._spread.update(now_s, None if self.covers_cpu else self._limit_w)
        except self._errors as error:
            self._fail(error)
            return None
        if isinstance(self._joules, EnergyCounter) and self._joules.restarts:
            self._note(
                "restart",
                f"the {self.counter} restarted; its joules from the reading before the restart to "
                "the restart are missing",
            )
        self._update_share(now_s)
        if now_s - self._counted_others_s >= _COUNT_OTHERS_EVERY_S:
            self._count_others(now_s)
        return (self._spread or self._joules).energy_j

    @abstractmethod
    def _readers(self) -> CardReaders:
        """Find out what can be read."""

    @abstractmethod
    def _read_limit_w(self) -> float:
        """Return the power limit in force; 0 if there is none."""

    def _other_processes(self) -> int:
        """Return how many other processes run on the card."""
        return 0

    def _update_share(self, now_s: float) -> None:  # noqa: B027 (not every maker has samples)
        """Read what :meth:`_job_share` is computed from."""

    def _job_share(self) -> JobShare | None:
        """Return this job's share of the card; ``None`` if it is unknown, or the job is alone."""
        return None

    def _is_lost(self, error: Exception) -> bool:
        """Return ``True`` if the card cannot be read again."""
        return False

    def _open(self, readers: CardReaders, now_s: float) -> None:
        (energy_mj, no_energy), (power_w, no_power) = readers.energy_mj, readers.power_w
        if energy_mj is not None:
            self._joules = EnergyCounter(energy_mj, now_s)
            self._spread = TickSpreader(self._joules, self._power_now_w(power_w), now_s)
            if power_w is not None:
                self._check = CounterCheck(self._joules, power_w, now_s)
        elif power_w is not None:
            self._joules = PowerIntegrator(power_w, now_s)
            self._notes["sampled"] = (
                f"no energy {self.counter} ({no_energy}): {readers.power_kind} power, sampled and "
                "integrated"
            )
        else:
            self._note(
                "nothing",
                f"not measurable: neither energy {self.counter} ({no_energy}) nor power "
                f"({no_power})",
            )

    def _power_now_w(self, power_w: Callable[[], float] | None) -> Callable[[], float | None]:
        """Return a function that reads the power, and returns ``None`` if it cannot be read."""

        def read_w() -> float | None:
            try:
                return None if power_w is None else power_w()
            except self._errors:
                return None

        return read_w

    def _compare(self, check: CounterCheck, now_s: float) -> None:
        """Compare the counter with the power over the first seconds."""
        if not check.update(now_s):
            return
        self._check = None
        if check.agree:
            return
        self._suspect = True
        self._gone = check.counted_j == 0  # a counter that does not move measures nothing
        counted_w, power_w = check.counted_j / check.seconds, check.integrated_j / check.seconds
        self._note(
            "suspect",
            f"suspect: over the first {check.seconds:.0f} s the {self.counter} shows "
            f"{counted_w:.0f} W and the power reading {power_w:.0f} W",
        )

    def _count_others(self, now_s: float) -> None:
        self._counted_others_s = now_s
        try:
            others = self._other_processes()
        except self._errors:
            return  # not permitted, or not supported by this driver
        if others:
            self._notes["others"] = (
                f"shared: {others} other process{'es' if others > 1 else ''} on the card, whose "
                "joules are included"
            )

    def _fail(self, error: Exception) -> None:
        self._gone = self._is_lost(error)
        what = "unknown from here on" if self._gone else "unknown while it cannot be read"
        if isinstance(self._joules, PowerIntegrator) and not self._gone:
            what += " and bridged by the readings around the gap"
        self._note("lost" if self._gone else "failed", f"{what} ({error})")

    def _note(self, topic: str, text: str) -> None:
        """Add a note to the source, and log it the first time."""
        if topic not in self._notes:
            _log.warning("%s, %s: %s", self.name, self._card.device, text)
        self._notes[topic] = text


def first_readable(
    errors: type[Exception], *readers: Callable[[], float], positive: bool = False
) -> tuple[Callable[[], float] | None, str]:
    """Return the first reader that works; or ``None`` and the first reader's error."""
    reason = ""
    for read in readers:
        try:
            if read() > 0 or not positive:
                return read, reason
            reason = reason or "reads 0"
        except errors as error:
            reason = reason or str(error)
    return None, reason
