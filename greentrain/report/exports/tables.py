"""Runs, experiences and windows as CSV files (RFC 4180), and the rows that a workbook shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from greentrain.report.document import ExperienceEntry, Report, RunFigures, WindowFigures
from greentrain.report.exports import facts
from greentrain.report.row_helpers import pue

Cell = str | float | int | None
_Row = TypeVar("_Row")
Columns = Mapping[str, Callable[[_Row], Cell]]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _text(text: str | None) -> Cell:
    return None if text is None else facts.one_line(text)


RUNS: Columns[RunFigures] = {
    "run id": lambda row: _text(row["run_id"]),
    "name": lambda row: _text(row["name"]),
    "kind": lambda row: _text(row["kind"]),
    "status": lambda row: _text(row["status"]),
    "opened (UTC)": lambda row: _text(row["opened_utc"]),
    "closed (UTC)": lambda row: _text(row["closed_utc"]),
    "energy (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "boundary": lambda row: _text(row["boundary"]),
    "measured time (s)": lambda row: row["duration_s"],
    "windows": lambda row: row["windows"],
    "incomplete windows": lambda row: row["windows_incomplete"],
    "windows cut short": lambda row: row["windows_recovered"],
    "PUE": pue,
}
"""The columns of the table of runs; energy is as metered, without the PUE."""

EXPERIENCES: Columns[ExperienceEntry] = {
    "run id": lambda row: _text(row["run_id"]),
    "position": lambda row: row["position"],
    "experience": lambda row: _text(row["experience_id"]),
    "decided (UTC)": lambda row: _text(row["decided_utc"]),
    "update mode": lambda row: _text(row["update_mode"]),
    "step fraction": lambda row: row["step_fraction"],
    "reason": lambda row: _text(row["reason"]),
    "status": lambda row: _text(row["status"]),
    "energy (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "energy of the update (kWh)": lambda row: facts.kwh(row["update_energy_j"]),
    "predicted (kWh)": lambda row: facts.kwh(row["predicted_j"]),
    "overrun (kWh)": lambda row: facts.kwh(row["overrun_j"]),
    "budget": lambda row: _text(row["budget"]),
    "metric": lambda row: _text(row["metric"]),
    "metric before": lambda row: row["metric_before"],
    "metric after": lambda row: row["metric_after"],
}
"""The columns of the table of experiences; energy includes that of the probe."""

WINDOWS: Columns[WindowFigures] = {
    "run id": lambda row: _text(row["run_id"]),
    "phase": lambda row: _text(row["phase"]),
    "epoch": lambda row: row["epoch"],
    "started (UTC)": lambda row: _text(row["started_utc"]),
    "measured time (s)": lambda row: row["duration_s"],
    "energy (J)": lambda row: row["energy_j"],
    "energy (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "emissions (g CO2e)": lambda row: row["emissions_g"],
    "complete": lambda row: "yes" if row["complete"] else "no",
}
"""The columns of the table of windows: each epoch, validation and other phase once."""


def cells(columns: Columns[_Row], rows: Sequence[_Row]) -> list[list[Cell]]:
    """Return a table: the header, then a row for each; unknown cells are ``None``."""
    return [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]


def render_runs(document: Report) -> str:
    """Write the runs as CSV; unknown cells are empty."""
    return _csv(cells(RUNS, document["runs"]))


def render_experiences(document: Report) -> str:
    """Write the experiences as CSV; unknown cells are empty."""
    return _csv(cells(EXPERIENCES, document["experiences"]))


def render_windows(document: Report) -> str:
    """Write the windows as CSV; unknown cells are empty."""
    return _csv(cells(WINDOWS, document["windows"]))


def inert(text: str) -> str:
    """Put a quote before a text that a spreadsheet would read as a formula.

    See https://owasp.org/www-community/attacks/CSV_Injection.

    Example:
        >>> inert("=1+1"), inert("a=1")
        ("'=1+1", 'a=1')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(table: Sequence[Sequence[Cell]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    for row in table:
        writer.writerow([inert(cell) if isinstance(cell, str) else cell for cell in row])
    return written.getvalue()
