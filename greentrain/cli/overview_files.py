"""Print and write rows for streams, teams and months, and the overview of many ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greentrain.cli import console

if TYPE_CHECKING:
    from greentrain.report.groups import GroupFigures


def write_rows(
    ledgers: Sequence[str] | None, by: str, out: Path, scope: dict[str, str | None]
) -> None:
    """Print a row for each group and the total, and write them as CSV.

    Args:
        ledgers: The ledgers, or patterns.
        by: The groups.
        out: The folder of the file.
        scope: Arguments of :func:`greentrain.report.groups.roll_up`.
    """
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report.exports.tables import render_groups
    from greentrain.report.groups import group_by, months_left_out, roll_up
    from greentrain.report.write import write_files
    from greentrain.units import plural

    group_by(by)
    opened = open_ledgers(console.found_ledgers(ledgers))
    try:
        rows = roll_up(opened, by, **scope)
    finally:
        close_ledgers(opened)
    _print(rows, by, several=len(opened) > 1)
    if by == "month" and (gap := months_left_out(rows)):
        console.print_line(
            f"left out: {plural(gap, 'month')} without measured energy; if a clock was wrong, "
            "so is the first or the last month"
        )
    for path in write_files({f"by_{by}.csv": render_groups(rows, by)}, out):
        console.print_line(f"wrote {path}")


def write_overview(
    ledgers: Sequence[str] | None, earlier: Path | None, out: Path, scope: dict[str, str | None]
) -> None:
    """Write ``overview.html`` and ``overview.json``.

    Args:
        ledgers: The ledgers, or patterns.
        earlier: The file to compare with.
        out: The folder of the files.
        scope: Arguments of :func:`greentrain.report.overview.overview`.
    """
    from datetime import UTC, datetime

    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report.earlier_overview import read_earlier
    from greentrain.report.exports.facts import json_text
    from greentrain.report.overview import overview
    from greentrain.report.overview_page import render_overview
    from greentrain.report.write import write_files

    # Read first: the file may be the one that is written.
    then = None if earlier is None else read_earlier(earlier)
    opened = open_ledgers(console.found_ledgers(ledgers))
    arguments: dict[str, Any] = {**scope, "earlier": then}
    try:
        document = overview(opened, datetime.now(UTC), **arguments)
    finally:
        close_ledgers(opened)
    files: dict[str, str | bytes] = {
        "overview.html": render_overview(document),
        "overview.json": json_text(document, sort_keys=True),
    }
    for path in write_files(files, out):
        console.print_line(f"wrote {path}")
    for stream in document["streams"]:
        for action in stream["actions"]:
            console.print_line(f"{stream['name']}: {action['sentence']}")
            console.print_line(f"  {action['command']}")


def _print(rows: Sequence[GroupFigures], by: str, *, several: bool) -> None:
    from greentrain.report.formats import metric
    from greentrain.report.overview_page import (
        avoided_words,
        emission_words,
        energy_words,
        units_of,
    )

    right = ("runs", "experiences", "energy", "emissions", "last metric")
    with_id = by == "run"
    with_ledger = several and by in ("stream", "run")
    columns = [by, *["run id"] * with_id, *["ledger"] * with_ledger, *right, "avoided energy"]
    units = units_of(rows)
    table = console.new_table(f"Energy by {by}", *columns, right=right)
    for number, row in enumerate(rows, start=1):
        if number == len(rows):
            table.add_section()  # a group may be called "total" too
        value = row["final_metric"]
        reached = "" if value is None else f"{row['metric']} {metric(value)}"
        cells = [
            row["name"] if row["name"] is not None else f"no {by}",
            *[row["run_id"] or ""] * with_id,
            *[row["ledger"] or ""] * with_ledger,
            str(row["runs"]),
            str(row["experiences"]),
            energy_words(row, units[0]),
            emission_words(row, units[1]),
            reached,
            avoided_words(row, units[2]),
        ]
        console.add_row(table, *cells)
    console.open_console().print(table)
