"""Name a provider in a text, for configurations and the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from greentrain.carbon.chain import FallbackChain
from greentrain.carbon.electricity_maps import KEY as ELECTRICITY_MAPS_KEY
from greentrain.carbon.electricity_maps import ElectricityMapsIntensity
from greentrain.carbon.entsoe import KEY as ENTSOE_KEY
from greentrain.carbon.entsoe import EntsoeIntensity
from greentrain.carbon.intensity import IntensityProvider
from greentrain.carbon.series import CsvIntensity
from greentrain.carbon.static import StaticIntensity
from greentrain.carbon.uk import UkIntensity
from greentrain.carbon.watttime import WattTimeIntensity
from greentrain.carbon.zones import did_you_mean
from greentrain.errors import ConfigurationError

_BY_NAME: dict[str, Callable[[str], IntensityProvider]] = {
    "electricitymaps": ElectricityMapsIntensity,
    "entsoe": EntsoeIntensity,
    "static": StaticIntensity,
    "uk": lambda region: UkIntensity(region or None),
    "watttime": WattTimeIntensity,
}
FORMS = "static:DE, uk, uk:London, electricitymaps:DE, entsoe:DE_LU, watttime:CAISO_NORTH or a file"
"""Forms of a name, for errors and help."""


def named_intensity(text: str, zone: str | None = None) -> IntensityProvider:
    """Return the provider that a text names.

    Args:
        text: ``static:ZONE``, ``uk``, ``uk:REGION``, ``electricitymaps:ZONE``, ``entsoe:ZONE``,
            ``watttime:REGION``, or the path of a CSV file, which ends with ``.csv``. Several of
            them, separated by commas, are a :class:`FallbackChain`.
        zone: Zone of a CSV file; by default the name of the file.

    Raises:
        ConfigurationError: If the text names none, or the provider refuses its zone.

    Example:
        >>> named_intensity("static:DE").provenance.zone
        'DE'
        >>> named_intensity("uk:Wales, static:GB").provenance.zone
        'GB-17 (Wales)'
        >>> named_intensity("DE")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        greentrain.errors.ConfigurationError: ... DE is a zone: use --zone DE, or zone='DE'
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1:
        return FallbackChain([named_intensity(part, zone) for part in parts])
    (one,) = parts
    if one.lower().endswith(".csv"):
        return CsvIntensity(one, zone=zone or Path(one).stem)
    name, _, place = one.partition(":")
    make = _BY_NAME.get(name.strip().lower().replace("_", "").replace("-", ""))
    if make is None:
        hint = did_you_mean(name, list(_BY_NAME))
        if not place and _is_zone(name):
            hint = f". {name} is a zone: use --zone {name}, or zone={name!r}"
        raise ConfigurationError(f"the intensity {text!r} is not known; give {FORMS}{hint}")
    return make(place.strip())


def _is_zone(text: str) -> bool:
    try:
        StaticIntensity(text)
    except ConfigurationError:
        return False
    return True


def is_intensity_name(text: str) -> bool:
    """Return whether a text is a name of :func:`named_intensity`, and no path of a class.

    Example:
        >>> is_intensity_name("uk"), is_intensity_name("grid.csv"), is_intensity_name("static:DE")
        (True, True, True)
        >>> is_intensity_name("mymodule.MyIntensity")
        False
    """
    return text.lower().endswith(".csv") or not text.replace(".", "").isidentifier() or text == "uk"


def live_intensity(zone: str) -> IntensityProvider:
    """Return a provider with forecasts for a zone, by the keys in the environment.

    Great Britain needs no key. A zone otherwise uses Electricity Maps, or else ENTSO-E, if its key
    is set.

    Args:
        zone: A country such as ``"DE"``, or a zone of Electricity Maps or ENTSO-E.

    Raises:
        ConfigurationError: If no key is set, or the zone is unknown.
    """
    code = zone.strip().upper()
    if code in ("GB", "UK", "GBR"):
        return UkIntensity()
    if os.environ.get(ELECTRICITY_MAPS_KEY, "").strip():
        return ElectricityMapsIntensity(code)
    if os.environ.get(ENTSOE_KEY, "").strip():
        return EntsoeIntensity({"DE": "DE_LU", "LU": "DE_LU", "IE": "IE_SEM"}.get(code, code))
    StaticIntensity(zone)  # refuses an unknown zone
    raise ConfigurationError(
        f"no forecast is known for the zone {zone!r}: set {ELECTRICITY_MAPS_KEY} or {ENTSOE_KEY}, "
        "or give --intensity with a provider or a file"
    )
