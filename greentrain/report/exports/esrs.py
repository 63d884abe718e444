"""The contributions of the runs to the figures of ESRS E1, by concepts of its XBRL taxonomy.

The standard is being rewritten, and its paragraphs will move. So a table of one version of the
taxonomy assigns figures to concepts, and no paragraph is named in code.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from greentrain.report.document import Report
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim

TABLE = "esrs_2023-12-22.json"
_G_PER_T = 1e6
_UNKNOWN = {
    "energy_mwh": "no energy was measured",
    "market_based_t": "give market_based_g_per_kwh and market_based_source",
    "market_total_t": "give market_based_g_per_kwh and market_based_source",
    "hardware_t": (
        "give the embodied emissions of the hardware (Scope 3 category 2); the upstream emissions "
        "of the electricity (category 3) are not known separately"
    ),
}
_LIFE_CYCLE = (
    "Scope 2 takes direct factors, and the factor is of basis {}. A life-cycle factor includes "
    "upstream emissions, which are Scope 3 category 3. Give a direct factor"
)
_MIXED = "factors of different bases are not added: {}"
_INCLUDES = {
    "direct_t": "direct emissions of the electricity",
    "market_based_t": "the factor of the contract, whose basis its source states",
    "hardware_t": (
        "category 2, embodied emissions of the hardware; category 3, upstream emissions of the "
        "electricity, is not included"
    ),
    "location_total_t": "electricity by {} factors{}",
    "market_total_t": "electricity by the factor of the contract{}",
}
_NOTE = (
    "Each value is what these runs add to an undertaking's figure. No value includes offsets or "
    "avoided energy. Energy and location-based emissions include the PUE where one was given. "
    "Totals include the embodied emissions of the hardware where they are known."
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
            "includes": _includes(document, row["figure_by_hosting"].get(hosting)),
        }
        for row in held["concepts"]
    ]
    return {
        "taxonomy": held["taxonomy"],
        "reporting_period": facts.reporting_period(document),
        "period": document["period"],
        "hosting": hosting,
        "rows": rows,
        "method": method_text.method(
            document, with_pue=True, with_embodied=_hardware_g(document) is not None
        ),
        "intensity": facts.intensity_words(document),
        "restated": facts.restated_words(document),
        "note": _NOTE,
        "missing": missing(document),
        "report": str(claim(document)),
    }


def missing(document: Report) -> list[str]:
    """List the concepts without a value, grouped by the reason."""
    hosting, figures = facts.disclosures(document).hosting, _figures(document)
    without: dict[str, list[str]] = {}
    for row in _table()["concepts"]:
        figure = row["figure_by_hosting"].get(hosting)
        if figures.get(figure) is None:
            reason = _unknown(document, figure) if figure else _why(row, hosting)
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
    grams, bases = facts.emissions_g(document), _bases(document)
    hardware_g = _hardware_g(document)
    return {
        "energy_mwh": None if energy_kwh is None else energy_kwh / 1000.0,
        "direct_t": _tonnes(grams) if bases == {"direct"} else None,
        "market_based_t": _tonnes(market_g),
        "hardware_t": _tonnes(hardware_g),
        "location_total_t": None if len(bases) > 1 else _tonnes(grams, hardware_g),
        "market_total_t": _tonnes(market_g, hardware_g),
    }


def _bases(document: Report) -> set[str | None]:
    return {one["basis"] for one in document["carbon"]["by_basis"]}


def _hardware_g(document: Report) -> float | None:
    embodied = facts.embodied(document)
    return embodied["embodied_g"] if embodied else None


def _unknown(document: Report, figure: str) -> str:
    if figure in _UNKNOWN:
        return _UNKNOWN[figure]
    if facts.emissions_g(document) is None:
        return "the emissions are not known"
    if figure == "direct_t":
        return _LIFE_CYCLE.format(facts.bases_words(document))
    return _MIXED.format(facts.bases_words(document))


def _includes(document: Report, figure: str | None) -> str | None:
    """Describe the parts of a figure; ``None`` if it has no value or no parts."""
    if figure is None or _figures(document).get(figure) is None or figure not in _INCLUDES:
        return None
    hardware = "" if _hardware_g(document) is None else ", and embodied emissions of the hardware"
    text = _INCLUDES[figure]
    return text.format(*[facts.bases_words(document), hardware][-text.count("{}") :])


def _tonnes(grams: float | None, and_g: float | None = None) -> float | None:
    return None if grams is None else (grams + (and_g or 0.0)) / _G_PER_T


def _table() -> dict[str, Any]:
    text = files("greentrain.report.exports").joinpath(TABLE).read_text(encoding="utf-8")
    held: dict[str, Any] = json.loads(text)
    return held
