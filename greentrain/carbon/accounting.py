"""Convert joules to grams, window by window."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from greentrain.carbon.intensity import (
    IntensityProvider,
    Provenance,
    mean_by_hour,
    mean_intensity,
)
from greentrain.carbon.static import StaticIntensity
from greentrain.errors import ConfigurationError
from greentrain.units import J_PER_WH, is_number


class MeteredEnergy(Protocol):
    """Energy of several sources, such as :class:`greentrain.energy.Reading`."""

    @property
    def total_j(self) -> float | None:
        """Joules of all measured sources; ``None`` if there is none."""
        ...


class MeteredWindow(Protocol):
    """Energy used during a time, such as :class:`greentrain.energy.Window`."""

    @property
    def started(self) -> datetime:
        """Start of the window; an aware time."""
        ...

    @property
    def ended(self) -> datetime:
        """End of the window; an aware time."""
        ...

    @property
    def reading(self) -> MeteredEnergy:
        """Energy used in the window."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Emissions:
    """Grams of a window, and the intensity used to compute them.

    Args:
        grams: Grams of CO2 equivalent, power usage effectiveness included; ``None`` if unknown.
        intensity_g_per_kwh: The window's mean intensity; ``None`` if unknown.
        by_hour: Its mean intensity in each UTC hour, from the hour of the window's start on; empty
            if all are the same, or unknown.
    """

    grams: float | None = None
    intensity_g_per_kwh: float | None = None
    by_hour: tuple[float, ...] = ()


UNKNOWN = Emissions()
_AHEAD = timedelta(hours=1)
GIVEN = "given by the user"
"""Default source of a PUE."""


class CarbonAccount:
    """Convert joules to grams: energy times PUE times the intensity while it was used.

    Without a zone or a provider the grams are unknown and never guessed.

    Args:
        zone: A zone of :class:`StaticIntensity`, such as ``"DE"``.
        intensity: A provider, in place of a zone.
        pue: Power usage effectiveness: energy of the whole facility over that of the computers.
        pue_source: Origin of the PUE, such as ``"operator's report for 2025"``; by default
            ``"given by the user"``.

    Raises:
        ConfigurationError: If zone and provider are both given, the zone is unknown, the
            intensity is marginal, the PUE is below 1, or it has a source and no value.

    Example:
        >>> from datetime import UTC
        >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        >>> CarbonAccount().emissions(3600.0, noon, noon).grams is None
        True
    """

    def __init__(
        self,
        *,
        zone: str | None = None,
        intensity: IntensityProvider | None = None,
        pue: float | None = None,
        pue_source: str | None = None,
    ) -> None:
        if zone is not None and intensity is not None:
            raise ConfigurationError(
                f"zone is {zone!r} and intensity is given too; give one of them"
            )
        if pue is not None and not (is_number(pue) and math.isfinite(pue) and pue >= 1):
            raise ConfigurationError(
                f"pue is {pue!r}; it must be the facility's energy over the computers', 1 or more"
            )
        if pue is None and pue_source is not None:
            raise ConfigurationError(
                f"pue_source is {pue_source!r} and there is no PUE; give pue too, such as 1.2"
            )
        if intensity is not None and not callable(getattr(intensity, "history", None)):
            raise ConfigurationError(
                f"intensity is {intensity!r}; it must be a provider of greentrain.carbon, such as "
                "CsvIntensity('de.csv', zone='DE'). A zone alone is given as zone='DE'"
            )
        self._provider = StaticIntensity(zone) if zone is not None else intensity
        if self._provider is not None and self._provider.provenance.signal == "marginal":
            raise ConfigurationError(
                "the intensity is marginal, which may steer decisions only; give an average one"
            )
        self._pue = pue
        self._pue_source = pue_source or GIVEN

    @property
    def provenance(self) -> Provenance | None:
        """Origin of the intensity; ``None`` without one."""
        return None if self._provider is None else self._provider.provenance

    @property
    def pue(self) -> float | None:
        """The PUE; ``None`` without one."""
        return self._pue

    def agrees_with(self, other: CarbonAccount) -> bool:
        """Return whether both convert alike, where both have an intensity or a PUE.

        Example:
            >>> germany = CarbonAccount(zone="DE")
            >>> germany.agrees_with(CarbonAccount(zone="DEU", pue=1.2))
            True
            >>> germany.agrees_with(CarbonAccount(zone="FR"))
            False
        """
        own, given = self._provider, other._provider
        if None not in (self.pue, other.pue) and self.pue != other.pue:
            return False
        if own is None or given is None or own == given:
            return True
        # A provider that does not say when it equals another is known by its description only.
        plain = type(own).__eq__ is object.__eq__ and type(own) is type(given)
        return plain and own.provenance == given.provenance

    def of(self, window: MeteredWindow) -> Emissions:
        """Return the grams of a window's measured sources.

        A window that holds others has the mean intensity of the time outside them.
        """
        found = self.emissions(window.reading.total_j, window.started, window.ended)
        if self._provider is None or found.intensity_g_per_kwh is None:
            return found
        spans = [(start, end) for start, end in getattr(window, "spans", ()) if end > start]
        if not spans or spans == [(window.started, window.ended)]:
            return found
        means = [mean_intensity(self._provider, start, end) for start, end in spans]
        known = [one for one in means if one is not None]
        if len(known) < len(means) or set(known) == {found.intensity_g_per_kwh}:
            return found
        seconds = [(end - start).total_seconds() for start, end in spans]
        own = math.fsum(s * mean for s, mean in zip(seconds, known, strict=True))
        own /= math.fsum(seconds)
        grams = found.grams
        if grams is not None and found.intensity_g_per_kwh:
            grams *= own / found.intensity_g_per_kwh
        return dataclasses.replace(found, grams=grams, intensity_g_per_kwh=own)

    def emissions(self, energy_j: float | None, start: datetime, end: datetime) -> Emissions:
        """Return the grams of joules used from ``start`` to ``end`` (aware times)."""
        if self._provider is None:
            return UNKNOWN
        intensity, by_hour = mean_by_hour(self._provider, start, end)
        if intensity is None or energy_j is None:
            return Emissions(intensity_g_per_kwh=intensity, by_hour=by_hour)
        kwh = energy_j / (1000.0 * J_PER_WH)
        grams = kwh * (self._pue or 1.0) * intensity
        return Emissions(grams=grams, intensity_g_per_kwh=intensity, by_hour=by_hour)

    def upper_g_per_j(self, moment: datetime) -> float | None:
        """Return the most grams that a joule may cause in the next hour, PUE included.

        It uses the highest known value of that hour, or its upper bound if the provider has one.

        Returns:
            Grams per joule; ``None`` if the intensity is unknown at that moment.

        Example:
            >>> from datetime import UTC
            >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
            >>> account = CarbonAccount(zone="DE", pue=2.0)
            >>> account.upper_g_per_j(noon) == 2 * CarbonAccount(zone="DE").upper_g_per_j(noon)
            True
        """
        if self._provider is None:
            return None
        moment = moment.astimezone(UTC)  # an hour from now, also across a change of daylight saving
        ahead = self._provider.history(moment, moment + _AHEAD)
        if not any(one.start <= moment < one.end for one in ahead):
            return None
        highest = max(max(one.g_per_kwh, one.high_g_per_kwh or 0.0) for one in ahead)
        return highest * (self._pue or 1.0) / (1000.0 * J_PER_WH)

    def as_dict(self) -> dict[str, Any] | None:
        """Return provenance and PUE as plain values, for the ledger; ``None`` without any."""
        if self._provider is None and self._pue is None:
            return None
        provenance = None if self._provider is None else self._provider.provenance
        return {
            "intensity": None if provenance is None else dataclasses.asdict(provenance),
            "pue": self._pue,
            "pue_source": None if self._pue is None else self._pue_source,
        }
