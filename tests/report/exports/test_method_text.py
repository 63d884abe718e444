"""Each method text says of its figure what the figure has."""

from __future__ import annotations

import json
import re

import pytest

from greentrain.energy import Source
from greentrain.ledger import Ledger
from greentrain.report import build, render_html
from greentrain.report.disclosures import Disclosures
from greentrain.report.exports import esrs, gpai, markdown, method_text, sci
from tests.report.exports.documents import DISCLOSED, known, rendered
from tests.report.ledgers import STARTED, window

OWN = "cooling and other overheads of the building"


def measured_by(ledger: Ledger, *methods: str) -> dict:
    names = [f"gpu:{number}" for number in range(len(methods))]
    sources = [
        Source(name=name, method=method, relative_uncertainty=0.1)
        for name, method in zip(names, methods, strict=True)
    ]
    from tests.ledger.events import window as drawn

    with ledger.open_run("fit", "net", environment={"host": "abc"}, sources=sources) as run:
        run.record(
            drawn("fit", by_source=dict.fromkeys(names, 360.0), started=STARTED, duration_s=36.0)
        )
    return build(ledger)


@pytest.mark.parametrize(
    ("methods", "word"),
    [
        (("counter",), "metered"),
        (("sampled", "counter"), "metered"),
        (("estimated",), "modelled"),
        (("given",), "modelled"),
        (("counter", "estimated"), "in part metered and in part modelled"),
    ],
)
def test_only_what_a_sensor_read_is_metered(ledger, methods, word):
    document = measured_by(ledger, *methods)
    assert f"energy was {word} by greentrain" in method_text.method(document)
    if "counter" not in methods and "sampled" not in methods:
        for name in ("md", "sci", "esrs", "gpai", "spdx", "cyclonedx", "hf", "boamps"):
            assert "metered" not in rendered(name, document), name
        assert "metered" not in render_html(document)


def test_a_text_has_the_pue_and_the_interval_of_its_own_figure(ledger):
    document = known(ledger)  # 3 Wh and a PUE of 1.2, so 3.6 Wh; u = hypot(0.05 * 2, 0.2 * 1) Wh
    # 2 u = 0.4472 Wh: 2.55 to 3.45 Wh as measured, 3.06 to 4.14 Wh with the PUE.
    without = next(
        row for row in gpai.form(document)["rows"] if "methodology of the en" in row["row"]
    )
    assert "interval of the energy is 2.55 to 3.45 Wh" in without["value"]
    assert OWN in without["value"]
    for text in (esrs.table(document)["method"], sci.score(document)["method"]):
        assert "energy, PUE included, is 3.06 to 4.14 Wh" in text
        assert "included by the PUE (1.2)" in text
        assert OWN not in text
        assert "is not in the energy, and is added to the emissions" in text
        assert "Not included: network and storage." in text


def test_without_hardware_and_pue_the_texts_say_that_they_are_not_included(ledger):
    document = known(ledger, disclosures=Disclosures(hosting="own"), carbon={"pue": None})
    text = esrs.table(document)["method"]
    assert f"Not included: {OWN}, network, storage and the manufacture of the hardware." in text
    assert "PUE" not in text


def test_sci_lists_nothing_as_outside_that_its_score_includes(ledger):
    outside = sci.score(known(ledger))["outside_boundary"]
    assert not any(line.startswith("cooling") or "manufacture" in line for line in outside)
    assert "water: neither in the energy nor in its emissions" in outside


def test_emissions_name_the_pue_only_where_there_is_one(ledger):
    with_pue = known(ledger)
    assert "times PUE where one was given" in with_pue["carbon"]["sentence"]
    assert "times the PUE (1.2) times its intensity" in method_text.emissions_method(with_pue)


def test_emissions_without_a_pue_name_none(ledger):
    intensity = {"source": "a", "zone": "DE", "signal": "average", "basis": "direct"}
    document = known(ledger, carbon={"intensity": {**intensity, "data_year": 2025}, "pue": None})
    assert "PUE" not in document["carbon"]["sentence"]
    assert "PUE" not in method_text.emissions_method(document)


def test_no_lower_bound_stands_over_an_interval_that_begins_below_it(ledger):
    with ledger.open_run(
        "fit",
        "net",
        environment={"host": "a"},
        sources=[Source(name="gpu:0", method="estimated", relative_uncertainty=0.5)],
    ) as run:
        window(run, 3600.0, None)
    document = build(ledger, disclosures=DISCLOSED)
    assert not document["totals"]["complete"]
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_html(document)))
    for text in (page, markdown.render(document), json.dumps(esrs.table(document))):
        assert "at least" not in text.lower()
        assert "lower bound" not in text
        assert "measured part" in text
