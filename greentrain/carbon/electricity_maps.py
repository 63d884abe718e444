"""Intensity of a zone from Electricity Maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from greentrain.carbon.intensity import Basis, Interval, Kind, Provenance
from greentrain.carbon.online import Answer, Client, OnlineIntensity
from greentrain.carbon.zones import did_you_mean
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.units import utc_now

URL = "https://api.electricitymaps.com"
KEY = "ELECTRICITY_MAPS_API_KEY"
_HORIZONS = (6, 24, 48, 72)
"""Hours that a forecast can cover."""
_HOUR = timedelta(hours=1)
_RECENT = timedelta(hours=23)
"""The free contract has the last 24 hours only."""
_MOST_DAYS = timedelta(days=10)


class ElectricityMapsIntensity(OnlineIntensity):
    """Average, consumption-based intensity of a zone, by hours, with forecasts up to 72 hours.

    The key is read from ``ELECTRICITY_MAPS_API_KEY``. A free key covers one zone, the last 24 hours
    and no forecast, for non-commercial use. Values that the service estimated are marked.

    Args:
        zone: A zone of Electricity Maps, such as ``"DE"`` or ``"US-CAL-CISO"``.
        basis: ``"life-cycle"`` or ``"direct"`` emission factors.
        url: Address of the service.
        clock: Returns the present, an aware time.

    Raises:
        ConfigurationError: If the zone is no text, or the basis has another value.
    """

    def __init__(
        self,
        zone: str,
        *,
        basis: Basis = "life-cycle",
        url: str = URL,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if basis not in ("life-cycle", "direct"):
            raise ConfigurationError(f"basis is {basis!r}; allowed: life-cycle, direct")
        if not isinstance(zone, str) or not zone.strip():
            raise ConfigurationError(f"zone is {zone!r}; give one such as 'DE' or 'US-CAL-CISO'")
        provenance = Provenance(
            source="Electricity Maps",
            zone=zone.strip().upper(),
            data_year=None,
            basis=basis,
            licence="Electricity Maps' terms; no redistribution",
        )
        super().__init__(Client("Electricity Maps", url, key_names=(KEY,)), provenance, clock)

    def _read_history(self, start: datetime, end: datetime) -> list[Interval]:
        if start >= self._clock() - _RECENT:
            answer = self._get("history")
            return self._hours(answer, self._rows(answer.content, "history", "data"), "measured")
        found: list[Interval] = []
        while start < end:
            until = min(end, start + _MOST_DAYS)
            answer = self._get("past-range", start=start.isoformat(), end=until.isoformat())
            rows = self._rows(answer.content, "data", "history")
            found += self._hours(answer, rows, "measured")
            start = until
        return found

    def _read_forecast(self, start: datetime, end: datetime) -> list[Interval]:
        wanted = (end - self._clock()) / _HOUR
        horizon = next((one for one in _HORIZONS if one >= wanted), _HORIZONS[-1])
        answer = self._get("forecast", horizonHours=str(horizon))
        issued = answer.content.get("updatedAt") if isinstance(answer.content, dict) else None
        issued_utc = None if issued is None else self._moment(issued).isoformat()
        rows = self._rows(answer.content, "forecast", "data")
        return self._hours(answer, rows, "forecast", issued_utc)

    def _get(self, what: str, **parameters: str) -> Answer:
        (key,) = self._client.keys()
        zone, basis = self._provenance.zone, self._provenance.basis
        given = {
            "zone": zone,
            "emissionFactorType": "lifecycle" if basis == "life-cycle" else "direct",
            **parameters,
        }
        try:
            return self._client.get(
                f"/v3/carbon-intensity/{what}", given, headers={"auth-token": key}
            )
        except IntensityError as error:
            if (known := self._zones()) and zone not in known:
                raise ConfigurationError(
                    f"Electricity Maps has no zone {zone!r}{did_you_mean(zone, known)}"
                ) from None
            raise error from None

    def _zones(self) -> dict[str, str]:
        """Return the names of all zones, which need no key; empty if they cannot be read."""
        try:
            content: Any = self._client.get("/v3/zones").content
        except IntensityError:
            return {}
        held = content.items() if isinstance(content, dict) else ()
        return {
            str(zone): str(about.get("zoneName") or "")
            for zone, about in held
            if isinstance(about, dict)
        }

    def _hours(
        self,
        answer: Answer,
        rows: Sequence[dict[str, Any]],
        kind: Kind,
        issued_utc: str | None = None,
    ) -> list[Interval]:
        # An hour that is not known yet has no value.
        known = [row for row in rows if row.get("carbonIntensity") is not None]
        if not known:
            raise self._client.empty(self._provenance.zone)
        wrong = [row for row in known if row.get("emissionFactorType", "") == self._other_basis()]
        if wrong:
            raise self._client.malformed("its emission factors are of the other basis")
        times = sorted({self._moment(row.get("datetime")) for row in known})
        # Shorter steps are possible, and longer ones are gaps.
        step = min((_HOUR, *(later - one for one, later in pairwise(times))))
        return [
            self._interval(
                start := self._moment(row.get("datetime")),
                start + step,
                row["carbonIntensity"],
                "estimated" if kind == "measured" and row.get("isEstimated") is True else kind,
                answer.sha256,
                issued_utc,
            )
            for row in known
        ]

    def _other_basis(self) -> str:
        return "direct" if self._provenance.basis == "life-cycle" else "lifecycle"
