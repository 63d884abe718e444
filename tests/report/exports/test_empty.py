"""Ledgers in which there is little or nothing: every format writes something that says so."""

from __future__ import annotations

import io
import json

import openpyxl
import pytest

from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.report.write import FORMATS, write
from tests.report.exports.documents import needs_pango
from tests.report.ledgers import SOURCES, heartbeat, stream, window


def empty(ledger):
    return build(ledger), "holds no run"


def without_epochs(ledger):
    with ledger.open_run("fit", "short", sources=SOURCES):
        pass
    return build(ledger), "nothing was measured"


def unmeasured(ledger):
    run = ledger.open_run("fit", "blind", sources=SOURCES)
    window(run, None, None)
    run.close()
    return build(ledger), "nothing was measured"


def without_intensity(ledger):
    stream(ledger)
    return build(ledger), "no grams are claimed"


def crashed(ledger):
    run = ledger.open_run("fit", "killed", sources=SOURCES)
    window(run, 3600.0, 1800.0, phase="validation")
    run.flush()
    heartbeat(run, 1800.0, 900.0)
    document = build(ledger)
    run.close()
    return document, "the measured part"


CASES = [empty, without_epochs, unmeasured, without_intensity, crashed]
# What these say of a figure, they say by a word, an empty cell or the page that others test.
BY_THEMSELVES = {"html", "json", "csv", "pdf"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("name", sorted({*FORMATS} - BY_THEMSELVES))
def test_every_format_says_what_there_is_not(ledger, tmp_path, case, name):
    document, words = case(ledger)
    if name in ("spdx", "gpai") and words == "no grams are claimed":
        words = "Not known" if name == "spdx" else "were not counted"  # they have no grams
    if name == "boamps" and words == "no grams are claimed":
        words = "Not known"
    (path,) = write(document, tmp_path, (name,))
    assert words in text_of(path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("name", sorted(BY_THEMSELVES - {"pdf"}))
def test_pages_and_tables_are_written_all_the_same(ledger, tmp_path, case, name):
    document, _ = case(ledger)
    paths = write(document, tmp_path, (name,))
    assert all(path.stat().st_size > 0 for path in paths)


def test_the_tables_of_an_empty_ledger_are_their_headers(ledger, tmp_path):
    runs, experiences, windows, *others = write(build(ledger), tmp_path, ("csv",))
    assert [path.read_text().count("\n") for path in others] == [1, 1]
    assert runs.read_text().startswith("run id,name,") and runs.read_text().count("\n") == 1
    assert experiences.read_text().count("\n") == windows.read_text().count("\n") == 1


def test_nothing_measured_is_never_written_as_nothing_drawn(ledger, tmp_path):
    document, _ = unmeasured(ledger)
    names = [name for name in FORMATS if name not in {"pdf", "html", "json"}]
    for path in write(document, tmp_path, names):
        if path.suffix == ".json":
            held = json.loads(path.read_text())
            assert 0 not in numbers(held) - {1, 36.0}
    assert "energy (kWh),emissions (g CO2e),boundary" in (tmp_path / "report.runs.csv").read_text()
    assert ",,,36.0,1,1,0," in (tmp_path / "report.runs.csv").read_text()


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"pdf"}))
def test_several_ledgers_are_one_report(ledger, tmp_path, name):
    stream(ledger, name="a")
    other = Ledger(f"sqlite:///{tmp_path / 'other.db'}")
    stream(other, name="b")
    document = build([ledger, other])
    other.close()
    assert all(path.stat().st_size > 0 for path in write(document, tmp_path / "out", (name,)))


@pytest.mark.slow
@pytest.mark.parametrize("case", [empty, crashed], ids=lambda case: case.__name__)
def test_a_pdf_is_printed_and_the_same_twice(ledger, tmp_path, case):
    needs_pango()
    document, _ = case(ledger)
    first, second = (write(document, tmp_path / part, ("pdf",))[0].read_bytes() for part in "ab")
    assert first.startswith(b"%PDF-") and first == second


def text_of(path):
    if path.suffix != ".xlsx":
        return path.read_text(encoding="utf-8")
    book = openpyxl.load_workbook(io.BytesIO(path.read_bytes()))
    return "\n".join(str(cell) for sheet in book for row in sheet.values for cell in row)


def numbers(value):
    if isinstance(value, dict):
        return {number for one in value.values() for number in numbers(one)}
    if isinstance(value, list):
        return {number for one in value for number in numbers(one)}
    return {value} if isinstance(value, int | float) and not isinstance(value, bool) else set()
