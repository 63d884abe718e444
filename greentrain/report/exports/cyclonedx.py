"""A CycloneDX 1.6 document with the model's energy, to be merged into a bill of materials.

The energy of training is in the ``environmentalConsiderations`` of a component's model card, see
https://cyclonedx.org/docs/1.6/json/#components_items_modelCard_considerations.
"""

from __future__ import annotations

from typing import Any

from greentrain.report.document import Report
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim

VERSION = "1.6"
_G_PER_T = 1e6


def bom(document: Report) -> dict[str, Any]:
    """Return the bill of materials as plain values: one component, the model.

    The component's properties list what is not known.
    """
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": facts.model_name(document),
    }
    if (version := facts.stated(document, "version")) is not None:
        component["version"] = version
    consumption = _consumption(document)
    if consumption:
        component["modelCard"] = {
            "considerations": {"environmentalConsiderations": {"energyConsumptions": consumption}}
        }
    identity, words = claim(document), facts.restated_words(document)
    restated = [] if words is None else [words]
    component["properties"] = [
        {"name": "greentrain:report", "value": str(identity)},
        *({"name": "greentrain:restated", "value": one} for one in restated),
        *({"name": "greentrain:missing", "value": sentence} for sentence in missing(document)),
    ]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "serialNumber": identity.urn,
        "version": 1,
        "components": [component],
    }


def missing(document: Report) -> list[str]:
    """List the fields of a model card that the report lacks."""
    return [
        *facts.gaps(document),
        *facts.emissions_gaps(document),
        "energyProviders: the supplier of the electricity and its energy mix are not recorded",
        *facts.unstated(document, {"name": "name", "version": "version"}),
    ]


def _consumption(document: Report) -> list[dict[str, Any]]:
    energy_kwh = facts.kwh(document["totals"]["energy_j"])
    if energy_kwh is None:
        return []
    one: dict[str, Any] = {
        # Grams are known of the whole alone, so it is one activity, of which fine-tuning is a part.
        "activity": "training",
        "energyProviders": [],
        "activityEnergyCost": {"value": energy_kwh, "unit": "kWh"},
    }
    carbon_g = facts.emissions_g(document)
    if carbon_g is not None:
        one["co2CostEquivalent"] = {"value": carbon_g / _G_PER_T, "unit": "tCO2eq"}
    tuned_kwh = facts.kwh(facts.fine_tuning_j(document))
    properties = {
        "method": method_text.method(document),
        "emissions-method": method_text.emissions_method(document) or "unknown",
        "reporting-period": facts.period_words(document) or "not limited",
        "boundary": facts.boundary(document) or "unknown",
        "tool": facts.generator(document),
        "fine-tuning-kwh": "unknown" if tuned_kwh is None else repr(tuned_kwh),
    }
    one["properties"] = [
        {"name": f"greentrain:{name}", "value": value} for name, value in properties.items()
    ]
    return [one]
