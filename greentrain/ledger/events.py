"""Validate the events of a run, and convert them to the content of ledger rows.

Events are accepted by their attributes, so that the ledger does not depend on the meters.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from greentrain.errors import ConfigurationError
from greentrain.ledger.hashing import canonical
from greentrain.units import utc_text

Row = tuple[str, Mapping[str, Any]]
"""Kind and content of a row that is to be appended."""


class SourceLike(Protocol):
    """One metered device, such as a :class:`greentrain.energy.Source`."""

    @property
    def name(self) -> str:
        """Name, unique within a run; on another host with a prefix, ``"node1/gpu:0"``."""

    @property
    def method(self) -> str:
        """Method by which its joules are obtained."""

    @property
    def relative_uncertainty(self) -> float | None:
        """Standard uncertainty as a share of the value; ``None`` if unknown."""

    @property
    def device(self) -> str:
        """Model of the device; empty if unknown, like the texts below."""

    @property
    def uuid(self) -> str:
        """Identifier of the device."""

    @property
    def power_limit_w(self) -> float | None:
        """Power limit in watts."""

    @property
    def note(self) -> str:
        """Remarks on the quality of its figures."""

    @property
    def reference(self) -> str:
        """Origin of the uncertainty."""


class ReadingLike(Protocol):
    """Seconds, and joules by source."""

    @property
    def duration_s(self) -> float:
        """Seconds covered."""

    @property
    def energy_j(self) -> Mapping[str, float | None]:
        """Joules by source name; ``None`` for a source that could not be measured."""

    @property
    def total_j(self) -> float | None:
        """Joules of all measured sources; ``None`` if there is none."""
        ...


class WindowLike(Protocol):
    """Energy used during one phase, such as a :class:`greentrain.energy.Window`."""

    @property
    def phase(self) -> str:
        """Name of the phase."""

    @property
    def started(self) -> datetime:
        """Start, as an aware time."""

    @property
    def ended(self) -> datetime:
        """End, as an aware time."""

    @property
    def reading(self) -> ReadingLike:
        """Energy used, without the phases nested in this one."""

    @property
    def epoch(self) -> int | None:
        """Number of the epoch, if there is one."""

    @property
    def reservation_id(self) -> str | None:
        """Reservation that pays for the phase, if there is one."""


class OriginLike(Protocol):
    """Origin of a carbon intensity, such as :class:`greentrain.carbon.Provenance`."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        ...


class EmissionsLike(Protocol):
    """Emissions of a window, such as :class:`greentrain.carbon.Emissions`."""

    @property
    def grams(self) -> float | None:
        """Grams of CO2 equivalent; ``None`` if unknown."""

    @property
    def intensity_g_per_kwh(self) -> float | None:
        """Mean carbon intensity during the window; ``None`` if unknown."""

    @property
    def by_hour(self) -> Sequence[float]:
        """Mean carbon intensity in each UTC hour of the window; empty if they are all the same."""
        ...

    @property
    def origins(self) -> Sequence[OriginLike]:
        """Origins of its values, where they are not simply those of the run's provider."""
        ...

    @property
    def market_grams(self) -> float | None:
        """Grams by the market-based intensity; ``None`` if unknown."""

    @property
    def market_intensity_g_per_kwh(self) -> float | None:
        """Market-based intensity during the window; ``None`` if unknown."""


def source_content(run_id: str, source: SourceLike) -> dict[str, Any]:
    """Return the content of a source's row.

    Raises:
        ConfigurationError: If a number is not finite.
    """
    numbers = {
        "relative_uncertainty": source.relative_uncertainty,
        "power_limit_w": source.power_limit_w,
    }
    _check_finite(f"the source {source.name!r}", numbers)
    texts = {name: getattr(source, name) or None for name in _TEXTS}
    return {"run_id": run_id, "name": source.name, "method": source.method, **numbers, **texts}


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
    market = None if emissions is None else emissions.market_grams
    market_intensity = None if emissions is None else emissions.market_intensity_g_per_kwh
    numbers = {
        "duration_s": reading.duration_s,
        "grams": grams,
        "intensity": intensity,
        "market-based grams": market,
        "market-based intensity": market_intensity,
    }
    _check_finite("a window", by_source)
    _check_finite("a window", numbers)
    by_hour = () if emissions is None else tuple(emissions.by_hour)
    _check_finite("a window", {f"intensity in hour {n}": one for n, one in enumerate(by_hour)})
    origins = [] if emissions is None else [one.as_dict() for one in emissions.origins]
    measured = [joules for joules in by_source.values() if joules is not None]
    return {
        "run_id": run_id,
        "reservation_id": window.reservation_id,
        "phase": window.phase,
        "epoch": window.epoch,
        "started_utc": utc_text(window.started),
        "duration_s": reading.duration_s,
        "energy_j": math.fsum(measured) if measured else None,
        "by_source": canonical(by_source),
        "complete": len(measured) == len(by_source) > 0,
        "emissions_g": grams,
        "intensity_g_per_kwh": intensity,
        "intensity_by_hour": canonical(by_hour) if by_hour else None,
        "intensity_origins": canonical(origins) if origins else None,
        "market_emissions_g": market,
        "market_intensity_g_per_kwh": market_intensity,
    }


def kept(rows: Iterable[Row]) -> list[Row]:
    """Return the rows without superseded heartbeats: only the last one of each phase is kept."""
    found: dict[Hashable, Row] = {}
    for place, (kind, content) in enumerate(rows):
        beat = kind == "heartbeat"
        key: Hashable = (content["phase"], content["started_utc"]) if beat else place
        found.pop(key, None)
        found[key] = (kind, content)
    return list(found.values())


_TEXTS = ("device", "uuid", "note", "reference")


def _check_finite(owner: str, numbers: Mapping[str, float | None]) -> None:
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise ConfigurationError(
                f"{name} of {owner} is {value!r}; give a finite number, or None if it is unknown"
            )
