"""The ``greentrain restate`` command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from greentrain.cli import console
from greentrain.cli.report_command import FORMATS
from greentrain.units import J_PER_WH, format_carbon, format_energy

_J_PER_KWH = 1000.0 * J_PER_WH
_MOST = 5


def restate(
    factors: Annotated[
        Path, typer.Option(help="CSV file of dated factors, or a time series.", metavar="FILE")
    ],
    ledgers: Annotated[
        list[str] | None,
        typer.Option(
            "--ledger",
            help="A ledger, or a pattern such as 'runs/*.db'. Can be repeated.",
            metavar="LEDGER",
            show_default="greentrain.db, or else greentrain_logs/*.db",
        ),
    ] = None,
    scope2: Annotated[
        str | None,
        typer.Option(
            help="Kind of the factors: direct or life-cycle.",
            metavar="KIND",
            show_default="the only kind in the file",
        ),
    ] = None,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Also compute Scope 3, category 3.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of a whole restated report.", metavar="FOLDER")
    ] = None,
    formats: Annotated[
        str,
        typer.Option("--format", help="Formats of the report, as for `greentrain report`."),
    ] = FORMATS,
    disclosures: Annotated[
        Path | None,
        typer.Option(help="A YAML file of facts that no meter has, for the report."),
    ] = None,
) -> None:
    """Recompute grams with other factors, and show old against new; no ledger is changed."""
    from greentrain.errors import ConfigurationError
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report import build_and_write
    from greentrain.report.disclosures import read_disclosures
    from greentrain.report.restate import restate as restated
    from greentrain.report.restatement import Restatement

    if out is None and (formats != FORMATS or disclosures is not None):
        raise ConfigurationError(
            "--format and --disclosures are for a restated report; give its folder with --out"
        )
    given = Restatement.read(factors, scope2=scope2, upstream=upstream)
    stated = None if disclosures is None else read_disclosures(disclosures)
    patterns = console.found_ledgers(ledgers)
    opened = open_ledgers(patterns)
    try:
        _print(restated(opened, given.factors, scope2=scope2, upstream=upstream), upstream=upstream)
        if out is None:
            return
        chosen = tuple(name.strip() for name in formats.split(","))
        _, paths = build_and_write(opened, out, chosen, disclosures=stated, restatement=given)
    finally:
        close_ledgers(opened)
    for path in paths:
        console.print_line(f"wrote {path}")
    for path in paths:
        if path.name == "report.json":
            of_ledgers = (word for one in patterns for word in ("--ledger", one))
            console.print_next("verify", path, *of_ledgers, "--factors", factors)


def _print(found: dict[str, Any], *, upstream: bool) -> None:
    columns = ["run", "id", "factors of", "energy", "old", f"new ({found['scope2']})"]
    columns += ["upstream"] if upstream else []
    table = console.new_table("Restated emissions", *columns, right=columns[3:])
    total = {"name": "total", "run_id": "", "factors_of": "", **found["total"]}
    mixed = len(found["total"]["old_bases"]) > 1
    for one in [*found["runs"], total]:
        energy_j = one["energy_j"]
        cells = [
            one["name"],
            one["run_id"],
            one["factors_of"] if one["factors_of"] is not None else "none",
            "unknown" if energy_j is None else format_energy(energy_j),
            _old(one, mixed=mixed),
            format_carbon(one["new_g"]),
        ]
        console.add_row(table, *cells, *([format_carbon(one["upstream_g"])] if upstream else []))
    console.open_console().print(table)
    for line in _notes(found):
        console.print_line(line)


def _old(one: dict[str, Any], *, mixed: bool) -> str:
    """Write the old grams; with the basis of their factors if the table has several."""
    from greentrain.report.formats import shown

    grams, bases = format_carbon(one["old_g"]), one["old_bases"]
    if not mixed or not bases or one["old_g"] is None:
        return grams
    return f"{grams} ({'different bases' if bases[1:] else shown(bases[0], 20)})"


def _notes(found: dict[str, Any]) -> Iterator[str]:
    """Yield what the table does not show: bases, factors without a run, and unknown grams."""
    from greentrain.report.formats import shown

    bases = found["total"]["old_bases"]
    if bases[1:] and found["total"]["old_g"] is not None:
        words = ", ".join(shown(basis, 20) for basis in bases)
        yield f"old grams are of factors of different bases ({words}): do not compare their total"
    for name in found["unused"][:_MOST]:
        yield f"no run has the id, name or zone {shown(name, 80)!r}: its factors are not used"
    unknown = [one["name"] for one in found["runs"] if one["windows"] and one["new_g"] is None]
    if unknown:
        names = ", ".join(shown(name, 80) for name in dict.fromkeys(unknown[:_MOST]))
        yield (
            f"unknown grams of {names}{' and others' if len(unknown) > _MOST else ''}: no factor "
            "holds for all of the time in which energy was used, or some energy was not measured"
        )
    known = [one for one in found["runs"] if one["new_g"] and one["energy_j"]]
    kwh = sum(one["energy_j"] * (one["pue"] or 1.0) for one in known) / _J_PER_KWH
    mean = sum(one["new_g"] for one in known) / kwh if kwh else 0.0
    if 0 < mean < 1:
        yield f"the mean factor is {mean:.3g} g/kWh, which is very low: check its unit"
