"""The ``greentrain report`` command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from greentrain.cli import console, overview_files
from greentrain.errors import ConfigurationError

FORMATS = "html,json"
"""Formats by default."""


def report(
    ledgers: Annotated[
        list[str] | None,
        typer.Option(
            "--ledger",
            help="A ledger, or a pattern such as 'runs/*.db'. Can be repeated.",
            metavar="LEDGER",
            show_default="greentrain.db, or else greentrain_logs/*.db",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="Formats, separated by commas, such as html,json,csv; the error for an unknown "
            "name and docs/reference/exports.md list all.",
        ),
    ] = FORMATS,
    card: Annotated[
        Path | None,
        typer.Option(help="A Hugging Face model card to add the emissions to.", metavar="README"),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Id of a single run to report on.")] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Only runs with such a name, as in 'digits*'.", metavar="PATTERN"),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs that ran there, as in slurm_job_id=123 or 'hostname=node*'. Can be "
            "repeated.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only what ended at this moment or later: a date (midnight UTC), or a time with "
            "its zone.",
            metavar="MOMENT",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only what ended before this moment.", metavar="MOMENT")
    ] = None,
    disclosures: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file of facts that no meter has: owner of the hardware, electricity, ..."
        ),
    ] = None,
    equivalents: Annotated[
        bool,
        typer.Option(
            "--equivalents",
            help="Also show the emissions as kilometres of a car and months of a tree, in html, md "
            "and json.",
        ),
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Print and write a row for each stream, run, team, project or month instead.",
            metavar="GROUP",
        ),
    ] = None,
    overview: Annotated[
        bool,
        typer.Option("--overview", help="Write one page with a row for each stream instead."),
    ] = False,
    earlier: Annotated[
        Path | None,
        typer.Option(
            help="An earlier overview.json or report.json, to show what changed.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Write a report of all measurements, decisions and budgets."""
    from greentrain.report.run_places import where_text

    place = where_text(where or ())
    if by is not None or overview or earlier is not None:
        _refuse_others(
            by=by,
            overview=overview,
            earlier=earlier,
            others={
                "--format": formats != FORMATS,
                "--card": card is not None,
                "--run": run is not None,
                "--disclosures": disclosures is not None,
                "--equivalents": equivalents,
                "--where": by is None and place is not None,
            },
        )
        scope = {"name": name, "since": since, "until": until}
        if by is not None:
            overview_files.write_rows(ledgers, by, out, {**scope, "where": place})
        else:
            overview_files.write_overview(ledgers, earlier, out, scope)
        return
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report import build_and_write, missing
    from greentrain.report.disclosures import read_disclosures
    from greentrain.report.exports import write_card

    patterns = console.found_ledgers(ledgers)
    stated = None if disclosures is None else read_disclosures(disclosures)
    chosen = tuple(name.strip() for name in formats.split(","))
    opened = open_ledgers(patterns)
    try:
        document, paths = build_and_write(
            opened,
            out,
            chosen,
            run=run,
            name=name,
            since=since,
            until=until,
            where=place,
            disclosures=stated,
            equivalents=equivalents,
        )
    finally:
        close_ledgers(opened)
    for path in paths:
        console.print_line(f"wrote {path}")
    for one, sentences in missing(document, chosen).items():
        for sentence in sentences:
            console.print_line(f"{one} lacks {sentence}", err=True)
    if card is not None:
        write_card(card, document)
        console.print_line(f"wrote co2_eq_emissions into {card}")
    for path in paths:
        if path.name == "report.json":
            console.print_next(
                "verify", path, *(word for one in patterns for word in ("--ledger", one))
            )


def _refuse_others(
    *, by: str | None, overview: bool, earlier: Path | None, others: Mapping[str, bool]
) -> None:
    if by is not None and overview:
        raise ConfigurationError("--by and --overview write different files; give one of them")
    if earlier is not None and not overview:
        raise ConfigurationError("--earlier is compared by --overview only; add --overview")
    given = [name for name, used in others.items() if used]
    if given:
        kind = "--overview" if overview else "--by"
        raise ConfigurationError(
            f"{' and '.join(given)} cannot be used with {kind}, which writes separate "
            "files; --name, --since and --until can"
        )
