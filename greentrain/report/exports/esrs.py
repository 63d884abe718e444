"""What the runs add to the figures of ESRS E1, keyed by the concepts of its XBRL taxonomy.

The standard is being rewritten, and its paragraphs will move. So which figure goes where stands in
a table of one version of the taxonomy, and no paragraph is named in code.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from greentrain.report.exports.facts import (
    Document,
    beside,
    emissions_g,
    emissions_gaps,
    gaps,
    given,
    intensity_words,
    json_text,
    kwh,
    method,
    pue_gaps,
    with_pue_j,
)

TABLE = "esrs_2023-12-22.json"
_G_PER_T = 1e6
_UNKNOWN = {
    "energy_mwh": "no energy was measured",
    "location_based_t": "the emissions are not known",
    "market_based_t": "give market_based_g_per_kwh and market_based_source",
}
_NOTE = (
    "Each value is what these runs add to an undertaking's figure. Offsets and avoided energy are "
    "in none of them. Energy and location-based emissions hold the PUE where one was given."
)


def render(document: Document) -> str:
    """Write the table as JSON: MWh and tCO2e, ``null`` for what is not known."""
    return json_text(table(document))


def table(document: Document) -> dict[str, Any]:
    """Return the concepts with their values, and what is missing."""
    held = _table()
    hosting = given(document).get("hosting")
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
        "method": method(document),
        "intensity": intensity_words(document),
        "note": _NOTE,
        "missing": missing(document),
    }


def missing(document: Document) -> list[str]:
    """List the concepts without a value, those together that lack one for the same reason."""
    hosting, figures = given(document).get("hosting"), _figures(document)
    without: dict[str, list[str]] = {}
    for row in _table()["concepts"]:
        figure = row["figure_by_hosting"].get(hosting)
        if figures.get(figure) is None:
            reason = _UNKNOWN[figure] if figure else _why(row, hosting)
            without.setdefault(reason, []).append(row["concept"])
    return [
        *gaps(document),
        *emissions_gaps(document),
        *pue_gaps(document),
        *(f"{', '.join(concepts)}: {reason}" for reason, concepts in without.items()),
    ]


def _why(row: dict[str, Any], hosting: str | None) -> str:
    if not row["figure_by_hosting"]:
        return "from what the electricity was made is not recorded"
    if hosting is None:
        return "give hosting (own, colocated or cloud), because the scope depends on it"
    if hosting == "colocated":
        return "colocated hardware is Scope 2 or 3 by who controls it, which is yours to say"
    return f"nothing of {hosting} hardware belongs there"


def _figures(document: Document) -> dict[str | None, float | None]:
    energy_kwh = kwh(with_pue_j(document))
    market = beside(document, "electricity").get("market_based") or {}
    return {
        "energy_mwh": None if energy_kwh is None else energy_kwh / 1000.0,
        "location_based_t": _tonnes(emissions_g(document)),
        "market_based_t": _tonnes(market.get("emissions_g")),
    }


def _tonnes(grams: float | None) -> float | None:
    return None if grams is None else grams / _G_PER_T


def _table() -> dict[str, Any]:
    text = files("greentrain.report.exports").joinpath(TABLE).read_text(encoding="utf-8")
    held: dict[str, Any] = json.loads(text)
    return held
