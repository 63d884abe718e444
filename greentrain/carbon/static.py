"""Yearly intensity of a country or region, offline from CodeCarbon's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from greentrain.carbon.intensity import Basis, Interval, Provenance
from greentrain.carbon.zones import did_you_mean
from greentrain.errors import ConfigurationError

_G_PER_LB = 453.59237
_EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class StaticIntensity:
    """One value for all times: the average of a year.

    It is the same at every hour, so it shows no saving from training at another time.

    Args:
        zone: A country by its ISO 3166 code (``"DE"``, ``"DEU"``), a state of the USA
            (``"US-CA"``), a province of China (``"CN-BJ"``) or a Nordic bidding zone (``"SE3"``).

    Raises:
        ConfigurationError: If there is no value for the zone.

    Example:
        >>> germany = StaticIntensity("DE")
        >>> germany.provenance.zone, germany.provenance.signal
        ('DE', 'average')
        >>> germany.provenance.data_year is not None
        True
        >>> germany == StaticIntensity("DEU")
        True
    """

    def __init__(self, zone: str) -> None:
        code = zone.strip().upper() if isinstance(zone, str) else ""
        self._key = code if code in _zones() else _alpha3(code)
        found = _zones().get(self._key)
        if found is None:
            raise ConfigurationError(
                f"no carbon intensity is known for the zone {zone!r}. Give a country such as 'DE' "
                "or 'DEU', a state such as 'US-CA', a province such as 'CN-BJ' or a bidding zone "
                f"such as 'SE3'{did_you_mean(str(zone), _described())}"
            )
        self.g_per_kwh, publisher, year, basis = found
        source = f"{publisher}, as bundled with CodeCarbon"
        self._provenance = Provenance(
            source=source, zone=code, data_year=year, basis=basis, kind="static"
        )

    def __eq__(self, other: object) -> bool:
        """Return whether both are of one zone, also if it is written in two ways."""
        return isinstance(other, StaticIntensity) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def provenance(self) -> Provenance:
        """The table and the year of its data."""
        return self._provenance

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the one value, for all times; its bounds are unknown."""
        return (Interval(start=_EVER[0], end=_EVER[1], g_per_kwh=self.g_per_kwh),)

    def forecast(self, as_of: datetime, horizon: timedelta) -> Sequence[Interval]:
        """Return the same value: it is the year's, and shows no cleaner hour."""
        return self.history(as_of, as_of + horizon)


def _described() -> dict[str, str]:
    """Return the name of each country by its code, and no name for other zones."""
    import pycountry

    names: dict[str, str] = {}
    for code in _zones():
        country = pycountry.countries.get(alpha_3=code) if len(code) == 3 else None
        name = None if country is None else getattr(country, "common_name", country.name)
        names[code if country is None else str(country.alpha_2)] = str(name or "")
    return names


@cache
def _zones() -> dict[str, tuple[float, str, int, Basis]]:
    """Return value, publisher, year and basis by zone."""
    zones: dict[str, tuple[float, str, int, Basis]] = {}
    for code, row in _table("global_energy_mix.json").items():
        mix = "Our World in Data, yearly electricity mix"
        zones[code] = float(row["carbon_intensity"]), mix, int(row["year"]), "life-cycle"
    states = _table("2023/usa_emissions.json")
    source = states["_source"]
    for name, row in states.items():
        if not name.startswith("_"):
            g_per_kwh = float(row["emissions"]) * _G_PER_LB / 1000.0  # from lb/MWh
            year = int(source["year"])
            zones[f"US-{row['regionCode']}"] = g_per_kwh, str(source["name"]), year, "direct"
    regions: tuple[tuple[str, str, Basis], ...] = (
        ("nordic_emissions.json", "ENTSO-E generation mix", "life-cycle"),
        (
            "2023/china_provincial_emissions.json",
            "Ministry of Ecology and Environment of China",
            "direct",
        ),
    )
    for file, publisher, basis in regions:
        for code, row in _table(file)["data"].items():
            zones[code] = float(row["emission_factor"]), publisher, int(row["year"]), basis
    return zones


def _table(name: str) -> dict[str, Any]:
    # Locate the package without importing it, because that would import pandas.
    spec = find_spec("codecarbon")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    path = folder / "data" / "private_infra" / name
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the installed CodeCarbon has no table {name!r} of carbon intensities: {error}"
        ) from None
    return table


def _alpha3(code: str) -> str:
    import pycountry  # a dependency of CodeCarbon

    country = pycountry.countries.get(alpha_2=code) if len(code) == 2 else None
    return "" if country is None else str(country.alpha_3)
