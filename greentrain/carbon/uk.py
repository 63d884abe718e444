"""Intensity of Great Britain and its regions, from the National Energy System Operator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from greentrain.carbon.intensity import Interval, Kind, Provenance
from greentrain.carbon.online import Answer, Client, OnlineIntensity
from greentrain.carbon.zones import did_you_mean
from greentrain.errors import ConfigurationError
from greentrain.units import is_whole, utc_now

URL = "https://api.carbonintensity.org.uk"
REGIONS = {
    1: "North Scotland",
    2: "South Scotland",
    3: "North West England",
    4: "North East England",
    5: "Yorkshire",
    6: "North Wales and Merseyside",
    7: "South Wales",
    8: "West Midlands",
    9: "East Midlands",
    10: "East England",
    11: "South West England",
    12: "South England",
    13: "London",
    14: "South East England",
    15: "England",
    16: "Scotland",
    17: "Wales",
}
"""Names of the regions by their numbers."""
_HALF_HOUR = timedelta(minutes=30)
_MOST_DAYS = timedelta(days=13)
"""A request may cover 14 days; it begins half an hour early."""


class UkIntensity(OnlineIntensity):
    """Average intensity of Great Britain, by half-hours; no key is needed.

    It covers generation, imports and losses of the grid. A half-hour without a published value has
    its latest forecast, marked as estimated. Regions have forecasts only. The service forecasts 48
    hours and keeps no past forecasts: wrap it in :class:`CachedIntensity` to store them.

    Args:
        region: A number or name of :data:`REGIONS`, such as ``13`` or ``"London"``; by default all
            of Great Britain.
        url: Address of the service.
        clock: Returns the present, an aware time.

    Raises:
        ConfigurationError: If there is no such region.

    Example:
        >>> UkIntensity("london").provenance.zone
        'GB-13 (London)'
    """

    def __init__(
        self,
        region: int | str | None = None,
        *,
        url: str = URL,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._region = None if region is None else _region(region)
        zone = "GB" if self._region is None else f"GB-{self._region} ({REGIONS[self._region]})"
        provenance = Provenance(
            source="NESO Carbon Intensity API",
            zone=zone,
            data_year=None,
            basis="direct",
            licence="CC BY 4.0",
        )
        super().__init__(Client("the UK Carbon Intensity API", url), provenance, clock)

    def _read_history(self, start: datetime, end: datetime) -> list[Interval]:
        found: list[Interval] = []
        while start < end:
            until = min(end, start + _MOST_DAYS)
            # An answer begins with the half-hour that ends at the first time.
            found += self._read(f"{_text(start + _HALF_HOUR)}/{_text(until)}", "estimated")
            start = until
        return found

    def _read_forecast(self, start: datetime, end: datetime) -> list[Interval]:
        return self._read(f"{_text(start + _HALF_HOUR)}/fw48h", "forecast")

    def _read(self, span: str, without_actual: Kind) -> list[Interval]:
        if self._region is None:
            answer = self._client.get(f"/intensity/{span}")
            rows = self._rows(answer.content, "data")
        else:
            answer = self._client.get(f"/regional/intensity/{span}/regionid/{self._region}")
            held = answer.content.get("data") if isinstance(answer.content, dict) else None
            rows = self._rows(held, "data")
        return [self._half_hour(row, answer, without_actual) for row in rows]

    def _half_hour(self, row: dict[str, object], answer: Answer, without_actual: Kind) -> Interval:
        start, end = self._moment(row.get("from")), self._moment(row.get("to"))
        held = row.get("intensity")
        values = held if isinstance(held, dict) else {}
        actual = values.get("actual")
        if actual is not None and without_actual != "forecast":
            return self._interval(start, end, actual, "measured", answer.sha256)
        issued = self._clock().isoformat(timespec="seconds")
        return self._interval(
            start, end, values.get("forecast"), without_actual, answer.sha256, issued
        )


def _region(region: int | str) -> int:
    by_name = {name.lower(): number for number, name in REGIONS.items()}
    text = str(region).strip().lower()
    number = by_name.get(text, int(text) if text.isascii() and text.isdigit() else None)
    if not is_whole(number, 1) or number not in REGIONS:
        raise ConfigurationError(
            f"the UK Carbon Intensity API has no region {region!r}; give one of 1 to 17, or a "
            f"name{did_you_mean(str(region), REGIONS.values())}"
        )
    return number


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
