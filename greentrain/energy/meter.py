"""Define meters, their sources with method and uncertainty, and readings that subtract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from greentrain.energy.energy_total import EnergyTotal, energy_html
from greentrain.energy.job_share import JobShare
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy

Method = Literal["counter", "sampled", "estimated", "given"]
METHODS: tuple[Method, ...] = ("counter", "sampled", "estimated", "given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One metered device, and how its joules are obtained.

    Args:
        name: Short name, unique within a meter: ``"gpu:0"``, ``"cpu"``, ``"ram"``.
        method: ``"counter"`` (a hardware energy counter), ``"sampled"`` (power integrated over
            time), ``"estimated"`` (a model, such as TDP times load) or ``"given"`` (configured by
            the user).
        relative_uncertainty: Standard uncertainty as a share of the value; ``None`` if unknown.
        device: Model of the device.
        uuid: Identifier that distinguishes the devices of two processes, if the maker provides one:
            of a card the UUID of the whole card. Without one, the name is unique on a host.
        power_limit_w: The power limit in force, if one can be read.
        max_power_w: The source's ceiling in watts: no window's mean power is above it. ``None`` if
            it is unknown.
        note: One sentence on the method, or on sharing and doubts.
        reference: Origin of the uncertainty.
        lag_s: Seconds of power that a guard keeps in reserve, as a reading may be behind. By
            default 0.1, the tick of NVML's counters and of the kernel's load.
        job_share: Estimate of this job's part, if others use the device too; ``None`` if unknown.

    Raises:
        ConfigurationError: If the name is empty, or method, uncertainty, ceiling or lag are not as
            above.
    """

    name: str
    method: Method
    relative_uncertainty: float | None
    device: str = ""
    uuid: str = ""
    power_limit_w: float | None = None
    max_power_w: float | None = None
    note: str = ""
    reference: str = ""
    lag_s: float = 0.1
    job_share: JobShare | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("a source's name is empty; name it, such as 'gpu:0'")
        if self.method not in METHODS:
            raise ConfigurationError(
                f"source {self.name!r} has method={self.method!r}; allowed are {', '.join(METHODS)}"
            )
        share = self.relative_uncertainty
        if share is not None and not (math.isfinite(share) and share >= 0):
            raise ConfigurationError(
                f"source {self.name!r} has relative_uncertainty={share!r}; it must be a share of "
                "the value, 0 or more, or None where unknown"
            )
        most_w = self.max_power_w
        if most_w is not None and not (math.isfinite(most_w) and most_w >= 0):
            raise ConfigurationError(
                f"source {self.name!r} has max_power_w={most_w!r}; it must be in watts, 0 or more, "
                "or None where unknown"
            )
        if not (math.isfinite(self.lag_s) and self.lag_s >= 0):
            raise ConfigurationError(
                f"source {self.name!r} has lag_s={self.lag_s!r}; it must be in seconds, 0 or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(EnergyTotal):
    """Joules per source, since the meter's start or, as a difference, over a window.

    Args:
        duration_s: Seconds covered.
        energy_j: Joules by source name; ``None`` for a source that could not be measured.
        late: Names of sources that are still being set up. Their joules here are 0, and the next
            readings have all of them since the meter's start.

    Example:
        >>> start = Reading(duration_s=1.0, energy_j={"cpu": 10.0, "gpu:0": None})
        >>> end = Reading(duration_s=3.0, energy_j={"cpu": 70.0, "gpu:0": None})
        >>> window = end - start
        >>> window.duration_s, window.total_j, window.complete
        (2.0, 60.0, False)
        >>> round(window.total_wh, 4), str(window)
        (0.0167, 'at least 60 J in 2.0 s')
    """

    duration_s: float
    energy_j: Mapping[str, float | None]
    late: frozenset[str] = frozenset()

    def __sub__(self, earlier: Reading) -> Reading:
        """Return the window from an earlier reading to this one.

        Joules that were late at the earlier reading are spread evenly over the time since the
        meter's start.
        """
        earlier = earlier.spread(self)
        energy_j: dict[str, float | None] = {}
        for name in {**self.energy_j, **earlier.energy_j}:
            now, then = self.energy_j.get(name), earlier.energy_j.get(name)
            energy_j[name] = None if now is None or then is None else now - then
        duration_s = self.duration_s - earlier.duration_s
        return Reading(duration_s=duration_s, energy_j=energy_j, late=self.late)

    def __add__(self, other: Reading) -> Reading:
        """Return two disjoint windows as one; a source of only one of them is kept as is."""
        energy_j = dict(self.energy_j)
        for name, joules in other.energy_j.items():
            mine = energy_j.get(name, 0.0)
            energy_j[name] = None if mine is None or joules is None else mine + joules
        return Reading(
            duration_s=self.duration_s + other.duration_s,
            energy_j=energy_j,
            late=self.late | other.late,
        )

    def spread(self, known: Reading) -> Reading:
        """Return this reading with its late joules, taken from a later reading of the same meter.

        Args:
            known: The later reading. Of its joules since the meter's start, this reading gets the
                share of its time.

        Example:
            >>> early = Reading(duration_s=1.0, energy_j={"cpu": 0.0}, late=frozenset({"cpu"}))
            >>> early.spread(Reading(duration_s=4.0, energy_j={"cpu": 40.0})).energy_j
            {'cpu': 10.0}
        """
        arrived = self.late - known.late
        if not arrived or known.duration_s <= 0:
            return self
        share = self.duration_s / known.duration_s
        energy_j = dict(self.energy_j)
        for name in arrived:
            joules = known.energy_j.get(name)
            energy_j[name] = None if joules is None else joules * share
        return Reading(duration_s=self.duration_s, energy_j=energy_j, late=self.late - arrived)

    @property
    def total_j(self) -> float | None:
        """Joules of all measured sources; ``None`` if there is none."""
        known = [energy for energy in self.energy_j.values() if energy is not None]
        return math.fsum(known) if known else None

    @property
    def complete(self) -> bool:
        """``True`` if every source was measured."""
        return bool(self.energy_j) and None not in self.energy_j.values()

    @property
    def power_w(self) -> float | None:
        """Mean watts; ``None`` if joules or seconds are missing."""
        total_j = self.total_j
        return None if total_j is None or self.duration_s <= 0 else total_j / self.duration_s

    def __str__(self) -> str:
        """Return the energy and the seconds in words."""
        least = "" if self.complete or self.total_j is None else "at least "
        return f"{least}{format_energy(self.total_j)} in {self.duration_s:.1f} s"

    def _repr_html_(self) -> str:
        return energy_html(str(self), self.energy_j)


NOTHING = Reading(duration_s=0.0, energy_j={})
"""An empty window: adding it changes nothing."""


@runtime_checkable
class Meter(Protocol):
    """A meter of joules.

    ``start`` begins at zero and is harmless on a meter that runs. ``close`` releases resources and
    may be called twice; a closed meter may be started again. ``read`` may be called from any
    thread. A source that cannot be measured is ``None``, never 0. A source that is still being set
    up is named in the reading's ``late``; ``sources`` waits for it.
    """

    @property
    def sources(self) -> tuple[Source, ...]:
        """The metered devices; complete at the latest once ``start`` has returned."""
        ...

    def start(self) -> None:
        """Begin to measure."""
        ...

    def read(self) -> Reading:
        """Return the energy used since the start."""
        ...

    def close(self) -> None:
        """Stop measuring."""
        ...
