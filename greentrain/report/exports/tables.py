"""Runs and experiences as tables: two CSV files (RFC 4180), and the rows that a workbook shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from greentrain.report.exports.facts import Document, kwh, one_line

Cell = str | float | int | None
Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], Cell]]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _pue(run: Row) -> float | None:
    told = run["environment"].get("carbon")
    return told.get("pue") if isinstance(told, dict) else None


def _text(key: str) -> Callable[[Row], Cell]:
    return lambda row: None if row[key] is None else one_line(str(row[key]))


RUNS: Columns = {
    "run id": _text("run_id"),
    "name": _text("name"),
    "kind": _text("kind"),
    "status": _text("status"),
    "opened (UTC)": _text("opened_utc"),
    "closed (UTC)": _text("closed_utc"),
    "energy (kWh)": lambda row: kwh(row["energy_j"]),
    "boundary": _text("boundary"),
    "measured time (s)": lambda row: row["duration_s"],
    "windows": lambda row: row["windows"],
    "incomplete windows": lambda row: row["windows_incomplete"],
    "windows cut short": lambda row: row["windows_recovered"],
    "PUE": _pue,
}
"""One row a run; energy as metered, without the PUE."""

EXPERIENCES: Columns = {
    "run id": _text("run_id"),
    "position": lambda row: row["position"],
    "experience": _text("experience_id"),
    "decided (UTC)": _text("decided_utc"),
    "update mode": _text("update_mode"),
    "step_fraction": lambda row: row["step_fraction"],
    "reason": _text("reason"),
    "status": _text("status"),
    "energy (kWh)": lambda row: kwh(row["energy_j"]),
    "energy of the update (kWh)": lambda row: kwh(row["update_energy_j"]),
    "predicted (kWh)": lambda row: kwh(row["predicted_j"]),
    "overrun (kWh)": lambda row: kwh(row["overrun_j"]),
    "budget": _text("budget"),
    "metric": _text("metric"),
    "metric before": lambda row: row["metric_before"],
    "metric after": lambda row: row["metric_after"],
}
"""One row an experience; its energy holds the look at the data as well as the update."""


def cells(columns: Columns, rows: Sequence[Row]) -> list[list[Cell]]:
    """Return a table: the header, then a row for each; what is unknown is ``None``."""
    return [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]


def render_runs(document: Document) -> str:
    """Write the runs as CSV; a cell that is unknown is empty."""
    return _csv(cells(RUNS, document["runs"]))


def render_experiences(document: Document) -> str:
    """Write the experiences as CSV; a cell that is unknown is empty."""
    return _csv(cells(EXPERIENCES, document["experiences"]))


def inert(text: str) -> str:
    """Mark a text that a spreadsheet would take for a formula, by a quote before it.

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
