"""Windows one by one, and the energy of each epoch, in the document, the CSV and the page."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest

from greentrain.carbon import Emissions
from greentrain.ledger import Ledger
from greentrain.report import build, write
from greentrain.report.html import render_html
from greentrain.report.svg import epoch_chart
from greentrain.report.window_list import epoch_energies
from tests.report.ledgers import SOURCES, stream, window


@pytest.fixture
def fit(ledger: Ledger) -> str:
    """A fit of two epochs, each with a validation, and the time around them."""
    with ledger.open_run("fit", "mine", sources=SOURCES) as run:
        window(run, 10.0, 2.0, phase="validation", epoch=0)
        window(run, 100.0, 20.0, epoch=0, emissions=Emissions(grams=0.5))
        window(run, 10.0, 3.0, phase="validation", epoch=1)
        window(run, 90.0, None, epoch=1)
        window(run, 5.0, 1.0, phase="fit")
    return run.run_id


def test_the_document_lists_each_window(ledger: Ledger, fit: str) -> None:
    report = build(ledger)
    assert [(one["phase"], one["epoch"], one["energy_j"]) for one in report["windows"]] == [
        ("validation", 0, 12.0),
        ("train_epoch", 0, 120.0),
        ("validation", 1, 13.0),
        ("train_epoch", 1, 90.0),
        ("fit", None, 6.0),
    ]
    assert [one["complete"] for one in report["windows"]] == [True, True, True, False, True]
    assert [one["emissions_g"] for one in report["windows"]] == [None, 0.5, None, None, None]
    assert sum(one["energy_j"] or 0.0 for one in report["windows"]) == report["totals"]["energy_j"]


def test_epochs_are_sums_of_training_and_validation(ledger: Ledger, fit: str) -> None:
    assert epoch_energies(build(ledger)["windows"]) == {
        fit: [
            {"epoch": 0, "train_j": 120.0, "validation_j": 12.0},
            {"epoch": 1, "train_j": 90.0, "validation_j": 13.0},
        ]
    }
    assert epoch_energies([]) == {}


def test_the_csv_has_a_row_for_each_window(ledger: Ledger, fit: str, tmp_path: Path) -> None:
    paths = {path.name: path for path in write(build(ledger), tmp_path, ("csv",))}
    with paths["report.windows.csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert {name: rows[1][name] for name in ("phase", "epoch", "energy (J)", "complete")} == {
        "phase": "train_epoch",
        "epoch": "0",
        "energy (J)": "120.0",
        "complete": "yes",
    }
    assert float(rows[1]["energy (kWh)"]) == pytest.approx(120 / 3.6e6)
    assert rows[1]["run id"] == fit


def test_the_page_plots_the_epochs_of_a_fit_and_not_those_of_a_stream(
    ledger: Ledger, fit: str, tmp_path: Path
) -> None:
    page = render_html(build(ledger))
    assert "<h2>Energy per epoch</h2>" in page
    assert "Energy of 2 epochs of mine" in page
    assert "epoch 1: training 90 J, validation 13 J" in page
    other = Ledger(f"sqlite:///{tmp_path / 'stream.db'}")
    stream(other)
    assert "Energy per epoch" not in render_html(build(other))
    other.close()


def test_the_chart_is_well_formed() -> None:
    chart = epoch_chart(
        [{"epoch": n, "train_j": 1.0, "validation_j": None} for n in range(3)], "<a>"
    )
    assert ElementTree.fromstring(chart).get("role") == "img"
