"""Tables of the report as CSV files (RFC 4180), and the rows that a workbook shows."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TextIO, TypeVar

from greentrain.report.budget_figures import BudgetFigures
from greentrain.report.document import ExperienceEntry, HourFigures, Report, RunFigures
from greentrain.report.exports import facts
from greentrain.report.exports.claim import NO_CLAIM, Claim, claim
from greentrain.report.groups import GroupFigures
from greentrain.report.limits import Sink
from greentrain.report.row_helpers import main_metric, pue
from greentrain.report.uses import kind_of, with_baselines
from greentrain.report.window_list import TaggedWindow, tagged

Cell = str | float | int | None
_Row = TypeVar("_Row")
Columns = Mapping[str, Callable[[_Row], Cell]]

_FORMULA = re.compile("(^|[;\\t])(?=[=+\\-@\\t\\r\uff1d\uff0b\uff0d\uff20])")


@lru_cache(maxsize=1024)  # run ids and phases recur in each row
def _text(text: str | None) -> Cell:
    return None if text is None else facts.one_line(text)


def _in_cluster(row: RunFigures, name: str) -> Cell:
    where = row["environment"].get("where")
    return _text(where.get(name) if isinstance(where, dict) else None)


RUNS: Columns[RunFigures] = {
    "run id": lambda row: _text(row["run_id"]),
    "name": lambda row: _text(row["name"]),
    "kind": lambda row: _text(row["kind"]),
    "status": lambda row: _text(row["status"]),
    "opened (UTC)": lambda row: _text(row["opened_utc"]),
    "closed (UTC)": lambda row: _text(row["closed_utc"]),
    "energy (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "emissions (g CO2e)": lambda row: row["emissions_g"],
    "boundary": lambda row: _text(row["boundary"]),
    "measured time (s)": lambda row: row["duration_s"],
    "windows": lambda row: row["windows"],
    "incomplete windows": lambda row: row["windows_incomplete"],
    "windows cut short": lambda row: row["windows_recovered"],
    "PUE": pue,
    "SLURM job": lambda row: _text(row["slurm_job_id"]),
    "SLURM account": lambda row: _text(row["slurm_account"]),
    "team": lambda row: _text(row["team"]),
    "project": lambda row: _text(row["project"]),
    "emissions before restating (g CO2e)": lambda row: row["emissions_before_g"],
    "metric": lambda row: None if (one := main_metric(row)) is None else _text(one["name"]),
    "last metric": lambda row: None if (one := main_metric(row)) is None else one["value"],
    "metric mode": lambda row: None if (one := main_metric(row)) is None else one["mode"],
    "energy before a resume (kWh)": lambda row: facts.kwh(row["resumed_j"]),
    "SLURM array task": lambda row: _in_cluster(row, "slurm_array_task_id"),
    "Kubernetes pod": lambda row: _in_cluster(row, "kubernetes_pod"),
    "Kubernetes namespace": lambda row: _in_cluster(row, "kubernetes_namespace"),
    "node": lambda row: _in_cluster(row, "hostname"),
}
"""The columns of the table of runs; energy is as metered, without the PUE, grams with it.

The metric is that of a fit; the table of experiences has those of streams.
"""

EXPERIENCES: Columns[ExperienceEntry] = {
    "run id": lambda row: _text(row["run_id"]),
    "stream": lambda row: _text(row["stream"]),
    "kind": kind_of,
    "position": lambda row: row["position"],
    "experience": lambda row: _text(row["experience_id"]),
    "decided (UTC)": lambda row: _text(row["decided_utc"]),
    "update mode": lambda row: _text(row["update_mode"]),
    "step fraction": lambda row: row["step_fraction"],
    "reason": lambda row: _text(row["reason"]),
    "status": lambda row: _text(row["status"]),
    "energy with wait, probe and calibration (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "energy of the update alone (kWh)": lambda row: facts.kwh(row["update_energy_j"]),
    "predicted for the update (kWh)": lambda row: facts.kwh(row["predicted_j"]),
    "overrun (kWh)": lambda row: facts.kwh(row["overrun_j"]),
    "budget": lambda row: _text(row["budget"]),
    "metric": lambda row: _text(row["metric"]),
    "metric before": lambda row: row["metric_before"],
    "metric after": lambda row: row["metric_after"],
    "weights (SHA-256)": lambda row: _text(row["weights_sha256"]),
}
"""The columns of the table of experiences and baseline retrainings."""

WINDOWS: Columns[TaggedWindow] = {
    "run id": lambda row: _text(row["run_id"]),
    "phase": lambda row: _text(row["phase"]),
    "epoch": lambda row: row["epoch"],
    "started (UTC)": lambda row: _text(row["started_utc"]),
    "measured time (s)": lambda row: row["duration_s"],
    "energy (J)": lambda row: row["energy_j"],
    "energy (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "emissions (g CO2e)": lambda row: row["emissions_g"],
    "complete": lambda row: "yes" if row["complete"] else "no",
    "team": lambda row: _text(row["team"]),
    "project": lambda row: _text(row["project"]),
}
"""The columns of the table of windows: each epoch, validation and other phase once."""


GROUPS: Columns[GroupFigures] = {
    "name": lambda row: _text(row["name"]),
    "ledger": lambda row: _text(row["ledger"]),
    "kind": lambda row: _text(row["kind"]),
    "run id": lambda row: _text(row["run_id"]),
    "runs": lambda row: row["runs"],
    "experiences": lambda row: row["experiences"],
    "energy (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "all energy measured": lambda row: "yes" if row["complete"] else "no",
    "emissions (g CO2e)": lambda row: row["emissions_g"],
    "emissions of all energy": lambda row: "yes" if row["emissions_complete"] else "no",
    "bases of the emissions": lambda row: _text(", ".join(row["bases"])),
    "metric": lambda row: _text(row["metric"]),
    "last metric": lambda row: row["final_metric"],
    "avoided at each baseline retraining, measured (kWh)": lambda row: facts.kwh(
        row["avoided_each_j"]
    ),
    "baseline retrainings": lambda row: row["baseline_retrainings"],
    "avoided in all, modelled (kWh)": lambda row: facts.kwh(row["avoided_j"]),
}
"""The columns of the table of groups."""

HOURS: Columns[HourFigures] = {
    "hour (UTC)": lambda row: _text(row["hour_utc"]),
    "energy (kWh)": lambda row: facts.kwh(row["energy_j"]),
    "emissions (g CO2e)": lambda row: row["carbon_g"],
}
"""The columns of the table of hours: each hour in which anything was measured."""

BUDGETS: Columns[BudgetFigures] = {
    "budget id": lambda row: _text(row["budget_id"]),
    "name": lambda row: _text(row["name"]),
    "given as": lambda row: _text(row["given_as"]),
    "part of": lambda row: _text(row["parent"]),
    "opened (UTC)": lambda row: _text(row["opened_utc"]),
    "experiences": lambda row: row["num_experiences"],
    "total (kWh)": lambda row: facts.kwh(row["total_j"]),
    "spent (kWh)": lambda row: facts.kwh(row["spent_j"]),
    "reserved (kWh)": lambda row: facts.kwh(row["reserved_j"]),
    "left (kWh)": lambda row: facts.kwh(row["left_j"]),
    "overrun (kWh)": lambda row: facts.kwh(row["overrun_j"]),
    "total (g CO2e)": lambda row: row["total_g"],
    "spent (g CO2e)": lambda row: row["spent_g"],
    "reserved (g CO2e)": lambda row: row["reserved_g"],
    "left (g CO2e)": lambda row: row["left_g"],
    "overrun (g CO2e)": lambda row: row["overrun_g"],
    "kept": lambda row: "yes" if row["kept"] else "no",
}
"""The columns of the table of budgets; a budget has figures in its own unit only."""


def cells(columns: Columns[_Row], rows: Sequence[_Row]) -> list[list[Cell]]:
    """Return a table: the header, then a row for each; unknown cells are ``None``."""
    return [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]


def entries(document: Report) -> list[ExperienceEntry]:
    """Return the experiences, each followed by its baseline retrainings."""
    return with_baselines(document["experiences"], document["baseline_retrainings"])


def render_runs(document: Report) -> str:
    """Write the runs as CSV; unknown cells are empty."""
    return _csv(cells(RUNS, document["runs"]), claim(document))


def render_experiences(document: Report) -> str:
    """Write the experiences as CSV; unknown cells are empty."""
    return _csv(cells(EXPERIENCES, entries(document)), claim(document))


def render_windows(document: Report) -> str:
    """Write the windows as CSV; unknown cells are empty."""
    runs = {run["run_id"]: run for run in document["runs"]}
    rows = [tagged(one, runs.get(one["run_id"])) for one in document["windows"]]
    return _csv(cells(WINDOWS, rows), claim(document))


def render_groups(rows: Sequence[GroupFigures], by: str) -> str:
    """Write the rows of groups as CSV; unknown cells are empty. The file is no report.

    A group may be called "total": the first column says which row is the total.

    Args:
        rows: The rows, with the total as the last one.
        by: The groups, such as ``"stream"``.
    """
    kinds = ["row", *[by] * (len(rows) - 1), "total"]
    table = [[kind, *row] for kind, row in zip(kinds, cells(GROUPS, rows), strict=True)]
    return _csv(table, None)


def render_hours(document: Report) -> str:
    """Write the hours as CSV; unknown cells are empty."""
    return _csv(cells(HOURS, document.get("hourly", [])), claim(document))


def render_budgets(document: Report) -> str:
    """Write the budgets as CSV; unknown cells are empty."""
    return _csv(cells(BUDGETS, document["budgets"]), claim(document))


def inert(text: str) -> str:
    """Put a quote before a text that a spreadsheet would read as a formula.

    Such texts begin with a sign, also a full-width one. Where a semicolon separates cells, so may
    a part of a text. See https://owasp.org/www-community/attacks/CSV_Injection.

    Example:
        >>> inert("=1+1"), inert("a=1"), inert("a;=1")
        ("'=1+1", 'a=1', "a;'=1")
    """
    return _FORMULA.sub(r"\1'", text)


class CsvFiles(Sink):
    """The CSV files of all windows and experiences, written row by row while a report is built.

    Used as a context manager. Files that were not kept are removed at its end.

    Args:
        folder: Folder of the files, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[str, TextIO] = {}
        self._window = self._open("windows", WINDOWS)
        self._experience = self._open("experiences", EXPERIENCES)

    def __enter__(self) -> CsvFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def window(self, one: TaggedWindow) -> None:
        """Write a window."""
        self._window(one)

    def experience(self, one: ExperienceEntry) -> None:
        """Write an experience."""
        self._experience(one)

    def keep(self, name: str, path: Path, identity: Claim) -> None:
        """Write the report's identity into a finished file, and move it to its place.

        Args:
            name: ``"windows"`` or ``"experiences"``.
            path: The place.
            identity: The identity of the report, which is known at its end.

        Raises:
            OSError: If it cannot be moved.
        """
        self._files[name].close()
        with self._temporary(name).open("r+b") as file:
            header = file.readline()
            file.seek(0)
            file.write(header.replace(str(NO_CLAIM).encode(), str(identity).encode()))
        if path.exists():
            shutil.copymode(path, self._temporary(name))
        self._temporary(name).replace(path)

    def _open(self, name: str, columns: Columns[Any]) -> Callable[[Any], None]:
        path = self._temporary(name)
        self._stack.callback(path.unlink, missing_ok=True)
        file = self._stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        self._files[name] = file
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([*columns, _mark(NO_CLAIM)])

        def write(row: Any) -> None:
            writer.writerow([*_inert(cell(row) for cell in columns.values()), None])

        return write

    def _temporary(self, name: str) -> Path:
        # Another name than that of replace_file, which may write a file of this name meanwhile.
        return self._folder / f".report.{name}.csv.{os.getpid()}.rows.tmp"


def _csv(table: Sequence[Sequence[Cell]], identity: Claim | None) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    if identity is None:
        writer.writerows(_inert(row) for row in table)
        return written.getvalue()
    for row, mark in zip(table, chain([_mark(identity)], repeat(None)), strict=False):
        writer.writerow([*_inert(row), mark])
    return written.getvalue()


def _mark(identity: Claim) -> str:
    """Return the header of an empty last column; CSV has no comments."""
    return f"report {identity}"


def _inert(row: Iterable[Cell]) -> list[Cell]:
    return [
        inert(cell) if isinstance(cell, str) else _digits(cell) if type(cell) is float else cell
        for cell in row
    ]


def _digits(value: float) -> str:
    """Write a number in full, without an exponent."""
    written = repr(value)
    return f"{Decimal(written):f}" if "e" in written else written
