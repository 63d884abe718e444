"""How the page writes values: each filter of its templates turns one value into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from greentrain.report.text import shown
from greentrain.units import format_carbon, format_energy


def inert(value: Any) -> Any:
    """Spell out the invisible in every text that reaches the page, charts and markup excepted."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else shown(value)


def short(text: str, limit: int = 60) -> str:
    """Cut a text off, with its invisible characters spelled out."""
    return shown(text, limit)


def _amount(row: Mapping[str, Any], name: str) -> str:
    """Write an amount of a budget or of a payment in the unit of its budget."""
    carbon_g = row[f"{name}_g"]
    return format_energy(row[f"{name}_j"]) if carbon_g is None else format_carbon(carbon_g)


def _share(budget: Mapping[str, Any], name: str) -> float:
    key = "g" if budget["unit"] == "g" else "j"
    return float(budget[f"{name}_{key}"] / budget[f"total_{key}"])


def _metric(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _gain(option: Mapping[str, Any]) -> str:
    gain, sd = option["predicted_gain"], option["gain_sd"]
    if gain is None:
        return "unknown"
    return f"{gain:+.3f}" if sd is None else f"{gain:+.3f} ± {sd:.3f}"


def _grams(grams: float | None) -> str:
    return "unknown" if grams is None else f"{grams:.3g} g"


def _moment(utc: str | None) -> str:
    if utc is None:
        return "unknown"
    return datetime.fromisoformat(utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.3g} %"


def _power(power_w: float | None) -> str:
    return "unknown" if power_w is None else f"{power_w:.3g} W"


def _seconds(duration_s: float) -> str:
    if duration_s < 120:
        return f"{duration_s:.3g} s"
    return f"{duration_s / 60:.3g} min" if duration_s < 7200 else f"{duration_s / 3600:.3g} h"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _litres(litres: float | None) -> str:
    return "unknown" if litres is None else f"{litres:.3g} l"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


FILTERS: Mapping[str, Callable[..., Any]] = {
    "amount": _amount,
    "energy": format_energy,
    "gain": _gain,
    "grams": _grams,
    "litres": _litres,
    "metric": _metric,
    "moment": _moment,
    "percent": _percent,
    "plural": _plural,
    "power": _power,
    "seconds": _seconds,
    "sentence": _sentence,
    "share": _share,
    "short": short,
}
"""The filters by the names that the templates know them by."""
