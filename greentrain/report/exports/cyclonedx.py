"""A CycloneDX 1.6 document with the model's energy, for a bill of materials to take up.

See https://cyclonedx.org/docs/1.6/json/#components_items_modelCard_considerations: what training
took stands under ``environmentalConsiderations`` of a component's model card.
"""

from __future__ import annotations

from typing import Any

from greentrain.report.exports.facts import (
    Document,
    boundary,
    emissions_g,
    emissions_gaps,
    fine_tuning_j,
    gaps,
    generator,
    json_text,
    kwh,
    method,
    model_name,
    stated,
    unstated,
)

VERSION = "1.6"
_G_PER_T = 1e6


def render(document: Document) -> str:
    """Write the document as JSON; what is not known stands in the component's properties."""
    return json_text(bom(document))


def bom(document: Document) -> dict[str, Any]:
    """Return the bill of materials as plain values: one component, the model."""
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": model_name(document),
    }
    if (version := stated(document, "version")) is not None:
        component["version"] = version
    consumption = _consumption(document)
    if consumption:
        component["modelCard"] = {
            "considerations": {"environmentalConsiderations": {"energyConsumptions": consumption}}
        }
    component["properties"] = [
        {"name": "greentrain:missing", "value": sentence} for sentence in missing(document)
    ]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "version": 1,
        "components": [component],
    }


def missing(document: Document) -> list[str]:
    """List what a model card has room for and the report does not know."""
    return [
        *gaps(document),
        *emissions_gaps(document),
        "energyProviders: who supplied the electricity, and from what, is not recorded",
        *unstated(document, {"name": "name", "version": "version"}),
    ]


def _consumption(document: Document) -> list[dict[str, Any]]:
    energy_kwh = kwh(document["totals"]["energy_j"])
    if energy_kwh is None:
        return []
    one: dict[str, Any] = {
        # Grams are known of the whole alone, so it is one activity; fine-tuning is its part.
        "activity": "training",
        "energyProviders": [],
        "activityEnergyCost": {"value": energy_kwh, "unit": "kWh"},
    }
    carbon_g = emissions_g(document)
    if carbon_g is not None:
        one["co2CostEquivalent"] = {"value": carbon_g / _G_PER_T, "unit": "tCO2eq"}
    tuned_kwh = kwh(fine_tuning_j(document))
    told = {
        "method": method(document),
        "boundary": boundary(document) or "unknown",
        "tool": generator(document),
        "fine-tuning-kwh": "unknown" if tuned_kwh is None else repr(tuned_kwh),
    }
    one["properties"] = [
        {"name": f"greentrain:{name}", "value": value} for name, value in told.items()
    ]
    return [one]
