"""An Excel workbook: a summary and the report's tables; extra ``xlsx`` (openpyxl)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from typing import Any

from greentrain._about import DISTRIBUTION
from greentrain.errors import ConfigurationError
from greentrain.report.document import Report
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim
from greentrain.report.exports.tables import (
    BUDGETS,
    EXPERIENCES,
    HOURS,
    RUNS,
    Cell,
    cells,
    entries,
    inert,
)

_WIDTH = 22
# By the unit that a column's header or a row's last cell names.
_FORMATS = {"kWh": "#,##0.000000", "g CO2e": "#,##0.000", "s": "#,##0.0", "J": "#,##0.0"}
_UNIT = re.compile(r"\(([^()]+)\)$")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODIFIED = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")


def render(document: Report) -> bytes:
    """Write the workbook; the same document gives the same bytes.

    Raises:
        ConfigurationError: If openpyxl is not installed.
    """
    try:
        from openpyxl import Workbook
    except ImportError:
        raise ConfigurationError(
            f'the format xlsx needs openpyxl; install it with pip install "{DISTRIBUTION}[xlsx]"'
        ) from None
    workbook = Workbook()
    workbook.remove(workbook.active)
    for title, table in (
        ("Summary", _summary(document)),
        ("Runs", cells(RUNS, document["runs"])),
        ("Experiences", cells(EXPERIENCES, entries(document))),
        ("Hours", cells(HOURS, document.get("hourly", []))),
        ("Budgets", cells(BUDGETS, document["budgets"])),
    ):
        _fill(workbook.create_sheet(title), table)
    written = io.BytesIO()
    workbook.save(written)
    return _without_clock(written.getvalue())


def _summary(document: Report) -> list[list[Cell]]:
    totals = document["totals"]
    interval, words = totals["interval"], facts.restated_words(document)
    restated: list[list[Cell]] = [] if words is None else [["restated", words, None]]
    unknown: list[Cell] = [
        f"not known: {gap}" for gap in [*facts.gaps(document), *facts.emissions_gaps(document)]
    ]
    return [
        ["figure", "value", "unit"],
        ["reporting period", facts.period_words(document) or "not limited", None],
        ["runs", len(document["runs"]), None],
        ["energy", facts.kwh(totals["energy_j"]), "kWh"],
        ["energy, low (95 %)", facts.kwh(interval["low_j"] if interval else None), "kWh"],
        ["energy, high (95 %)", facts.kwh(interval["high_j"] if interval else None), "kWh"],
        ["emissions", facts.emissions_g(document), "g CO2e"],
        ["boundary", facts.boundary(document), None],
        ["obtained by", method_text.measured_words(document) or None, None],
        ["method of the energy", method_text.method(document), None],
        ["method of the emissions", method_text.emissions_method(document), None],
        *restated,
        ["report", str(claim(document)), None],
        *([sentence] for sentence in unknown),
    ]


def _fill(sheet: Any, table: Sequence[Sequence[Cell]]) -> None:
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    for number, row in enumerate(table, start=1):
        for column, value in enumerate(row, start=1):
            cell = sheet.cell(row=number, column=column)
            if isinstance(value, str):
                cell.value = value
                # Typed as text, and marked so that it stays text when the cell is edited.
                cell.data_type = "s"
                cell.quotePrefix = value != inert(value)
            else:
                cell.value = value
            if isinstance(value, float):
                cell.number_format = _number_format(str(table[0][column - 1]), row)
            if number == 1:
                cell.font = Font(bold=True)
    for column in range(1, len(table[0]) + 1):
        sheet.column_dimensions[get_column_letter(column)].width = _WIDTH
    sheet.freeze_panes = "A2"


def _number_format(header: str, row: Sequence[Cell]) -> str:
    """Return the format of a figure, by the unit in the header or in the row's last cell."""
    unit = found[1] if (found := _UNIT.search(header)) else row[-1]
    return _FORMATS.get(str(unit), "General")


def _without_clock(workbook: bytes) -> bytes:
    """Rewrite the archive without its time of creation."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook)) as held, zipfile.ZipFile(written, "w") as archive:
        for name in held.namelist():
            content = _MODIFIED.sub(rb"\g<1>1980-01-01T00:00:00Z", held.read(name))
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            archive.writestr(entry, content, compress_type=zipfile.ZIP_DEFLATED)
    return written.getvalue()
