"""The contributions of the runs to the figures of ESRS E1, by concepts of its XBRL taxonomy.

The standard is being rewritten, and its paragraphs will move. So a table of one version of the
taxonomy assigns figures to concepts, and no paragraph is named in code.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from greentrain.report.document import Report
from greentrain.report.exports import facts

TABLE = "esrs_2023-12-22.json"
_G_PER_T = 1e6
_UNKNOWN = {
    "energy_mwh": "no energy was measured",
    "location_based_t": "the emissions are not known",
    "market_based_t": "give market_based_g_per_kwh and market_based_source",
}
_NOTE = (
    "Each value is what these runs add to an undertaking's figure. No value includes offsets or "
    "avoided energy. Energy and location-based emissions include the PUE where one was given."
)


def table(document: Report) -> dict[str, Any]:
    """Return the concepts with their values in MWh and tCO2e, and what is missing."""
    held = _table()
    hosting = facts.disclosures(document).hosting
    figures = _figures(document)
    rows = [
        {
            "concept": row["concept"],
            "label": row["label"],
            "paragraph": row["paragraph"],
            "value": figures.get(row["figure_by_hosting"].get(hosting)),
            "unit": row["unit"],
        }
        for row in held["concepts"]
    ]
    return {
        "taxonomy": held["taxonomy"],
        "period": document["period"],
        "hosting": hosting,
        "rows": rows,
        "method": facts.method(document),
        "intensity": facts.intensity_words(document),
        "note": _NOTE,
        "missing": missing(document),
    }


def missing(document: Report) -> list[str]:
    """List the concepts without a value, grouped by the reason."""
    hosting, figures = facts.disclosures(document).hosting, _figures(document)
    without: dict[str, list[str]] = {}
    for row in _table()["concepts"]:
        figure = row["figure_by_hosting"].get(hosting)
        if figures.get(figure) is None:
            reason = _UNKNOWN[figure] if figure else _why(row, hosting)
            without.setdefault(reason, []).append(row["concept"])
    return [
        *facts.gaps(document),
        *facts.emissions_gaps(document),
        *facts.pue_gaps(document),
        *(f"{', '.join(concepts)}: {reason}" for reason, concepts in without.items()),
    ]


def _why(row: dict[str, Any], hosting: str | None) -> str:
    if not row["figure_by_hosting"]:
        return "the energy mix of the electricity is not recorded"
    if hosting is None:
        return "give hosting (own, colocated or cloud), because the scope depends on it"
    if hosting == "colocated":
        return "colocated hardware is Scope 2 or 3, depending on the company that controls it"
    return f"{hosting} hardware adds nothing here"


def _figures(document: Report) -> dict[str | None, float | None]:
    energy_kwh = facts.kwh(facts.with_pue_j(document))
    electricity = facts.electricity(document)
    market_g = electricity["market_based"]["emissions_g"] if electricity else None
    return {
        "energy_mwh": None if energy_kwh is None else energy_kwh / 1000.0,
        "location_based_t": _tonnes(facts.emissions_g(document)),
        "market_based_t": _tonnes(market_g),
    }


def _tonnes(grams: float | None) -> float | None:
    return None if grams is None else grams / _G_PER_T


def _table() -> dict[str, Any]:
    text = files("greentrain.report.exports").joinpath(TABLE).read_text(encoding="utf-8")
    held: dict[str, Any] = json.loads(text)
    return held
