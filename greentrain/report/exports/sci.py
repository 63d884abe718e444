"""Software Carbon Intensity: ``SCI = (E * I + M) / R``, ISO/IEC 21031:2024 (specification 1.1)."""

from __future__ import annotations

from typing import Any

from greentrain.report.compute import flops_gap, known_flops
from greentrain.report.document import Report
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim

STANDARD = "ISO/IEC 21031:2024"
EXCLUDED = (
    "market-based factors, certificates and offsets: the specification does not allow them",
    "marginal intensities: they may guide decisions but do not measure emissions",
    "avoided energy and emissions: they are counterfactual",
)


def score(document: Report) -> dict[str, Any]:
    """Compute the score; it is ``None`` where I, M or R is unknown.

    Returns:
        E (kWh), I (gCO2e/kWh), M (gCO2e), R (functional units), the score, boundary and method.
    """
    energy_kwh = facts.kwh(facts.with_pue_j(document))
    carbon_g = facts.average_g(document)
    embodied = facts.embodied(document)
    embodied_g = embodied["embodied_g"] if embodied else None
    unit, units = _functional_unit(document)
    value = None
    if carbon_g is not None and embodied_g is not None and units:
        value = (carbon_g + embodied_g) / units
    return {
        "standard": STANDARD,
        "formula": "SCI = (E * I + M) / R",
        "reporting_period": facts.reporting_period(document),
        "E": {"value": energy_kwh, "unit": "kWh", "pue": _pue_words(document)},
        "I": {
            "value": carbon_g / energy_kwh if carbon_g is not None and energy_kwh else None,
            "unit": "gCO2e/kWh",
            "source": facts.intensity_words(document),
        },
        "M": {
            "value": embodied_g,
            "unit": "gCO2e",
            "source": _plain(embodied["source"] if embodied else None),
        },
        "R": {"value": units, "unit": unit},
        "compute": {
            "value": known_flops(document),
            "unit": "FLOP",
            "source": flops_gap(document) or "torch.utils.flop_counter, one step per update",
        },
        "score": {"value": value, "unit": f"gCO2e per {unit or 'functional unit'}"},
        "boundary": facts.boundary(document),
        "outside_boundary": method_text.outside(
            document, with_pue=True, with_embodied=embodied_g is not None
        ),
        "method": method_text.method(document, with_pue=True, with_embodied=embodied_g is not None),
        "restated": facts.restated_words(document),
        "excluded": list(EXCLUDED),
        "missing": missing(document),
        "report": str(claim(document)),
    }


def missing(document: Report) -> list[str]:
    """List the parts of the score that the report lacks."""
    sentences = [*facts.gaps(document), *facts.emissions_gaps(document), *facts.pue_gaps(document)]
    if facts.emissions_g(document) is not None and facts.average_g(document) is None:
        sentences.append("I: an intensity is not an average one, or its signal is not known")
    embodied = facts.embodied(document)
    if embodied is None or embodied["embodied_g"] is None:
        reason = embodied["sentence"] if embodied else None
        sentences.append(f"M: {reason or 'the embodied emissions are not known'}")
    if _functional_unit(document)[1] is None:
        sentences.append(
            "R: give functional_unit and functional_units, such as the number of experiences"
        )
    return sentences


def _functional_unit(document: Report) -> tuple[str | None, float | None]:
    stated = facts.disclosures(document)
    return _plain(stated.functional_unit), stated.functional_units


def _pue_words(document: Report) -> str:
    known = facts.known_pues(document)
    return f"included: {known}" if known else "not known, not included"


def _plain(text: str | None) -> str | None:
    return None if text is None else facts.one_line(text)
