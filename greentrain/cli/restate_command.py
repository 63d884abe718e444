"""The ``greentrain restate`` command."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from greentrain.cli import console


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
    out: Annotated[Path | None, typer.Option(help="A JSON file to write.", metavar="FILE")] = None,
) -> None:
    """Recompute grams with other factors, and show old against new; no ledger is changed."""
    from greentrain.carbon.factors import read_factors
    from greentrain.errors import ConfigurationError
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report.exports.facts import json_text, replace_file
    from greentrain.report.restate import restate as restated

    table = read_factors(factors)
    opened = open_ledgers(console.found_ledgers(ledgers))
    try:
        found = restated(opened, table, scope2=scope2, upstream=upstream)
        found["heads"] = {ledger.name: ledger.heads() for ledger in opened}
    finally:
        close_ledgers(opened)
    found["factors_sha256"] = hashlib.sha256(factors.read_bytes()).hexdigest()
    _print(found, upstream=upstream)
    if out is not None:
        try:
            replace_file(out, json_text(found, sort_keys=True))
        except OSError as error:
            raise ConfigurationError(f"cannot write {str(out)!r}: {error.strerror}") from None
        console.print_line(f"wrote {out}")


def _print(found: dict[str, Any], *, upstream: bool) -> None:
    from greentrain.units import format_carbon, format_energy

    columns = ["run", "id", "factors of", "energy", "old", f"new ({found['scope2']})"]
    columns += ["upstream"] if upstream else []
    table = console.new_table("Restated emissions", *columns, right=columns[3:])
    total = {"name": "total", "run_id": "", "factors_of": "", **found["total"]}
    for one in [*found["runs"], total]:
        energy_j = one["energy_j"]
        cells = [
            one["name"],
            one["run_id"],
            one["factors_of"] if one["factors_of"] is not None else "none",
            "unknown" if energy_j is None else format_energy(energy_j),
            format_carbon(one["old_g"]),
            format_carbon(one["new_g"]),
        ]
        console.add_row(table, *cells, *([format_carbon(one["upstream_g"])] if upstream else []))
    console.open_console().print(table)
