"""Disclosures: facts about hardware, electricity and model that only the user can state.

No value has a default other than ``None``, which means unknown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from greentrain.errors import ConfigurationError

Hosting = Literal["own", "colocated", "cloud"]

_BELONG_TO = {
    "market_based_source": "market_based_g_per_kwh",
    "water_source": "water_l_per_kwh",
    "embodied_source": "embodied_kg",
    "functional_units": "functional_unit",
}
_ABOVE_ZERO = ("embodied_lifetime_h", "embodied_reserved_share", "functional_units")
_NUMBERS = ("market_based_g_per_kwh", "water_l_per_kwh", "embodied_kg", *_ABOVE_ZERO)
_TEXTS = ("market_based_source", "water_source", "embodied_source", "functional_unit")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disclosures:
    """The user's statements about the hardware, the electricity and the model.

    Args:
        hosting: Owner of the hardware: ``"own"``, ``"colocated"`` (own hardware in another's
            building) or ``"cloud"``.
        market_based_g_per_kwh: Emission factor of the electricity contract.
        market_based_source: Origin of that factor, such as a supplier's certificate.
        water_l_per_kwh: Litres of water per kilowatt-hour of the computers (The Green Grid's WUE).
        water_source: Origin of that value.
        embodied_kg: Embodied emissions of all of the hardware, in kilograms of CO2 equivalent.
        embodied_lifetime_h: Hours that the hardware is expected to serve.
        embodied_reserved_share: Share of the hardware that was reserved for the runs, up to 1.
        embodied_source: Origin of the embodied emissions.
        functional_unit: Unit of an SCI score, such as ``"experience"``.
        functional_units: Number of such units.
        model: Texts for cards, by name: name, task, dataset, licence, contact and others.

    Raises:
        ConfigurationError: If a value has the wrong type or is out of range, or a source is given
            without its value.

    Example:
        >>> Disclosures(hosting="own").as_dict()["water_l_per_kwh"] is None
        True
    """

    hosting: Hosting | None = None
    market_based_g_per_kwh: float | None = None
    market_based_source: str | None = None
    water_l_per_kwh: float | None = None
    water_source: str | None = None
    embodied_kg: float | None = None
    embodied_lifetime_h: float | None = None
    embodied_reserved_share: float | None = None
    embodied_source: str | None = None
    functional_unit: str | None = None
    functional_units: float | None = None
    model: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.hosting is not None and self.hosting not in get_args(Hosting):
            raise ConfigurationError(
                f"hosting is {self.hosting!r}; it must be one of {', '.join(get_args(Hosting))}"
            )
        for name in _NUMBERS:
            _check_number(name, getattr(self, name))
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"{name} is {value!r}; it must be text")
        for name, of in _BELONG_TO.items():
            if getattr(self, name) is not None and getattr(self, of) is None:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)!r} and there is no {of}; give both"
                )
        if not isinstance(self.model, Mapping):
            raise ConfigurationError(f"model is {self.model!r}; it must hold texts by name")
        for key, value in self.model.items():
            if not (isinstance(key, str) and isinstance(value, str)):
                raise ConfigurationError(f"model has {key!r}: {value!r}; both must be text")

    def as_dict(self) -> dict[str, Any]:
        """Return every value under its name, ``None`` where nothing was given."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "model": dict(self.model)}


def read_disclosures(path: str | Path) -> Disclosures:
    """Read disclosures from a YAML file whose keys are the arguments of :class:`Disclosures`.

    Raises:
        ConfigurationError: If the file cannot be read, is not YAML, or holds an invalid value.
    """
    import yaml

    name = str(path)
    try:
        held = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {name!r}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are not UTF-8 as well
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{name!r} is not YAML: {reason}") from None
    held = {} if held is None else held
    if not isinstance(held, dict):
        raise ConfigurationError(f"{name!r} holds {held!r:.80}; it must hold keys with values")
    allowed = [field.name for field in dataclasses.fields(Disclosures)]
    for key in held:
        if key not in allowed:
            raise ConfigurationError(
                f"{name!r} has the unknown key {key!r:.80}; allowed are {', '.join(allowed)}"
            )
    if held.get("model", {}) is None:  # a heading with nothing below it
        del held["model"]
    try:
        return Disclosures(**held)
    except ConfigurationError as error:
        raise ConfigurationError(f"in {name!r}, {error}") from None


def _check_number(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigurationError(f"{name} is {value!r}; it must be a number")
    if value < 0 or (value == 0 and name in _ABOVE_ZERO):
        least = "above 0" if name in _ABOVE_ZERO else "0 or more"
        raise ConfigurationError(f"{name} is {value!r}; it must be {least}")
    if name == "embodied_reserved_share" and value > 1:
        raise ConfigurationError(f"{name} is {value!r}; it must be a share, at most 1")
