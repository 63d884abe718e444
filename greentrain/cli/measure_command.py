"""The ``greentrain measure`` command."""

from __future__ import annotations

from typing import Annotated

import typer

from greentrain.cli import console


def measure(
    command: Annotated[
        list[str],
        typer.Argument(help="The command and its arguments.", metavar="COMMAND [ARGS]..."),
    ],
    ledger: console.LedgerOption = "greentrain.db",
    name: Annotated[
        str | None,
        typer.Option(help="Its name in the report.", show_default="the command's file name"),
    ] = None,
    zone: console.ZoneOption = None,
    pue: Annotated[
        float | None, typer.Option(help="Power usage effectiveness of the building, such as 1.2.")
    ] = None,
    pue_source: Annotated[
        str | None,
        typer.Option(help="Where the PUE was published.", show_default="given by the user"),
    ] = None,
    team: Annotated[str | None, typer.Option(help="Tag of the team in the ledger.")] = None,
    project: Annotated[str | None, typer.Option(help="Tag of the project in the ledger.")] = None,
) -> None:
    """Run a command, measure its energy, and return its exit code.

    For example: greentrain measure --name "prepare data" --zone DE -- python prepare.py --all
    """
    from greentrain.measuring import run_command

    try:
        measured, code = run_command(
            command,
            name=name,
            ledger=ledger,
            zone=zone,
            pue=pue,
            pue_source=pue_source,
            team=team,
            project=project,
        )
    except OSError as error:
        reason = error.strerror or error
        console.print_line(f"greentrain: cannot start {command[0]!r}: {reason}", err=True)
        raise typer.Exit(127) from None
    console.print_line(f"greentrain: {measured}", err=True)
    if code == 0:
        console.print_next("report", "--ledger", ledger, err=True)
    raise typer.Exit(code)
