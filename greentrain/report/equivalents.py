"""Grams as other things that emit as much: kilometres of a car, and months of a tree's growth."""

from __future__ import annotations

from greentrain.report.carbon_figures import CarbonFigures, Equivalent, Equivalents
from greentrain.units import format_number

SOURCE = (
    "Green Algorithms (Lannelongue et al. 2021, github.com/GreenAlgorithms, CC BY 4.0): 175 g CO2e "
    "per km of an average car in Europe, 917 g CO2 per month of a mature tree"
)
SENTENCE = (
    "a comparison for readers and no figure to report; the interval is that of the emissions, as "
    "the uncertainty of the equivalents is not known"
)
UNKNOWN = "unknown, because the grams of some energy are not known"
_EACH = (
    ("car", "km", 175.0),
    ("tree", "tree-months", 917.0),
)


def equivalents(carbon: CarbonFigures) -> Equivalents:
    """Convert the grams of a report; the figures are ``None`` unless all grams are known.

    Args:
        carbon: The emissions of the report.
    """
    grams = carbon["emissions_g"] if carbon["complete"] else None
    interval = carbon["interval"] if grams is not None else None
    figures: list[Equivalent] = [
        {
            "what": what,
            "unit": unit,
            "g_each": g_each,
            "value": None if grams is None else grams / g_each,
            "low": None if interval is None else interval["low_g"] / g_each,
            "high": None if interval is None else interval["high_g"] / g_each,
        }
        for what, unit, g_each in _EACH
    ]
    return {
        "figures": figures,
        "source": SOURCE,
        "sentence": UNKNOWN if grams is None else SENTENCE,
    }


def equivalents_words(held: Equivalents) -> str:
    """Write all equivalents in sentences, with their source; if they are unknown, the reason."""
    if all(one["value"] is None for one in held["figures"]):
        return f"{held['sentence']}."
    known = ", or ".join(equivalent_words(one) for one in held["figures"])
    return f"{known}. This is {held['sentence']}. Source: {held['source']}."


def equivalent_words(one: Equivalent) -> str:
    """Write one equivalent with its interval.

    Example:
        >>> one = {"what": "car", "unit": "km", "g_each": 175.0, "value": 2.0, "low": 1.0}
        >>> equivalent_words({**one, "high": 3.0}), equivalent_words({**one, "high": None})
        ('2 km by car (1 to 3)', '2 km by car')
    """
    if one["value"] is None:
        return "unknown"
    unit = f"{one['unit']} by {one['what']}" if one["what"] == "car" else one["unit"]
    words = f"{format_number(one['value'], 3)} {unit}"
    if one["low"] is None or one["high"] is None:
        return words
    return f"{words} ({format_number(one['low'], 3)} to {format_number(one['high'], 3)})"
