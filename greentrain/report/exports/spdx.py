"""An SPDX 3.0.1 document with the model's energy, by its AI profile.

See https://spdx.github.io/spdx-spec/v3.0.1/model/AI/Classes/EnergyConsumption/.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from greentrain.report.exports.facts import (
    Document,
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


def render(document: Document) -> str:
    """Write the document as JSON-LD; what is not known stands in the package's comment."""
    return json_text({"@context": CONTEXT, "@graph": graph(document)})


def graph(document: Document) -> list[dict[str, Any]]:
    """Return the elements: who made them, the model as an AI package, and the document."""
    # The same ledger gives the same identifiers.
    heads = json_text(document["verification"]["heads"])
    space = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, heads)}"
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
            "name": generator(document),
        },
        _package(document, package),
        {
            "type": "SpdxDocument",
            "spdxId": f"{space}#document",
            "creationInfo": _CREATION,
            "rootElement": [package],
            "element": [tool, package],
            "profileConformance": ["core", "software"],
        },
    ]


def missing(document: Document) -> list[str]:
    """List what the AI profile asks of a package and the report does not know."""
    return [
        *gaps(document),
        f"{', '.join(_REQUIRED)}: the AI profile asks for them, and no ledger holds them",
        *unstated(document, {"name": "name", "software_packageVersion": "version"}),
        *(
            ["ai_finetuningEnergyConsumption: the energy of some update is not known"]
            if document["totals"]["energy_j"] is not None and fine_tuning_j(document) is None
            else []
        ),
    ]


def _package(document: Document, spdx_id: str) -> dict[str, Any]:
    package: dict[str, Any] = {
        "type": "ai_AIPackage",
        "spdxId": spdx_id,
        "creationInfo": _CREATION,
        "name": model_name(document),
        "software_primaryPurpose": "model",
        "comment": f"Not known: {'; '.join(missing(document))}.",
        "ai_informationAboutTraining": method(document),
    }
    if (version := stated(document, "version")) is not None:
        package["software_packageVersion"] = version
    total_j = document["totals"]["energy_j"]
    if total_j is not None:
        tuned_j = fine_tuning_j(document) or 0.0
        package["ai_energyConsumption"] = {
            "type": "ai_EnergyConsumption",
            "ai_trainingEnergyConsumption": [_quantity(total_j - tuned_j)],
            **({"ai_finetuningEnergyConsumption": [_quantity(tuned_j)]} if tuned_j else {}),
        }
    return package


def _quantity(energy_j: float) -> dict[str, Any]:
    return {
        "type": "ai_EnergyConsumptionDescription",
        "ai_energyQuantity": kwh(energy_j),
        "ai_energyUnit": "kilowattHour",
    }


def _moment(utc: str | None) -> str:
    # A document has to have been created at some time; of an empty ledger there is none.
    return _NO_MOMENT if utc is None else datetime.fromisoformat(utc).strftime("%Y-%m-%dT%H:%M:%SZ")
