"""Convert, read and write quantities: SI units inside, J, Wh or kWh for people.

Example:
    >>> wh(3600.0)
    1.0
    >>> format_energy(7200.0)
    '2 Wh'
    >>> parse_energy("1.5 kWh")
    5400000.0
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import TypeGuard

from greentrain.errors import ConfigurationError
from greentrain.texts import short_repr

J_PER_WH = 3600.0

JOULES_PER_UNIT = {
    "J": 1.0,
    "kJ": 1e3,
    "MJ": 1e6,
    "Wh": J_PER_WH,
    "kWh": 1e3 * J_PER_WH,
    "MWh": 1e6 * J_PER_WH,
}
"""Joules per unit of energy, for each unit that can be read."""

GRAMS_PER_UNIT = {"gCO2e": 1.0, "kgCO2e": 1e3, "tCO2e": 1e6}
"""Grams of CO2 equivalent per unit of emissions, for each unit that can be read."""

BYTES_PER_UNIT = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
"""Bytes per unit of memory size, for each unit that can be read."""

_MASSES = {
    **dict.fromkeys(("g", "gram", "grams", "gramme", "grammes"), 1.0),
    **dict.fromkeys(("kg", "kilogram", "kilograms", "kilogramme", "kilogrammes"), 1e3),
    **dict.fromkeys(("t", "tonne", "tonnes"), 1e6),
}
# "g CO2e", "kgCO₂-eq", "t of CO2 equivalent": the part before "CO2" is a unit of mass.
_CARBON = re.compile(r"(.*?)(?:of)?co[2₂](?:e|eq|equiv|equivalents?)?", re.DOTALL)
_JOINTS = re.compile(r"[\s_.·⋅-]+")
_LONGEST = 100
"""Most characters of a quantity: reading 8,000 spaces would take seconds."""
_SHOWN_G = {"mg": 1e-3, "g": 1.0, "kg": 1e3, "t": 1e6}
_LEAST_G = 0.1
_THREE_DIGITS = 999.5
_SMALLEST = 1e-9
"""Smaller numbers are rounding errors, and written as 0."""
_QUANTITY = re.compile(r"\s*([+-]?[0-9.,_]*[0-9.](?:[eE][+-]?[0-9]+)?)\s*([^\s0-9].*?)?\s*")


def wh(energy_j: float) -> float:
    """Convert joules to watt-hours."""
    return energy_j / J_PER_WH


def format_energy(energy_j: float | None, unit: str | None = None) -> str:
    """Return an energy as text for people, with three significant digits and no exponent.

    Args:
        energy_j: The energy in joules; ``None`` if unknown.
        unit: The unit; by default J below 1 Wh, then Wh, kWh and MWh from 1,000 of the unit before.
            A column of a table takes the :func:`energy_unit` of its energies.

    Example:
        >>> format_energy(125.0), format_energy(7200.0), format_energy(7.2e6), format_energy(None)
        ('125 J', '2 Wh', '2 kWh', 'unknown')
        >>> format_energy(494016000.0 * 3600.0), format_energy(0.000026)
        ('494 MWh', '0.000026 J')
    """
    if energy_j is None:
        return "unknown"
    unit = unit or energy_unit([energy_j])
    return f"{format_number(energy_in(energy_j, unit))} {unit}"


def energy_unit(energies_j: Iterable[float | None]) -> str:
    """Choose one unit for a column of energies, by the largest of them.

    Example:
        >>> energy_unit([5.0, 7200.0, None]), energy_unit([5.0]), energy_unit([3.6e6])
        ('Wh', 'J', 'kWh')
    """
    largest = max((abs(value) for value in energies_j if value is not None), default=J_PER_WH)
    if largest < J_PER_WH:
        return "J" if largest else "Wh"
    return _unit_of(largest, {name: JOULES_PER_UNIT[name] for name in ("Wh", "kWh", "MWh")})


def energy_in(energy_j: float, unit: str) -> float:
    """Convert joules to a unit of :data:`JOULES_PER_UNIT`; there is no minus zero."""
    return energy_j / JOULES_PER_UNIT[unit] + 0.0


def format_number(value: float, digits: int = 3) -> str:
    """Write a number with some significant digits, whole from 1,000 on, and without exponent.

    Example:
        >>> format_number(0.12345), format_number(12345.6), format_number(2.64e-05)
        ('0.123', '12,346', '0.0000264')
    """
    if abs(value) >= 10.0**digits - 0.5:
        return f"{value:,.0f}"
    written = f"{value + 0.0:.{digits}g}" if abs(value) >= _SMALLEST else "0"
    return f"{Decimal(written):f}" if "e" in written else written


def plural(count: int, word: str) -> str:
    """Write a number of things.

    Example:
        >>> plural(1, "run"), plural(2, "run")
        ('1 run', '2 runs')
    """
    return f"{count} {word}{'' if count == 1 else 's'}"


def format_carbon(carbon_g: float | None, unit: str | None = None) -> str:
    """Return emissions as text for people, by default in g, kg or t, and in mg below 0.1 g.

    Example:
        >>> format_carbon(2.35e8), format_carbon(0.004), format_carbon(None)
        ('235 t CO2e', '4 mg CO2e', 'unknown')
    """
    if carbon_g is None:
        return "unknown"
    unit = unit or carbon_unit([carbon_g])
    return f"{format_number(carbon_g / _SHOWN_G[unit])} {unit} CO2e"


def carbon_unit(carbon_g: Iterable[float]) -> str:
    """Choose one unit for emissions, by the largest of them."""
    largest = max((abs(value) for value in carbon_g), default=0.0)
    units = {name: size for name, size in _SHOWN_G.items() if name != "mg"}
    return "mg" if 0 < largest < _LEAST_G else _unit_of(largest, units)


def parse_energy(text: str) -> float:
    """Read an energy such as ``"20 Wh"``, ``"0.5kWh"`` or ``"3600 J"``.

    Case matters only where a unit is ambiguous: ``MJ`` is a megajoule, and ``mJ`` is refused.

    Args:
        text: A number and a unit of :data:`JOULES_PER_UNIT`.

    Returns:
        The energy in joules. Zero and negative values are returned as written.

    Raises:
        ConfigurationError: If the number or the unit cannot be read.

    Example:
        >>> parse_energy("2 kwh") == parse_energy("7.2 MJ")
        True
    """
    return _quantity(text, "energy", JOULES_PER_UNIT, _joules_per_unit, "kWh")


def parse_carbon(text: str) -> float:
    """Read emissions such as ``"500 gCO2e"``, ``"0.5 kg CO2-eq"`` or ``"2 t CO₂e"``.

    Args:
        text: A number and a unit: grams, kilograms or tonnes of CO2 equivalent.

    Returns:
        The grams. Zero and negative values are returned as written.

    Raises:
        ConfigurationError: If the number or the unit cannot be read.

    Example:
        >>> parse_carbon("0.5 kg CO2e") == parse_carbon("500 g CO2-eq") == 500.0
        True
    """
    return _quantity(text, "emissions", GRAMS_PER_UNIT, _grams_per_unit, "gCO2e")


def parse_bytes(text: str) -> int:
    """Read a size in memory such as ``"64 MiB"``, ``"1.5 GB"`` or ``"512 B"``.

    Case matters: ``Mb`` may mean megabits and is refused.

    Args:
        text: A number and a unit of :data:`BYTES_PER_UNIT`.

    Returns:
        Whole bytes, rounded down. Zero and negative values are returned as written.

    Raises:
        ConfigurationError: If the number or the unit cannot be read.

    Example:
        >>> parse_bytes("64 MiB"), parse_bytes("1.5 kB")
        (67108864, 1500)
    """
    return math.floor(_quantity(text, "size", BYTES_PER_UNIT, BYTES_PER_UNIT.get, "MiB"))


def names_carbon(text: str) -> bool:
    """Return whether a text mentions CO2, and so means emissions."""
    return re.search("co[2₂]", text, re.IGNORECASE) is not None


def uncertainty_j(
    energy_j: Mapping[str, float | None], shares: Mapping[str, float | None]
) -> float | None:
    """Combine the uncertainties of metered sources into the uncertainty of their sum.

    The error of one sensor is fully correlated over its windows, so it scales with the joules of
    that sensor. Different sensors are independent and add in quadrature (GUM, JCGM 100:2008,
    section 5).

    Args:
        energy_j: Joules by source name, summed over any number of windows.
        shares: Relative standard uncertainty by source name.

    Returns:
        The standard uncertainty of the total in joules; ``None`` if a source with energy has no
        known uncertainty.

    Example:
        >>> uncertainty_j({"cpu": 100.0, "gpu:0": 1000.0}, {"cpu": 0.3, "gpu:0": 0.04})
        50.0
    """
    parts: list[float] = []
    for name, energy in energy_j.items():
        if energy:
            share = shares.get(name)
            if share is None:
                return None
            parts.append(share * energy)
    return math.hypot(*parts)


def utc_now() -> datetime:
    """Return the current time in UTC, with its time zone."""
    return datetime.now(UTC)


def utc_text(moment: datetime) -> str:
    """Return a time in UTC as text to the microsecond; texts sort in the order of their times.

    Raises:
        ConfigurationError: As for :func:`in_utc`.
    """
    return in_utc(moment).isoformat(timespec="microseconds")


def in_utc(moment: datetime) -> datetime:
    """Convert a time to UTC.

    Raises:
        ConfigurationError: If the time has no time zone, or is outside of the years 1 to 9999.
    """
    if moment.tzinfo is None:
        raise ConfigurationError(f"the time {moment!r} is naive; give it a time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError(
            f"the time {moment.isoformat()} is outside of the years 1 to 9999 in UTC"
        ) from None


def is_whole(value: object, least: int = 0) -> TypeGuard[int]:
    """Return whether a value is a whole number, and at least ``least``; ``True`` is not one.

    An integer of NumPy is one. Convert it by ``int`` before it is kept: no database and no JSON
    file takes it.

    Example:
        >>> is_whole(3), is_whole(0, 1), is_whole(2.0), is_whole(True)
        (True, False, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def whole_seed(seed: object) -> int:
    """Return a seed as a plain ``int``.

    Raises:
        ConfigurationError: If it is no whole number, 0 or more.
    """
    if not is_whole(seed):
        raise ConfigurationError(f"seed is {seed!r}; it must be a whole number, 0 or more")
    return int(seed)


def plain_quantity(text: object, what: str, example: str) -> str:
    """Return a text that may hold a quantity, or refuse it.

    Args:
        text: The text.
        what: The argument, for the error.
        example: A text that could be given instead.

    Raises:
        ConfigurationError: If it is no text, or so long that reading it would take seconds.
    """
    if not isinstance(text, str):
        raise ConfigurationError(
            f"{what} is {short_repr(text)}; write a text with a number and a unit, such as "
            f"{example!r}"
        )
    plain = str.__str__(text)  # of a subclass too
    if len(plain) > _LONGEST:
        raise ConfigurationError(
            f"{what} is a text of {len(plain)} characters; it may have {_LONGEST}, as in "
            f"{example!r}"
        )
    return plain


def is_number(value: object) -> bool:
    """Return whether a value is a number that ``float`` can hold; ``True`` is not one.

    Example:
        >>> is_number(3), is_number(0.5), is_number("3"), is_number(10**400), is_number(True)
        (True, True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _unit_of(value: float, units: Mapping[str, float]) -> str:
    """Return the unit, of some in rising order, in which three digits say a value."""
    fitting = (name for name, size in units.items() if value / size < _THREE_DIGITS)
    return next(fitting, list(units)[-1])


def _quantity(
    text: str,
    what: str,
    units: Mapping[str, float],
    factor_of: Callable[[str], float | None],
    usual: str,
) -> float:
    text = plain_quantity(text, f"the {what}", f"20 {usual}")
    match = _QUANTITY.fullmatch(text)
    number, unit = match.groups() if match else (None, None)
    factor = factor_of(unit) if unit else None
    if number is None or factor is None:
        problem = f"the unit {unit!r} is not known" if unit else "a number with a unit is needed"
        raise ConfigurationError(
            f"cannot read the {what} {text!r}: {problem}; write a number and one of "
            f"{', '.join(units)}, such as '20 {usual}'"
        )
    try:
        value = float(number)  # "1_000" is allowed, and "1__0" is not
    except ValueError:
        raise ConfigurationError(
            f"cannot read the {what} {text!r}: {number!r} is not a number; write it with a point, "
            f"such as '0.5 {usual}'"
        ) from None
    if not math.isfinite(value * factor):
        raise ConfigurationError(f"cannot use the {what} {text!r}: it is not finite")
    return value * factor


def _grams_per_unit(unit: str) -> float | None:
    match = _CARBON.fullmatch(_JOINTS.sub("", unit.lower()))
    return None if match is None else _MASSES.get(match.group(1))


def _joules_per_unit(unit: str) -> float | None:
    unit = _JOINTS.sub("", unit)  # "kW h", "kW·h"
    if unit in JOULES_PER_UNIT:
        return JOULES_PER_UNIT[unit]
    # "kwh", "WH", "KJ" can mean one thing only; "mj" and "mwh" cannot, so they stay unknown.
    if unit[:1] == "m":
        return None
    alike = [known for known in JOULES_PER_UNIT if known.lower() == unit.lower()]
    return JOULES_PER_UNIT[alike[0]] if len(alike) == 1 else None
