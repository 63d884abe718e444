"""Software Carbon Intensity: ``SCI = (E * I + M) / R``, ISO/IEC 21031:2024 (specification 1.1)."""

from __future__ import annotations

from typing import Any

from greentrain.report.exports.facts import (
    Document,
    beside,
    boundary,
    emissions_g,
    emissions_gaps,
    gaps,
    given,
    intensities,
    intensity_words,
    json_text,
    kwh,
    method,
    one_line,
    pue_gaps,
    pues,
    with_pue_j,
)

STANDARD = "ISO/IEC 21031:2024"
EXCLUDED = (
    "market-based factors, certificates and offsets: the specification does not allow them",
    "marginal intensities: they may steer decisions and are no measure of emissions",
    "avoided energy and emissions: they are counterfactual",
)


def render(document: Document) -> str:
    """Write the score with its parts, boundary and method as JSON."""
    return json_text(score(document))


def score(document: Document) -> dict[str, Any]:
    """Work out the score; it is ``None`` where I, M or R is unknown.

    Returns:
        E (kWh), I (gCO2e/kWh), M (gCO2e), R (functional units), the score, boundary and method.
    """
    energy_kwh = kwh(with_pue_j(document))
    carbon_g = _operational_g(document)
    embodied_g = beside(document, "embodied").get("embodied_g")
    unit, units = _functional_unit(document)
    value = None
    if carbon_g is not None and embodied_g is not None and units:
        value = (carbon_g + embodied_g) / units
    return {
        "standard": STANDARD,
        "formula": "SCI = (E * I + M) / R",
        "E": {"value": energy_kwh, "unit": "kWh", "pue": _pue_words(document)},
        "I": {
            "value": carbon_g / energy_kwh if carbon_g is not None and energy_kwh else None,
            "unit": "gCO2e/kWh",
            "source": intensity_words(document),
        },
        "M": {
            "value": embodied_g,
            "unit": "gCO2e",
            "source": _plain(beside(document, "embodied").get("source")),
        },
        "R": {"value": units, "unit": unit},
        "score": {"value": value, "unit": f"gCO2e per {unit or 'functional unit'}"},
        "boundary": boundary(document),
        "outside_boundary": document["not_measured"]["outside_boundary"],
        "method": method(document),
        "excluded": list(EXCLUDED),
        "missing": missing(document),
    }


def missing(document: Document) -> list[str]:
    """List what the score needs and the report does not know."""
    sentences = [*gaps(document), *emissions_gaps(document), *pue_gaps(document)]
    if emissions_g(document) is not None and _operational_g(document) is None:
        sentences.append("I: an intensity is not an average one, or its signal is not known")
    embodied = beside(document, "embodied")
    if embodied.get("embodied_g") is None:
        sentences.append(
            "M: " + (embodied.get("sentence") or "what making the hardware took is not known")
        )
    if _functional_unit(document)[1] is None:
        sentences.append(
            "R: give functional_unit and functional_units, such as the number of experiences"
        )
    return sentences


def _operational_g(document: Document) -> float | None:
    average = all(one["signal"] == "average" for one in intensities(document))
    return emissions_g(document) if average else None


def _functional_unit(document: Document) -> tuple[str | None, float | None]:
    unit = given(document).get("functional_unit")
    units = given(document).get("functional_units")
    return (_plain(unit), units) if unit is not None and units else (_plain(unit), None)


def _pue_words(document: Document) -> str:
    known = [f"{one:g}" for one in pues(document) if one is not None]
    return f"included: {', '.join(known)}" if known else "not known, not included"


def _plain(text: str | None) -> str | None:
    return None if text is None else one_line(text)
