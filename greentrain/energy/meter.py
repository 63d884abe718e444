"""What every meter gives: sources that say how they know, and readings that subtract to windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from greentrain.errors import ConfigurationError

Method = Literal["counter", "sampled", "estimated", "given"]
METHODS: tuple[Method, ...] = ("counter", "sampled", "estimated", "given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One metered thing, and how its joules are obtained.

    Args:
        name: Short name, unique within a meter: ``"gpu:0"``, ``"cpu"``, ``"ram"``.
        method: ``"counter"`` (a hardware energy counter), ``"sampled"`` (power integrated over
            time), ``"estimated"`` (a model, such as TDP times load) or ``"given"`` (stated by
            whoever configured it).
        relative_uncertainty: Standard uncertainty as a share of the value, or ``None`` where
            nothing is known about it.
        device: What is metered, as its maker names it.
        uuid: What tells two processes' devices apart, where the maker gives it: of a card the UUID
            of the whole card. Without one the name stands for it, once on a host.
        power_limit_w: The power limit in force, where there is one that can be read.
        note: One sentence on how the figure comes about, or what is shared or doubtful about it.
        reference: Where the uncertainty comes from.
        lag_s: Seconds of power that a guard keeps aside, as a reading may be behind: 0.1 unless the
            meter says otherwise, at which NVML's counters and the kernel's load tick.

    Raises:
        ConfigurationError: If the name is empty, or method, uncertainty or lag are not as above.
    """

    name: str
    method: Method
    relative_uncertainty: float | None
    device: str = ""
    uuid: str = ""
    power_limit_w: float | None = None
    note: str = ""
    reference: str = ""
    lag_s: float = 0.1

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
                f"source {self.name!r} has relative_uncertainty={share!r}; it is a share of the "
                "value, 0 or more, or None where unknown"
            )
        if not (math.isfinite(self.lag_s) and self.lag_s >= 0):
            raise ConfigurationError(
                f"source {self.name!r} has lag_s={self.lag_s!r}; it is in seconds, 0 or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Joules per source, since the meter's start or, as a difference, over a window.

    Args:
        duration_s: Seconds covered.
        energy_j: Joules by source name; ``None`` for what could not be measured.

    Example:
        >>> start = Reading(duration_s=1.0, energy_j={"cpu": 10.0, "gpu:0": None})
        >>> end = Reading(duration_s=3.0, energy_j={"cpu": 70.0, "gpu:0": None})
        >>> window = end - start
        >>> window.duration_s, window.total_j, window.complete
        (2.0, 60.0, False)
    """

    duration_s: float
    energy_j: Mapping[str, float | None]

    def __sub__(self, earlier: Reading) -> Reading:
        """Return the window from an earlier reading to this one."""
        energy_j: dict[str, float | None] = {}
        for name in {**self.energy_j, **earlier.energy_j}:
            now, then = self.energy_j.get(name), earlier.energy_j.get(name)
            energy_j[name] = None if now is None or then is None else now - then
        return Reading(duration_s=self.duration_s - earlier.duration_s, energy_j=energy_j)

    def __add__(self, other: Reading) -> Reading:
        """Return two disjoint windows as one; a source that only one of them has is taken as is."""
        energy_j = dict(self.energy_j)
        for name, joules in other.energy_j.items():
            mine = energy_j.get(name, 0.0)
            energy_j[name] = None if mine is None or joules is None else mine + joules
        return Reading(duration_s=self.duration_s + other.duration_s, energy_j=energy_j)

    @property
    def total_j(self) -> float | None:
        """Joules of all sources that are known; ``None`` if none is."""
        known = [energy for energy in self.energy_j.values() if energy is not None]
        return math.fsum(known) if known else None

    @property
    def complete(self) -> bool:
        """Whether every source is known."""
        return bool(self.energy_j) and None not in self.energy_j.values()

    @property
    def power_w(self) -> float | None:
        """Mean watts, or ``None`` where joules or seconds are missing."""
        total_j = self.total_j
        return None if total_j is None or self.duration_s <= 0 else total_j / self.duration_s


NOTHING = Reading(duration_s=0.0, energy_j={})
"""The window in which nothing was measured yet: adding it changes nothing."""


@runtime_checkable
class Meter(Protocol):
    """Gives joules.

    ``start`` begins at zero and is harmless on a meter that runs; ``close`` frees what is held, may
    be called twice, and a closed meter may be started afresh. ``read`` may be called from any
    thread. What cannot be measured is ``None``, never 0.
    """

    @property
    def sources(self) -> tuple[Source, ...]:
        """The metered things; known at the latest once ``start`` has returned."""
        ...

    def start(self) -> None:
        """Begin to measure."""
        ...

    def read(self) -> Reading:
        """Return what was drawn since the start."""
        ...

    def close(self) -> None:
        """Stop measuring."""
        ...
