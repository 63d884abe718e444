"""From joules to grams, window by window."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime
from typing import Any

from greentrain.carbon.intensity import IntensityProvider, mean_intensity
from greentrain.carbon.static import StaticIntensity
from greentrain.errors import ConfigurationError
from greentrain.units import J_PER_WH


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Emissions:
    """Grams of a window, and the intensity that they were worked out with.

    Args:
        grams: Grams of CO2 equivalent, power usage effectiveness included; ``None`` if unknown.
        intensity_g_per_kwh: The window's mean intensity; ``None`` if unknown.
    """

    grams: float | None = None
    intensity_g_per_kwh: float | None = None


UNKNOWN = Emissions()


class CarbonAccount:
    """Turn joules into grams: energy, times PUE, times the intensity while it was drawn.

    Without a zone or a provider there are no grams: none are guessed.

    Args:
        zone: A zone of :class:`StaticIntensity`, such as ``"DE"``.
        intensity: A provider, in place of a zone.
        pue: Power usage effectiveness: energy of the whole facility over that of the computers.

    Raises:
        ConfigurationError: If zone and provider are both given, the zone is not known, the
            intensity is marginal, or the PUE is below 1.

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
    ) -> None:
        if zone is not None and intensity is not None:
            raise ConfigurationError(
                f"zone is {zone!r} and intensity is given too; give one of them"
            )
        if pue is not None and not (math.isfinite(pue) and pue >= 1):
            raise ConfigurationError(
                f"pue is {pue!r}; it is the facility's energy over the computers', 1 or more"
            )
        self._provider = StaticIntensity(zone) if zone is not None else intensity
        if self._provider is not None and self._provider.provenance.signal == "marginal":
            raise ConfigurationError(
                "the intensity is marginal, which may steer decisions only; give an average one"
            )
        self._pue = pue

    def emissions(self, energy_j: float | None, start: datetime, end: datetime) -> Emissions:
        """Return the grams of the joules drawn from ``start`` to ``end`` (aware times)."""
        if self._provider is None:
            return UNKNOWN
        intensity = mean_intensity(self._provider, start, end)
        if intensity is None or energy_j is None:
            return Emissions(intensity_g_per_kwh=intensity)
        kwh = energy_j / (1000.0 * J_PER_WH)
        return Emissions(grams=kwh * (self._pue or 1.0) * intensity, intensity_g_per_kwh=intensity)

    def as_dict(self) -> dict[str, Any] | None:
        """Return provenance and PUE as plain values, for the ledger; ``None`` without any."""
        if self._provider is None and self._pue is None:
            return None
        provenance = None if self._provider is None else self._provider.provenance
        return {
            "intensity": None if provenance is None else dataclasses.asdict(provenance),
            "pue": self._pue,
            "pue_source": None if self._pue is None else "given by the user",
        }
