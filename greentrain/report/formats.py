"""Write values and texts for people: amounts with their units, times, and safe names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from greentrain.report.label_words import label_words
from greentrain.texts import visible
from greentrain.units import (
    carbon_unit,
    energy_in,
    energy_unit,
    format_carbon,
    format_energy,
    format_number,
    plural,
)

UNKNOWN = "unknown"
_TINY, _VAST = 1e-9, 1e9


def shown(text: str, limit: int = 1000) -> str:
    r"""Return a text with invisible controls spelled out, cut off after a number of characters.

    A name with a right-to-left override can make a figure read as another one, so such marks are
    shown by their code. Escaping for HTML is the renderer's.

    Example:
        >>> shown("a\u202eb"), shown("abcdef", limit=3)
        ('a\\u202eb', 'abc…')
    """
    cut = text if len(text) <= limit else text[:limit] + "…"
    return visible(cut, keep="\n\t")


def inert(value: Any) -> Any:
    """Spell out the invisible in every text that reaches the page, charts and markup excepted."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else shown(value)


def short(text: str, limit: int = 60) -> str:
    """Cut a text off, with its invisible characters spelled out."""
    return shown(text, limit)


def energy(energy_j: float | None, unit: str | None = None) -> str:
    """Write an energy with three significant digits.

    Args:
        energy_j: Joules.
        unit: A unit of energy, for a column with one unit: the unit is not written. By default the
            value decides, as in :func:`greentrain.units.format_energy`.

    Example:
        >>> energy(125.0), energy(7.2e6), energy(None), energy(-0.0), energy(125.0, "Wh")
        ('125 J', '2 kWh', 'unknown', '0 Wh', '0.0347')
    """
    if energy_j is None or unit is None:
        return format_energy(energy_j)
    return format_number(energy_in(energy_j, unit))


def signed_energy(energy_j: float | None) -> str:
    """Write a difference of two energies, with its sign.

    Example:
        >>> signed_energy(125.0), signed_energy(-7200.0), signed_energy(None)
        ('+125 J', '-2 Wh', 'unknown')
    """
    if energy_j is None:
        return UNKNOWN
    return f"{'-' if energy_j < 0 else '+'}{energy(abs(energy_j))}"


def energies(low_j: float, high_j: float) -> str:
    """Write an interval of energies in one unit.

    Example:
        >>> energies(1800.0, 7200.0)
        '0.5 to 2 Wh'
    """
    unit = energy_unit([low_j, high_j])
    return f"{energy(low_j, unit)} to {format_energy(high_j, unit)}"


def _masses(low_g: float, high_g: float) -> str:
    unit = carbon_unit([low_g, high_g])
    low = format_carbon(low_g, unit).partition(" ")[0]
    return f"{low} to {format_carbon(high_g, unit)}"


def avoided(value: float, write: Callable[..., str] = format_energy, verb: str = "used") -> str:
    """Write an amount that was avoided; a negative one was used more than the comparison needs.

    Args:
        value: Joules, or grams.
        write: Writes such an amount with its unit.
        verb: Word for what was done with it.

    Example:
        >>> avoided(7200.0), avoided(-7200.0), avoided_span(-7200.0, 3600.0)
        ('2 Wh', '2 Wh more used', '2 Wh more used to 1 Wh avoided')
        >>> avoided_span(3600.0, 7200.0), avoided_span(-7200.0, -3600.0)
        ('1 to 2 Wh', '1 to 2 Wh more used')
    """
    return write(value) if value >= 0 else f"{write(-value)} more {verb}"


def avoided_span(
    low: float,
    high: float,
    write: Callable[..., str] = format_energy,
    span: Callable[[float, float], str] = energies,
    verb: str = "used",
) -> str:
    """Write an interval of an amount that was avoided, as :func:`avoided` does."""
    if low >= 0:
        return span(low, high)
    if high <= 0:
        return f"{span(-high, -low)} more {verb}"
    return f"{write(-low)} more {verb} to {write(high)} avoided"


def metric(value: float | None) -> str:
    """Write a metric with four significant digits; a loss that diverged has an exponent.

    Example:
        >>> metric(0.91234), metric(123456.0), metric(3.4028235e38), metric(None)
        ('0.9123', '123,456', '3.403e+38', 'unknown')
    """
    if value is None:
        return UNKNOWN
    plain = _TINY <= abs(value) < _VAST or not value
    return format_number(value, 4) if plain else f"{value:.4g}"


def signed(value: float | None) -> str:
    """Write a difference of two metrics, with its sign.

    Example:
        >>> signed(0.0251), signed(-0.0), signed(None)
        ('+0.0251', '+0', 'unknown')
    """
    return UNKNOWN if value is None else f"{'-' if value < 0 else '+'}{metric(abs(value))}"


def amount(row: Mapping[str, Any], name: str) -> str:
    """Write an amount of a budget or of a payment in the unit of its budget."""
    carbon_g = row[f"{name}_g"]
    return energy(row[f"{name}_j"]) if carbon_g is None else format_carbon(carbon_g)


def _with_unit(unit: str) -> Callable[[float | None], str]:
    return lambda value: UNKNOWN if value is None else f"{format_number(value)} {unit}"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else format_number(value)


def _share(budget: Mapping[str, Any], name: str) -> float:
    key = "g" if budget["unit"] == "g" else "j"
    return float(budget[f"{name}_{key}"] / budget[f"total_{key}"])


def _gain(option: Mapping[str, Any]) -> str:
    gain, sd = option["predicted_gain"], option["gain_sd"]
    if gain is None:
        return "not probed"
    written = f"{round(gain, 3) + 0.0:+.3f}"  # no minus zero
    return written if sd is None else f"{written} ± {sd:.3f}"


def _moment(utc: str | None) -> str:
    if utc is None:
        return UNKNOWN
    return datetime.fromisoformat(utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{format_number(100 * share)} %"


def _seconds(duration_s: float) -> str:
    sizes = {"s": (120, 1), "min": (120, 60), "h": (1000, 3600)}
    fitting = ((unit, size) for unit, (most, size) in sizes.items() if duration_s < most * size)
    unit, size = next(fitting, ("days", 86400))
    return f"{format_number(duration_s / size)} {unit}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "amount": amount,
    "avoided_j": avoided,
    "avoided_g": lambda grams: avoided(grams, format_carbon, "emitted"),
    "avoided_span": avoided_span,
    "avoided_span_g": lambda low, high: avoided_span(low, high, format_carbon, _masses, "emitted"),
    "energies": energies,
    "energy": energy,
    "energy_unit": energy_unit,
    "gain": _gain,
    "grams": format_carbon,
    "label_words": label_words,
    "litres": _with_unit("l"),
    "masses": _masses,
    "metric": metric,
    "moment": _moment,
    "number": _number,
    "percent": _percent,
    "plural": plural,
    "power": _with_unit("W"),
    "seconds": _seconds,
    "sentence": _sentence,
    "share": _share,
    "short": short,
    "signed": signed,
    "signed_energy": signed_energy,
}
"""The filters of the page's templates, by name."""
