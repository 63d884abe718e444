"""Convert joules to grams, window by window."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from greentrain.carbon.intensity import (
    IntensityProvider,
    Interval,
    Provenance,
    check_provider,
    gaps,
    mean_by_hour,
    mean_of,
)
from greentrain.carbon.named import named_intensity
from greentrain.carbon.static import StaticIntensity
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.texts import get_logger
from greentrain.units import J_PER_WH, is_number

_logger = get_logger(__name__)


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
        origins: Origins of its values, where they are not simply those of the provider: estimates,
            forecasts, fallbacks, and the hashes of online answers.
        market_grams: Grams by the market-based intensity; ``None`` if unknown.
        market_intensity_g_per_kwh: The window's market-based intensity; ``None`` if unknown.
    """

    grams: float | None = None
    intensity_g_per_kwh: float | None = None
    by_hour: tuple[float, ...] = ()
    origins: tuple[Provenance, ...] = ()
    market_grams: float | None = None
    market_intensity_g_per_kwh: float | None = None


UNKNOWN = Emissions()
_AHEAD = timedelta(hours=1)
_MOMENT = timedelta(microseconds=1)
GIVEN = "given by the user"
"""Default source of a PUE."""


class CarbonAccount:
    """Convert joules to grams: energy times PUE times the intensity while it was used.

    Without a zone or a provider the grams are unknown and never guessed.

    Args:
        zone: A zone of :class:`StaticIntensity`, such as ``"DE"``.
        intensity: A provider, or its name as of :func:`named_intensity`, in place of a zone.
        pue: Power usage effectiveness: energy of the whole facility over that of the computers.
        pue_source: Origin of the PUE, such as ``"operator's report for 2025"``; by default
            ``"given by the user"``.
        market_intensity: Market-based intensity of the electricity contract in g/kWh, or a provider
            of it. Its grams are recorded next to the location-based ones, and never added to them.

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
        intensity: IntensityProvider | str | None = None,
        pue: float | None = None,
        pue_source: str | None = None,
        market_intensity: float | IntensityProvider | None = None,
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
        if isinstance(intensity, str):
            intensity = named_intensity(intensity)
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
        if self._provider is not None:
            check_provider(self._provider)
        self._pue = pue
        self._pue_source = pue_source or GIVEN
        self._market = _checked_market(market_intensity)
        self._failed: set[str] = set()

    @property
    def provider(self) -> IntensityProvider | None:
        """The provider of the intensity; ``None`` without one."""
        return self._provider

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
        means = [mean_of(self._intervals(start, end), start, end) for start, end in spans]
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
        kwh = None if energy_j is None else energy_j / (1000.0 * J_PER_WH) * (self._pue or 1.0)
        market = self._market_mean(start, end)
        market_grams = None if kwh is None or market is None else kwh * market
        if self._provider is None:
            return Emissions(market_grams=market_grams, market_intensity_g_per_kwh=market)
        intervals = self._intervals(start, end)
        intensity, by_hour = mean_by_hour(intervals, start, end)
        return Emissions(
            grams=None if kwh is None or intensity is None else kwh * intensity,
            intensity_g_per_kwh=intensity,
            by_hour=by_hour,
            origins=tuple(dict.fromkeys(one.provenance for one in intervals if one.provenance)),
            market_grams=market_grams,
            market_intensity_g_per_kwh=market,
        )

    def bounds_g(
        self, energy_j: float, start: datetime, end: datetime
    ) -> tuple[float | None, float | None]:
        """Return the grams of joules by the lower and the upper bounds of the intensity.

        Args:
            energy_j: The joules.
            start: When their use began, aware.
            end: When it ended, aware.

        Returns:
            ``None`` for each bound that an interval of this time lacks.
        """
        kwh = energy_j / (1000.0 * J_PER_WH) * (self._pue or 1.0)
        intervals = self._intervals(start, end)
        found: list[float | None] = []
        for name in ("low_g_per_kwh", "high_g_per_kwh"):
            bounded = [
                dataclasses.replace(
                    one, g_per_kwh=getattr(one, name), low_g_per_kwh=None, high_g_per_kwh=None
                )
                for one in intervals
                if getattr(one, name) is not None
            ]
            mean = mean_of(bounded, start, end)
            found.append(None if mean is None else kwh * mean)
        return found[0], found[1]

    def _intervals(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return what is known of a time; the part that is not published yet, as forecast."""
        if self._provider is None:
            return ()
        start, end = start.astimezone(UTC), max(start, end).astimezone(UTC)
        found = list(self._read_from(self._provider.history, start, end))
        left = gaps(found, start, max(end, start + _MOMENT))
        forecast = getattr(self._provider, "forecast", None)
        if not left or forecast is None:
            return found
        for one in self._read_from(forecast, end, _AHEAD):
            for since, until in left:
                if one.start < until and one.end > since:
                    first, last = max(one.start, since), min(one.end, until)
                    found.append(dataclasses.replace(one, start=first, end=last))
        return sorted(found, key=lambda one: one.start)

    def _read_from(
        self, read: Callable[..., Sequence[Interval]], *arguments: Any
    ) -> Sequence[Interval]:
        """Return the answer of a provider; none if it fails, which is logged once."""
        name = getattr(read, "__qualname__", "")
        try:
            found = read(*arguments)
        except IntensityError as error:
            if name not in self._failed:
                self._failed.add(name)
                _logger.warning("grams are unknown for a time: %s", error)
            return ()
        self._failed.discard(name)
        return found

    def _market_mean(self, start: datetime, end: datetime) -> float | None:
        if self._market is None or isinstance(self._market, float):
            return self._market
        return mean_of(self._read_from(self._market.history, start, max(start, end)), start, end)

    def upper_g_per_j(self, moment: datetime) -> float | None:
        """Return the most grams that a joule may cause in the next hour, PUE included.

        It uses the highest known or predicted value of that hour, or its upper bound if there is
        one.

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
        ahead = list(self._read_from(self._provider.history, moment, moment + _AHEAD))
        if (forecast := getattr(self._provider, "forecast", None)) is not None:
            ahead += self._read_from(forecast, moment, _AHEAD)
        if not any(one.start <= moment < one.end for one in ahead):
            return None
        highest = max(max(one.g_per_kwh, one.high_g_per_kwh or 0.0) for one in ahead)
        return highest * (self._pue or 1.0) / (1000.0 * J_PER_WH)

    def as_dict(self) -> dict[str, Any] | None:
        """Return provenance and PUE as plain values, for the ledger; ``None`` without any."""
        if self._provider is None and self._pue is None and self._market is None:
            return None
        provenance = None if self._provider is None else self._provider.provenance
        found = {
            "intensity": None if provenance is None else provenance.as_dict(),
            "pue": self._pue,
            "pue_source": None if self._pue is None else self._pue_source,
        }
        if self._market is not None:
            found["market_intensity"] = (
                {"g_per_kwh": self._market}
                if isinstance(self._market, float)
                else self._market.provenance.as_dict()
            )
        return found


def _checked_market(given: Any) -> float | IntensityProvider | None:
    if given is None or callable(getattr(given, "history", None)):
        return given  # type: ignore[no-any-return]
    if not is_number(given) or not (math.isfinite(given) and given >= 0):
        raise ConfigurationError(
            f"market_intensity is {given!r}; it must be the factor of the electricity contract in "
            "g/kWh, 0 or more, or a provider of it"
        )
    return float(given)
