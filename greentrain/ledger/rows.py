"""What a run is told of, by shape alone, and the rows that it becomes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from greentrain.errors import ConfigurationError
from greentrain.ledger.schema import canonical
from greentrain.units import utc_text

Row = tuple[str, Mapping[str, Any]]
"""The kind of a row, and its content."""


class SourceLike(Protocol):
    """One metered thing, such as a :class:`greentrain.energy.Source`."""

    @property
    def name(self) -> str:
        """Short name, unique within a run; of another host with a prefix, ``"node1/gpu:0"``."""
        ...

    @property
    def method(self) -> str:
        """How its joules are obtained."""
        ...

    @property
    def relative_uncertainty(self) -> float | None:
        """Standard uncertainty as a share of the value; ``None`` if unknown."""
        ...

    @property
    def device(self) -> str:
        """What is metered; empty if unknown, as are the texts below."""
        ...

    @property
    def uuid(self) -> str:
        """What tells it from others of its kind."""
        ...

    @property
    def power_limit_w(self) -> float | None:
        """The power limit in force."""
        ...

    @property
    def note(self) -> str:
        """What should be known about its figures."""
        ...

    @property
    def reference(self) -> str:
        """Where the uncertainty comes from."""
        ...


class ReadingLike(Protocol):
    """Seconds, and joules by source; ``None`` for what could not be measured."""

    @property
    def duration_s(self) -> float:
        """Seconds covered."""
        ...

    @property
    def energy_j(self) -> Mapping[str, float | None]:
        """Joules by source name."""
        ...


class WindowLike(Protocol):
    """What was drawn during one phase, such as a :class:`greentrain.energy.Window`."""

    @property
    def phase(self) -> str:
        """Name of the phase."""
        ...

    @property
    def started(self) -> datetime:
        """When it began; an aware time."""
        ...

    @property
    def ended(self) -> datetime:
        """When it ended; an aware time."""
        ...

    @property
    def reading(self) -> ReadingLike:
        """What was drawn, apart from the phases inside it."""
        ...

    @property
    def epoch(self) -> int | None:
        """The epoch, where there is one."""
        ...

    @property
    def reservation_id(self) -> str | None:
        """The reservation that it is paid from, where there is one."""
        ...


class EmissionsLike(Protocol):
    """Grams of a window, such as :class:`greentrain.carbon.Emissions`."""

    @property
    def grams(self) -> float | None:
        """Grams of CO2 equivalent; ``None`` if unknown."""
        ...

    @property
    def intensity_g_per_kwh(self) -> float | None:
        """The window's mean intensity; ``None`` if unknown."""
        ...


def source_content(run_id: str, source: SourceLike) -> dict[str, Any]:
    """Return the content of a source's row.

    Raises:
        ConfigurationError: If a number is not finite.
    """
    numbers = {
        "relative_uncertainty": source.relative_uncertainty,
        "power_limit_w": source.power_limit_w,
    }
    _check(f"the source {source.name!r}", numbers)
    return {
        "run_id": run_id,
        "name": source.name,
        "method": source.method,
        **numbers,
        "device": source.device or None,
        "uuid": source.uuid or None,
        "note": source.note or None,
        "reference": source.reference or None,
    }


def window_content(
    run_id: str, window: WindowLike, emissions: EmissionsLike | None
) -> dict[str, Any]:
    """Return the content of a window's row, or of a heartbeat's.

    Raises:
        ConfigurationError: If a number is not finite, or a time is naive.
    """
    reading = window.reading
    by_source = dict(reading.energy_j)
    grams = None if emissions is None else emissions.grams
    intensity = None if emissions is None else emissions.intensity_g_per_kwh
    numbers = {"duration_s": reading.duration_s, "grams": grams, "intensity": intensity}
    _check("a window", by_source)
    _check("a window", numbers)
    known = [joules for joules in by_source.values() if joules is not None]
    return {
        "run_id": run_id,
        "reservation_id": window.reservation_id,
        "phase": window.phase,
        "epoch": window.epoch,
        "started_utc": utc_text(window.started),
        "duration_s": reading.duration_s,
        "energy_j": math.fsum(known) if known else None,
        "by_source": canonical(by_source),
        "complete": len(known) == len(by_source) > 0,
        "emissions_g": grams,
        "intensity_g_per_kwh": intensity,
    }


def kept(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that still say something: of one phase's heartbeats the last."""
    found: dict[Hashable, Row] = {}
    for place, (kind, content) in enumerate(rows):
        beat = kind == "heartbeat"
        key: Hashable = (content["phase"], content["started_utc"]) if beat else place
        found.pop(key, None)
        found[key] = (kind, content)
    return list(found.values())


def _check(what: str, numbers: Mapping[str, float | None]) -> None:
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise ConfigurationError(f"{name} of {what} is {value!r}; it has to be finite")
