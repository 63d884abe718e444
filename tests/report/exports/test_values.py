"""What the exports say of a ledger whose figures can be worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import timedelta

import openpyxl
import pytest
import yaml

from greentrain.carbon import Emissions
from greentrain.errors import ConfigurationError
from greentrain.report import build, render_html
from greentrain.report.disclosures import Disclosures
from greentrain.report.exports import (
    boamps,
    cyclonedx,
    esrs,
    facts,
    gpai,
    markdown,
    model_card,
    sci,
    spdx,
    spreadsheet,
    tables,
)
from greentrain.report.exports.claim import claim
from greentrain.report.exports.tables import inert
from greentrain.report.write import FORMATS, missing, write
from tests.report.exports.documents import ENVIRONMENT, INTENSITY, known, rendered, without
from tests.report.ledgers import STARTED, stream, window


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_csv_has_a_row_for_each_run_and_experience_in_kilowatt_hours(ledger):
    document = known(ledger)
    (run,) = read_csv(tables.render_runs(document))
    assert (run["name"], run["status"], run["PUE"]) == ("digits", "completed", "1.2")
    assert float(run["energy (kWh)"]) == pytest.approx(0.003)  # twice 1.5 Wh
    first, second = read_csv(tables.render_experiences(document))
    assert (first["update mode"], second["update mode"]) == ("FULL_RETRAIN", "WARM_START")
    assert float(second["energy with wait, probe and calibration (kWh)"]) == pytest.approx(0.0015)
    assert second["overrun (kWh)"] == "0.0"


def test_a_run_has_its_grams_tags_and_slurm_job_and_an_update_its_stream_and_weights(ledger):
    document = known(ledger)
    document["runs"][0] |= {"slurm_job_id": "42", "slurm_account": "=lab", "team": "ocr"}
    document["experiences"][0]["weights_sha256"] = "ab" * 32
    (run,) = read_csv(tables.render_runs(document))
    assert float(run["emissions (g CO2e)"]) == pytest.approx(1.44)  # 3 Wh at 400 g/kWh, PUE 1.2
    assert (run["SLURM job"], run["SLURM account"]) == ("42", "'=lab")
    assert (run["team"], run["project"]) == ("ocr", "")
    first, second = read_csv(tables.render_experiences(document))
    assert (first["stream"], second["stream"]) == ("digits", "digits")
    assert (first["weights (SHA-256)"], second["weights (SHA-256)"]) == ("ab" * 32, "")


def test_grams_of_a_run_are_unknown_if_those_of_a_window_are(ledger):
    with ledger.open_run("fit", "half") as run:
        window(run, 100.0, 10.0, emissions=Emissions(grams=1.0, intensity_g_per_kwh=400.0))
        window(run, 100.0, 10.0)
    (run,) = read_csv(tables.render_runs(build(ledger)))
    assert (run["windows"], run["emissions (g CO2e)"]) == ("2", "")


def test_hours_and_budgets_have_tables(ledger):
    document = known(ledger)
    hours = read_csv(tables.render_hours(document))
    assert sum(float(hour["energy (kWh)"]) for hour in hours) == pytest.approx(0.003)
    assert sum(float(hour["emissions (g CO2e)"]) for hour in hours) == pytest.approx(1.44)
    (budget,) = read_csv(tables.render_budgets(document))
    (given,) = document["budgets"]
    assert budget["name"] == given["name"]
    left_kwh, total_kwh = float(budget["left (kWh)"]), float(budget["total (kWh)"])
    assert left_kwh == pytest.approx(total_kwh - float(budget["spent (kWh)"]))
    assert (budget["left (g CO2e)"], budget["kept"]) == ("", "yes")


def test_numbers_of_the_workbook_are_formatted_by_their_unit(ledger):
    book = openpyxl.load_workbook(io.BytesIO(spreadsheet.render(known(ledger))))
    formats = {
        (sheet.title, column[0].value): {cell.number_format for cell in column[1:]}
        for sheet in book.worksheets
        for column in sheet.iter_cols()
    }
    assert formats["Runs", "energy (kWh)"] == {"#,##0.000000"}
    assert formats["Hours", "emissions (g CO2e)"] == {"#,##0.000"}
    assert formats["Budgets", "left (kWh)"] == {"#,##0.000000"}
    assert formats["Runs", "windows"] == {"General"}
    summary = {row[0].value: row[1].number_format for row in book["Summary"]}
    assert (summary["energy"], summary["emissions"]) == ("#,##0.000000", "#,##0.000")


def test_csv_keeps_to_rfc_4180(ledger):
    document = known(ledger)
    document["runs"][0]["name"] = 'a "quoted", name'
    text = tables.render_runs(document)
    assert text.endswith("\r\n") and "\n" not in text.replace("\r\n", "")
    assert '"a ""quoted"", name"' in text
    assert read_csv(text)[0]["name"] == 'a "quoted", name'


def test_the_workbook_holds_the_same_tables_and_says_what_is_not_known(ledger):
    stream(ledger)
    document = build(ledger)
    book = openpyxl.load_workbook(io.BytesIO(spreadsheet.render(document)))
    assert book.sheetnames == ["Summary", "Runs", "Experiences", "Hours", "Budgets"]
    rows = list(book["Runs"].values)
    assert rows[0] == tuple(tables.RUNS) and rows[1][6] == pytest.approx(0.0015)
    summary = {row[0]: row[1] for row in book["Summary"].values}
    assert summary["energy"] == pytest.approx(0.0015)
    assert summary["emissions"] is None
    assert "not known: emissions: no zone was given, so no grams are claimed" in summary


def test_markdown_names_the_figures(ledger):
    text = markdown.render(known(ledger))
    assert "| energy | 3 Wh (95 % interval " in text
    assert "| emissions | 1.44 g CO2e |" in text
    assert "| digits | 4 Wh for 2 experiences | 3 Wh | yes |" in text


def test_the_model_card_says_grams_and_how_they_came_about(ledger):
    document = known(ledger)
    entry = yaml.safe_load(model_card.render(document))["co2_eq_emissions"]
    assert entry == {
        "emissions": pytest.approx(1.44),
        "source": "greentrain 0.1.0: gpu by hardware energy counter; cpu estimated by a model; "
        "average intensity of DE (a yearbook, 2025, life-cycle); PUE 1.2; "
        f"report {claim(document)}",
        "training_type": "pre-training and fine-tuning",
        "geographical_location": "DE",
        "hardware_used": "1 x a card, 1 x a processor",
    }


def test_sci_is_worked_out_by_its_formula(ledger):
    score = sci.score(known(ledger))
    # E: 3 Wh times 1.2. M: 1314 kg for 72 of 26280 * 3600 seconds, by half.
    assert score["E"]["value"] == pytest.approx(0.0036)
    assert score["I"]["value"] == pytest.approx(400.0)
    assert score["M"]["value"] == pytest.approx(0.5)
    assert score["R"] == {"value": 2.0, "unit": "experience"}
    assert score["score"]["value"] == pytest.approx((1.44 + 0.5) / 2)
    assert score["score"]["unit"] == "gCO2e per experience"
    assert score["missing"] == []


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        (Disclosures(functional_unit="experience", functional_units=2.0), "M: give embodied_kg"),
        (
            Disclosures(embodied_kg=1.0, embodied_lifetime_h=1.0, embodied_reserved_share=1.0),
            "R: give functional_unit",
        ),
    ],
)
def test_sci_has_no_score_without_all_of_its_parts(ledger, given, absent):
    score = sci.score(known(ledger, disclosures=given))
    assert score["score"]["value"] is None
    assert any(sentence.startswith(absent) for sentence in score["missing"])


def test_sci_takes_no_market_based_and_no_marginal_intensity(ledger):
    by_market = known(ledger)
    assert sci.score(by_market)["I"]["value"] == pytest.approx(400.0)  # and not the contract's 100
    marginal = {**INTENSITY, "signal": "marginal"}
    by_market["carbon"]["intensities"] = [{"intensity": marginal, "pue": 1.2}]
    score = sci.score(by_market)
    assert score["I"]["value"] is None and score["score"]["value"] is None
    assert any(sentence.startswith("I: ") for sentence in score["missing"])


def test_an_intensity_of_unknown_origin_is_said_to_be_so(ledger):
    document = known(ledger)
    nowhere = {**dict.fromkeys(INTENSITY), "signal": "average"}
    document["carbon"]["intensities"] = [{"intensity": nowhere}]
    assert facts.zones(document) == []
    assert facts.intensity_words(document) == (
        "average intensity of unknown zone (unknown source, unknown basis)"
    )


def test_grams_of_a_part_are_not_passed_off_as_those_of_all(ledger):
    run = stream(ledger, close=False)
    window(run, 3600.0, 1800.0, emissions=Emissions(grams=0.6, intensity_g_per_kwh=400.0))
    run.close()
    document = build(ledger)
    assert document["carbon"]["emissions_g"] == 0.6
    assert facts.emissions_g(document) is None
    assert "emissions" not in model_card.metadata(document)
    assert sci.score(document)["I"]["value"] is None
    assert cyclonedx.missing(document)[0].startswith("emissions: not every window")


def test_the_kinds_of_training_are_kept_apart_in_spdx_and_named_in_cyclonedx(ledger):
    document = known(ledger)
    package = next(one for one in spdx.graph(document) if one["type"] == "ai_AIPackage")
    energy = package["ai_energyConsumption"]
    for kind in ("training", "finetuning"):
        (told,) = energy[f"ai_{kind}EnergyConsumption"]
        assert told["ai_energyQuantity"] == pytest.approx(0.0015)
        assert told["ai_energyUnit"] == "kilowattHour"
    (component,) = cyclonedx.bom(document)["components"]
    considered = component["modelCard"]["considerations"]["environmentalConsiderations"]
    (consumed,) = considered["energyConsumptions"]
    assert consumed["activityEnergyCost"] == {"value": pytest.approx(0.003), "unit": "kWh"}
    assert consumed["co2CostEquivalent"] == {"value": pytest.approx(1.44e-6), "unit": "tCO2eq"}
    told = {one["name"]: one["value"] for one in consumed["properties"]}
    assert float(told["greentrain:fine-tuning-kwh"]) == pytest.approx(0.0015)


def test_fine_tuning_of_unknown_energy_is_missing(ledger):
    document = known(ledger)
    document["experiences"][1]["update_energy_j"] = None
    package = next(one for one in spdx.graph(document) if one["type"] == "ai_AIPackage")
    assert list(package["ai_energyConsumption"]) == ["type", "ai_trainingEnergyConsumption"]
    assert "ai_finetuningEnergyConsumption" in package["comment"]


EMBODIED = {
    "embodied_kg": 1314.0,
    "embodied_lifetime_h": 26280.0,
    "embodied_reserved_share": 0.5,
}
"""0.5 g in the 72 s of the report: 1314 kg * 72 s / 26,280 h * 0.5."""


@pytest.mark.parametrize(
    ("hosting", "basis", "embodied", "expected"),
    [
        # 1.44 g by location; 3.6 Wh at 100 g/kWh are 0.36 g by market.
        ("own", "direct", False, {"Scope2L": 1.44, "Scope2M": 0.36, "L": 1.44, "M": 0.36}),
        ("own", "life-cycle", False, {"Scope2M": 0.36, "L": 1.44, "M": 0.36}),
        ("own", None, False, {"Scope2M": 0.36, "L": 1.44, "M": 0.36}),
        (
            "own",
            "direct",
            True,
            {"Scope2L": 1.44, "Scope2M": 0.36, "Scope3": 0.5, "L": 1.94, "M": 0.86},
        ),
        ("own", "life-cycle", True, {"Scope2M": 0.36, "Scope3": 0.5, "L": 1.94, "M": 0.86}),
        ("colocated", "direct", False, {"L": 1.44, "M": 0.36}),
        ("cloud", "life-cycle", False, {"Scope3": 1.44, "L": 1.44}),
        ("cloud", "direct", True, {"Scope3": 1.94, "L": 1.94}),
        (None, "direct", True, {}),
    ],
)
def test_esrs_puts_figures_where_hosting_and_basis_say(ledger, hosting, basis, embodied, expected):
    names = {
        "Scope2L": "GrossLocationBasedScope2GreenhouseGasEmissions",
        "Scope2M": "GrossMarketBasedScope2GreenhouseGasEmissions",
        "Scope3": "GrossScope3GreenhouseGasEmissions",
        "L": "LocationBasedGreenhouseGasEmissions",
        "M": "MarketBasedGreenhouseGasEmissions",
    }
    given = Disclosures(
        hosting=hosting, market_based_g_per_kwh=100.0, **(EMBODIED if embodied else {})
    )
    carbon = {**ENVIRONMENT["carbon"], "intensity": {**INTENSITY, "basis": basis}}
    table = esrs.table(known(ledger, disclosures=given, carbon=carbon))
    values = {row["concept"].removeprefix("esrs:"): row["value"] for row in table["rows"]}
    energy = values.pop("EnergyConsumptionRelatedToOwnOperations")
    assert energy == (pytest.approx(3.6e-6) if hosting == "own" else None)
    assert {name: value for name, value in values.items() if value is not None} == {
        names[name]: pytest.approx(grams / 1e6) for name, grams in expected.items()
    }
    for name, value in values.items():
        assert any(name in sentence for sentence in table["missing"]) is (value is None)


def test_factors_of_two_bases_are_added_in_no_line_that_does_not_say_so(ledger):
    direct = {**ENVIRONMENT["carbon"], "intensity": {**INTENSITY, "basis": "direct"}}
    with ledger.open_run("fit", "other", environment={**ENVIRONMENT, "carbon": direct}) as run:
        later = STARTED + timedelta(hours=2)
        window(
            run,
            *(3600.0, 0.0),
            started=later,
            emissions=Emissions(grams=2.0, intensity_g_per_kwh=400.0),
        )
    given = Disclosures(hosting="own", **EMBODIED)
    document = known(ledger, disclosures=given)
    assert document["carbon"]["by_basis"] == [
        {"basis": "direct", "emissions_g": 2.0},
        {"basis": "life-cycle", "emissions_g": pytest.approx(1.44)},
    ]
    table = esrs.table(document)
    values = {row["concept"].removeprefix("esrs:"): row["value"] for row in table["rows"]}
    assert values["GrossLocationBasedScope2GreenhouseGasEmissions"] is None
    assert values["LocationBasedGreenhouseGasEmissions"] is None
    assert any(
        "direct (2 g CO2e) and life-cycle (1.44 g CO2e)" in line for line in table["missing"]
    )
    row = next(line for line in markdown.render(document).splitlines() if "| emissions" in line)
    assert all(grams in row for grams in ("3.44 g", "2 g", "1.44 g"))
    page = render_html(document)
    assert "of different bases: direct 2 g CO2e, life-cycle 1.44 g CO2e" in page


def test_the_ai_acts_rows_have_two_significant_digits(ledger):
    form = gpai.form(known(ledger))
    rows = {row["row"]: row for row in form["rows"]}
    assert rows["Amount of energy used for training"]["value"] == "0.0000030"
    # 72 s are 0.00083 days, of one card.
    assert rows["Training time, wall clock"]["value"] == "0.00083"
    assert rows["Training time, hardware"]["value"] == "0.00083"
    assert rows["Amount of computation used for training"]["value"] is None
    words = rows["Measurement methodology of the energy"]["value"].split()
    assert 80 <= len(words) <= 120


def test_hardware_days_count_each_card(ledger):
    document = known(ledger)
    (run,) = document["runs"]
    run["sources"] = [{"name": "gpu:0"}, {"name": "gpu:1"}, {"name": "node1/gpu:0"}]
    assert gpai.hardware_s(document) == 3 * 72.0


def test_boamps_holds_what_was_measured(ledger):
    report = json.loads(rendered("boamps", known(ledger)))
    assert report["task"]["taskStage"] == "training+finetuning"
    assert report["infrastructure"]["infraType"] == "onPremise"
    (measure,) = report["measures"]
    assert measure["powerConsumption"] == pytest.approx(0.003)
    assert measure["measurementDuration"] == 72.0
    assert (measure["gpuTrackingMode"], measure["cpuTrackingMode"]) == ("counter", "estimated")
    assert report["environment"]["country"] == "DE"
    assert report["environment"]["powerSourceCarbonIntensity"] == pytest.approx(400.0)
    # Twice (360 J and 720 J in quadrature) of 10800 J are 14.9 %.
    assert report["quality"] == "medium"


def test_what_boamps_requires_and_nobody_gave_is_named(ledger):
    stream(ledger)
    sentences = boamps.missing(build(ledger))
    fields = {sentence.partition(":")[0] for sentence in sentences}
    assert fields == {
        "task.taskFamily",
        "task.dataset",
        "task.algorithms",
        "infrastructure.infraType",
    }


def test_idle_power_is_boamps_calibration(ledger):
    run = ledger.open_run("measure", "x", environment=ENVIRONMENT)
    window(run, 720.0, 360.0, phase="idle", duration_s=36.0)
    run.close()
    (measure,) = json.loads(rendered("boamps", build(ledger)))["measures"]
    assert measure["powerCalibrationMeasurement"] == pytest.approx(0.0003)  # 1080 J are 0.3 Wh
    assert measure["durationCalibrationMeasurement"] == 36.0


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"pdf", "html"}))
def test_every_format_works_without_what_later_versions_of_the_document_hold(
    ledger, tmp_path, name
):
    document = without(
        known(ledger), "disclosures", "supplementary_impacts", "hourly", "overlaps", "avoided"
    )
    assert all(path.stat().st_size > 0 for path in write(document, tmp_path, (name,)))


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"pdf"}))
def test_the_same_document_gives_the_same_files(ledger, tmp_path, name):
    document = known(ledger)
    first = [path.read_bytes() for path in write(document, tmp_path / "a", (name,))]
    assert first == [path.read_bytes() for path in write(document, tmp_path / "b", (name,))]


def test_the_files_are_named_after_their_formats(ledger, tmp_path):
    names = tuple(name for name in FORMATS if name != "pdf")
    paths = write(known(ledger), tmp_path, names)
    assert [path.name for path in paths] == [
        "report.html",
        "report.json",
        "report.runs.csv",
        "report.experiences.csv",
        "report.windows.csv",
        "report.hours.csv",
        "report.budgets.csv",
        "report.md",
        "report.hf.yaml",
        "report.boamps.json",
        "report.sci.json",
        "report.xlsx",
        "report.cdx.json",
        "report.spdx.json",
        "report.esrs.json",
        "report.gpai.json",
    ]


def test_missing_is_listed_by_format(ledger):
    stream(ledger)
    told = missing(build(ledger), ("json", "hf", "sci"))
    assert list(told) == ["hf", "sci"]
    assert "emissions: no zone was given, so no grams are claimed" in told["hf"]
    with pytest.raises(ConfigurationError, match="the report format 'odt' is not known"):
        missing(build(ledger), ("odt",))


@pytest.mark.parametrize(("name", "package"), [("xlsx", "openpyxl"), ("pdf", "weasyprint")])
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    ledger, tmp_path, monkeypatch, name, package
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"lightning-greentrain\[{name}\]"):
        write(build(ledger), tmp_path / "out", ("json", name))
    assert not (tmp_path / "out").exists()


def test_a_system_without_pango_says_what_to_install(ledger, tmp_path, monkeypatch):
    (tmp_path / "weasyprint.py").write_text("raise OSError('cannot load library libpango\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    with pytest.raises(ConfigurationError, match=r"Pango.*\(cannot load library libpango\)"):
        write(build(ledger), tmp_path / "out", ("pdf",))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),  # a full-width sign
        ("team;=1+1", "team;'=1+1"),  # a German spreadsheet separates cells by semicolons
        ("team;@SUM(A1);-2", "team;'@SUM(A1);'-2"),
        ("a=1; +0.02 \u00b1 0.01", "a=1; +0.02 \u00b1 0.01"),
    ],
)
def test_no_cell_of_a_csv_file_is_a_formula(text, shown):
    assert inert(text) == shown
