"""The exports against the schemas that their standards publish."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from greentrain.report import build
from greentrain.report.exports import boamps, cyclonedx
from tests.report.exports.documents import known, rendered
from tests.report.ledgers import stream

DATA = os.environ.get("GREENTRAIN_DATA")
BOAMPS = "https://raw.githubusercontent.com/Boavizta/BoAmps/main/model/"


@pytest.fixture(scope="module")
def boamps_schema():
    """A validator of BoAmps 1.1.0 that finds the parts of the schema in files."""
    if DATA is None:
        pytest.skip("GREENTRAIN_DATA names no folder with schemas/boamps")
    from jsonschema import Draft4Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    folder = Path(DATA) / "schemas" / "boamps"
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*_schema.json")}
    # The measures carry a "required" meant for an object, which Draft 4 applies to objects alone.
    registry = Registry().with_resources(
        (BOAMPS + name, DRAFT4.create_resource(schema)) for name, schema in schemas.items()
    )
    return Draft4Validator(schemas["report_schema.json"], registry=registry)


def test_a_boamps_report_of_which_all_is_known_is_valid(ledger, boamps_schema):
    document = known(ledger)
    assert boamps.missing(document) == []
    report = json.loads(rendered("boamps", document))
    assert [error.message for error in boamps_schema.iter_errors(report)] == []


def test_a_boamps_report_is_invalid_in_just_what_is_missing(ledger, boamps_schema):
    stream(ledger)
    report = json.loads(rendered("boamps", build(ledger)))
    messages = sorted(error.message for error in boamps_schema.iter_errors(report))
    assert messages == [
        "'algorithms' is a required property",
        "'dataset' is a required property",
        "'infraType' is a required property",
        "'taskFamily' is a required property",
    ]


def test_the_boamps_schema_looks_into_its_parts(ledger, boamps_schema):
    report = json.loads(rendered("boamps", known(ledger)))
    report["measures"][0]["powerConsumption"] = "3 Wh"
    report["infrastructure"]["components"][0].pop("nbComponent")
    report["task"]["dataset"][0]["dataType"] = "pictures"
    assert len(list(boamps_schema.iter_errors(report))) == 3


@pytest.mark.usefixtures("boamps_schema")
def test_a_boamps_data_type_is_one_of_the_schemas(ledger):
    document = known(ledger)
    schema = json.loads((Path(str(DATA)) / "schemas/boamps/dataset_schema.json").read_text())
    assert tuple(schema["properties"]["dataType"]["enum"]) == boamps.DATA_TYPES
    document["disclosures"]["model"]["data_type"] = "pictures"
    (sentence,) = boamps.missing(document)
    assert sentence.startswith("task.dataset: data_type is 'pictures'")
    assert "dataset" not in json.loads(rendered("boamps", document))["task"]


@pytest.mark.parametrize("make", [known, None], ids=["known", "empty"])
def test_the_cyclonedx_document_is_valid(ledger, make):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = build(ledger) if make is None else make(ledger)
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(rendered("cyclonedx", document)) is None
    bom = cyclonedx.bom(document)
    bom["components"][0]["type"] = "a model"
    assert validator.validate_str(json.dumps(bom)) is not None


@pytest.mark.parametrize("make", [known, None], ids=["known", "empty"])
def test_the_spdx_document_is_read_by_the_model_of_its_standard(ledger, make):
    """SPDX's own Python model checks types, cardinalities and enumerations as it reads."""
    document = build(ledger) if make is None else make(ledger)
    objects = read_spdx(rendered("spdx", document))
    kinds = sorted(type(one).__name__ for one in objects)
    assert kinds == ["CreationInfo", "SoftwareAgent", "SpdxDocument", "ai_AIPackage"]
    (package,) = [one for one in objects if type(one).__name__ == "ai_AIPackage"]
    if make is None:
        assert package.ai_energyConsumption is None
        return
    (told,) = package.ai_energyConsumption.ai_trainingEnergyConsumption
    assert told.ai_energyQuantity == pytest.approx(0.0015)


def read_spdx(text):
    from spdx_python_model import v3_0_1

    objects = v3_0_1.SHACLObjectSet()
    v3_0_1.JSONLDDeserializer().read(io.BytesIO(text.encode()), objects)
    assert not objects.missing_ids
    # Written again, every object is checked for what its class requires.
    v3_0_1.JSONLDSerializer().write(objects, io.BytesIO())
    return list(objects.objects)


def test_the_spdx_model_refuses_what_is_not_of_the_standard(ledger):
    text = rendered("spdx", known(ledger))
    with pytest.raises(ValueError, match="kWh"):
        read_spdx(text.replace('"kilowattHour"', '"kWh"'))
    with pytest.raises(KeyError, match="ai_energyAmount"):
        read_spdx(text.replace('"ai_energyQuantity"', '"ai_energyAmount"'))
