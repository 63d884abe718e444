"""The ``greentrain`` command. Imports are inside each command, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from greentrain import __version__
from greentrain.errors import GreentrainError

app = typer.Typer(
    name="greentrain",
    help="Keep models up to date inside an energy budget, and show what it took.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LedgerOption = Annotated[
    str, typer.Option("--ledger", help="The ledger: a file or sqlite:///FILE.", metavar="URL")
]


def main() -> None:
    """Run the command: what greentrain refuses is one line and exit code 2."""
    try:
        app()
    except GreentrainError as error:
        sys.stderr.write(f"greentrain: {error}\n")
        sys.exit(2)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"greentrain {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo-out"),
    budget: Annotated[
        str | None,
        typer.Option(
            help="Energy budget, such as '0.05 Wh' or '40 % of full'.", show_default="25 % of full"
        ),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(help="Experiences that the budget has to last for.", show_default="8"),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Where the power comes from, such as 'DE': for grams.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of stream, weights and sampling.")] = 0,
) -> None:
    """Take a small model through eight experiences of digits under an energy budget."""
    from greentrain.budget import Budget

    if budget is not None:
        Budget.parse(budget, horizon=1 if horizon is None else horizon)  # before the slow imports
    from greentrain import cli_tables

    cli_tables.demo(out, budget=budget, horizon=horizon, zone=zone, seed=seed)


@app.command()
def doctor() -> None:
    """Show what can be measured on this machine, how, and what is missing."""
    from greentrain import cli_tables

    cli_tables.doctor()


@app.command(context_settings={"allow_interspersed_args": False})
def measure(
    command: Annotated[
        list[str],
        typer.Argument(help="The command and its arguments.", metavar="COMMAND [ARGS]..."),
    ],
    ledger: LedgerOption = "greentrain.db",
    name: Annotated[
        str | None,
        typer.Option(help="What to call it in the report.", show_default="the command's file name"),
    ] = None,
) -> None:
    """Run a command, measure what is drawn meanwhile, and return its exit code.

    For example: greentrain measure --name "prepare data" -- python prepare.py --all
    """
    from greentrain.measuring import run_command

    try:
        measured, code = run_command(command, name=name, ledger=ledger)
    except OSError as error:
        reason = error.strerror or error
        typer.echo(f"greentrain: cannot start {command[0]!r}: {reason}", err=True)
        raise typer.Exit(127) from None
    typer.echo(f"greentrain: {measured}", err=True)
    raise typer.Exit(code)


@app.command()
def report(
    ledger: LedgerOption = "greentrain.db",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    formats: Annotated[
        str, typer.Option("--format", help="What to write, separated by commas.")
    ] = "html,json",
    run: Annotated[str | None, typer.Option(help="Id of the one run to report on.")] = None,
) -> None:
    """Write a report of what was measured, decided and spent."""
    from greentrain.ledger import Ledger
    from greentrain.report import build, write

    opened = Ledger(ledger, create=False)
    wanted = tuple(name.strip() for name in formats.split(","))
    for path in write(build(opened, run=run), out, wanted):
        typer.echo(f"wrote {path}")
    opened.close()


@app.command()
def verify(
    ledger: Annotated[str, typer.Argument(help="The ledger: a file or sqlite:///FILE.")],
) -> None:
    """Recompute a ledger's chains and sums; exit code 1 if anything does not follow."""
    from greentrain.ledger import Ledger
    from greentrain.ledger import verify as verify_ledger

    opened = Ledger(ledger, create=False)
    found = verify_ledger(opened)
    for note in found.notes:
        typer.echo(f"note: {note}")
    for failure in found.failures:
        typer.echo(f"FAILED: {failure}")
    for chain, head in opened.heads().items():
        typer.echo(f"head of {chain}: {head['count']} rows, {head['head']}")
    opened.close()
    typer.echo(
        f"{found.rows} rows: everything follows. What lies after the last head kept elsewhere "
        "could be cut off unnoticed: compare the heads above."
        if found.ok
        else f"{found.rows} rows: {len(found.failures)} thing(s) do not follow"
    )
    if not found.ok:
        raise typer.Exit(1)
