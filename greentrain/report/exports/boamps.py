"""A BoAmps report (1.1.0): energy of a task in the form of https://github.com/Boavizta/BoAmps."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from greentrain.report.document import Report
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim
from greentrain.units import J_PER_WH

VERSION = "1.1.0"
SPECIFICATION = "https://github.com/Boavizta/BoAmps/tree/main/model"
DATA_TYPES = (
    "tabular",
    "audio",
    "boolean",
    "image",
    "video",
    "object",
    "text",
    "token",
    "word",
    "other",
)
"""Types of a data set that the schema allows."""
_STATED = {"task.taskFamily": "task", "task.dataset": "data_type"}
_PLACES = {"own": "onPremise", "colocated": "other", "cloud": "publicCloud"}
_QUALITIES = {"high": 0.1, "medium": 0.25, "low": 0.5}


def report(document: Report) -> dict[str, Any]:
    """Return the report as plain values, without the unknown ones.

    It validates against the schema if :func:`missing` lists nothing that the schema requires.
    """
    versions = _versions(document)
    systems = [run["environment"].get("platform") for run in document["runs"]]
    values = {
        "header": _header(document),
        "task": _task(document),
        "measures": _measures(document),
        "system": {"os": systems[0]} if systems and systems[0] else None,
        "software": {"language": "python", "version": versions.get("python")} if versions else None,
        "infrastructure": {
            "infraType": _PLACES.get(facts.disclosures(document).hosting or ""),
            "components": [
                {
                    "componentName": one.device,
                    "componentType": one.kind,
                    "nbComponent": one.number,
                }
                for one in facts.hardware(document)
            ],
        },
        "environment": _environment(document),
        "quality": quality(document),
    }
    return dict(_known(values))


def missing(document: Report) -> list[str]:
    """List the required values that the report lacks, and the incomplete figures."""
    data_type = facts.stated(document, "data_type")
    sentences = facts.gaps(document)
    if not facts.stages(document):
        sentences.append("task.taskStage: no update and no training epoch was recorded")
    sentences += facts.unstated(document, _STATED)
    if _algorithm(document) is None:
        sentences.append("task.algorithms: give algorithm under model in the file of --disclosures")
    if data_type is not None and data_type not in DATA_TYPES:
        sentences.append(
            f"task.dataset: data_type is {data_type!r}; BoAmps allows {', '.join(DATA_TYPES)}"
        )
    if _PLACES.get(facts.disclosures(document).hosting or "") is None:
        sentences.append("infrastructure.infraType: give hosting in the file of --disclosures")
    if not facts.hardware(document):
        sentences.append("infrastructure.components: no device has a figure")
    return sentences


def quality(document: Report) -> str | None:
    """Return the schema's word for the 95 % interval; ``None`` if it has no word for it.

    ``"high"`` is within 10 %, ``"medium"`` within 25 % and ``"low"`` within 50 %.
    """
    totals = document["totals"]
    if totals["interval"] is None or not totals["energy_j"] or not totals["complete"]:
        return None
    share = totals["interval"]["high_j"] / totals["energy_j"] - 1.0
    return next((word for word, most in _QUALITIES.items() if share <= most), None)


def _header(document: Report) -> dict[str, Any] | None:
    last_utc = document["period"]["last_utc"]
    if last_utc is None:
        return None
    identity = claim(document)
    return {
        "formatVersion": VERSION,
        "formatVersionSpecificationUri": SPECIFICATION,
        "reportId": identity.urn.removeprefix("urn:uuid:"),
        "greentrainReport": str(identity),  # the schema allows more keys than it names
        "greentrainRestated": facts.restated_words(document),
        "reportDatetime": _moment(last_utc),
    }


def _task(document: Report) -> dict[str, Any]:
    data_type = facts.stated(document, "data_type")
    unknown = missing(document)
    accuracy = document["summary"]["final_metric"]
    named = document["summary"]["metric"] or ""
    return {
        "taskStage": "+".join(facts.stages(document)) or None,
        "taskFamily": facts.stated(document, "task"),
        "algorithms": _algorithm(document),
        "dataset": [
            {
                "dataUsage": "input",
                "dataType": data_type,
                "sourceUri": facts.stated(document, "dataset"),
            }
        ]
        if data_type in DATA_TYPES
        else None,
        "measuredAccuracy": accuracy
        if accuracy is not None and "acc" in named.lower() and 0 <= accuracy <= 1
        else None,
        "taskDescription": f"Not known: {'; '.join(unknown)}" if unknown else None,
    }


def _algorithm(document: Report) -> list[dict[str, Any]] | None:
    torch = _versions(document).get("torch")
    name = facts.stated(document, "algorithm")
    if torch is None and name is None:
        return None
    framework = "pytorch" if torch is not None else None
    return [{"algorithmName": name, "framework": framework, "frameworkVersion": torch}]


def _versions(document: Report) -> dict[str, str]:
    """Return the package versions of the first run."""
    return next((run["environment"].get("versions") for run in document["runs"]), None) or {}


def _measures(document: Report) -> list[dict[str, Any]] | None:
    totals = document["totals"]
    energy_kwh = facts.kwh(totals["energy_j"])
    if energy_kwh is None:
        return None
    idle = totals["idle"]
    idle_j = math.fsum(one["energy_j"] for one in idle)
    return [
        {
            "measurementMethod": f"greentrain, {method_text.measured_words(document)}",
            "version": document["generator"]["version"],
            "cpuTrackingMode": _tracking(document, "cpu"),
            "gpuTrackingMode": _tracking(document, "gpu"),
            "powerCalibrationMeasurement": facts.kwh(idle_j) if idle else None,
            "durationCalibrationMeasurement": max(one["duration_s"] for one in idle)
            if idle
            else None,
            "powerConsumption": energy_kwh,
            "measurementDuration": totals["duration_s"],
            "measurementDateTime": _moment(document["period"]["first_utc"]),
        }
    ]


def _tracking(document: Report, kind: str) -> str | None:
    modes = [
        source["method"]
        for source in document["totals"]["sources"]
        if facts.source_kind(source["name"]) == kind and source["method"]
    ]
    return ", ".join(dict.fromkeys(modes)) or None


def _environment(document: Report) -> dict[str, Any] | None:
    found = facts.zones(document)
    if len(found) != 1:
        return None
    # A zone is a country's code, or one followed by a region's, such as "US-CA".
    country, _, region = found[0].partition("-")
    return {
        "country": country,
        "location": facts.stated(document, "location") or (found[0] if region else None),
        "powerSourceCarbonIntensity": _intensity(document),
    }


def _intensity(document: Report) -> float | None:
    grams, energy_j = facts.average_g(document), facts.with_pue_j(document)
    return grams / energy_j * 1000.0 * J_PER_WH if grams and energy_j else None


def _moment(utc: str | None) -> str | None:
    return None if utc is None else datetime.fromisoformat(utc).strftime("%Y-%m-%d %H:%M:%S")


def _known(value: Any) -> Any:
    """Leave out all that is ``None`` or empty: the schema has no value for unknown."""
    if isinstance(value, dict):
        held = {key: _known(one) for key, one in value.items()}
        return {key: one for key, one in held.items() if one not in (None, {}, [])}
    return [one for one in map(_known, value) if one != {}] if isinstance(value, list) else value
