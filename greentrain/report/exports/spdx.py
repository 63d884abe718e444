"""An SPDX 3.0.1 document with the model's energy, by its AI profile.

See https://spdx.github.io/spdx-spec/v3.0.1/model/AI/Classes/EnergyConsumption/.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from greentrain.report.document import Report
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim

VERSION = "3.0.1"
CONTEXT = f"https://spdx.org/rdf/{VERSION}/spdx-context.jsonld"
_CREATION = "_:creation"
_NO_MOMENT = "1970-01-01T00:00:00Z"
_REQUIRED = (
    "software_downloadLocation",
    "suppliedBy",
    "releaseTime",
    "a declared and a concluded licence",
)


def json_ld(document: Report) -> dict[str, Any]:
    """Return the document as JSON-LD; the package's comment lists what is not known."""
    return {"@context": CONTEXT, "@graph": graph(document)}


def graph(document: Report) -> list[dict[str, Any]]:
    """Return the elements: their creator, the model as an AI package, and the document."""
    identity = claim(document)
    space = identity.urn
    tool, package = f"{space}#greentrain", f"{space}#model"
    return [
        {
            "type": "CreationInfo",
            "@id": _CREATION,
            "specVersion": VERSION,
            "created": _moment(document["period"]["last_utc"]),
            "createdBy": [tool],
        },
        {
            "type": "SoftwareAgent",
            "spdxId": tool,
            "creationInfo": _CREATION,
            "name": facts.generator(document),
        },
        _package(document, package),
        {
            "type": "SpdxDocument",
            "spdxId": f"{space}#document",
            "creationInfo": _CREATION,
            "comment": f"Rendered from the report {identity}{_restated(document)}",
            "rootElement": [package],
            "element": [tool, package],
            "profileConformance": ["core", "software"],
        },
    ]


def missing(document: Report) -> list[str]:
    """List the fields of the AI profile that the report lacks."""
    return [
        *facts.gaps(document),
        f"{', '.join(_REQUIRED)}: the AI profile requires them, and no ledger holds them",
        *facts.unstated(document, {"name": "name", "software_packageVersion": "version"}),
        *(
            ["ai_finetuningEnergyConsumption: the energy of an update is not known"]
            if document["totals"]["energy_j"] is not None and facts.fine_tuning_j(document) is None
            else []
        ),
    ]


def _restated(document: Report) -> str:
    words = facts.restated_words(document)
    return "" if words is None else f"; {words}"


def _package(document: Report, spdx_id: str) -> dict[str, Any]:
    package: dict[str, Any] = {
        "type": "ai_AIPackage",
        "spdxId": spdx_id,
        "creationInfo": _CREATION,
        "name": facts.model_name(document),
        "software_primaryPurpose": "model",
        "comment": f"Not known: {'; '.join(missing(document))}.",
        "ai_informationAboutTraining": method_text.method(document),
    }
    if (version := facts.stated(document, "version")) is not None:
        package["software_packageVersion"] = version
    total_j = document["totals"]["energy_j"]
    if total_j is not None:
        tuned_j = facts.fine_tuning_j(document) or 0.0
        package["ai_energyConsumption"] = {
            "type": "ai_EnergyConsumption",
            "ai_trainingEnergyConsumption": [_quantity(total_j - tuned_j)],
            **({"ai_finetuningEnergyConsumption": [_quantity(tuned_j)]} if tuned_j else {}),
        }
    return package


def _quantity(energy_j: float) -> dict[str, Any]:
    return {
        "type": "ai_EnergyConsumptionDescription",
        "ai_energyQuantity": facts.kwh(energy_j),
        "ai_energyUnit": "kilowattHour",
    }


def _moment(utc: str | None) -> str:
    # The creation time is required, and an empty ledger has no moment.
    return _NO_MOMENT if utc is None else datetime.fromisoformat(utc).strftime("%Y-%m-%dT%H:%M:%SZ")
