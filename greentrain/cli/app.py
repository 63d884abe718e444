"""The ``greentrain`` command: registers one module for each sub-command."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from greentrain import __version__
from greentrain.cli import (
    demo_command,
    doctor_command,
    estimate_command,
    explain_command,
    keys_command,
    ledger_commands,
    measure_command,
    metrics_command,
    priors_command,
    record_command,
    report_command,
    restate_command,
    run_command,
    schedule_command,
    simulate_command,
    top_command,
    verify_command,
)
from greentrain.cli.console import FORWARD_OPTIONS, print_line
from greentrain.errors import GreentrainError

app = typer.Typer(
    name="greentrain",
    help="Keep models up to date within an energy budget, and report the energy used.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo_command.demo)
app.command()(run_command.init)
app.command(context_settings=FORWARD_OPTIONS)(run_command.run)
app.command(context_settings=FORWARD_OPTIONS)(estimate_command.estimate)
app.command(context_settings=FORWARD_OPTIONS)(record_command.record)
app.command()(schedule_command.schedule)
app.command()(simulate_command.simulate)
app.command()(doctor_command.doctor)
app.command(context_settings={"allow_interspersed_args": False})(measure_command.measure)
app.command()(top_command.top)
app.command(name="serve-metrics")(metrics_command.serve_metrics)
app.command()(explain_command.explain)
app.command()(report_command.report)
app.command()(restate_command.restate)
app.command()(verify_command.verify)
ledger_commands.app.command()(verify_command.verify)
app.add_typer(ledger_commands.app, name="ledger")
app.add_typer(keys_command.app, name="keys")
app.add_typer(priors_command.app, name="priors")


def main() -> None:
    """Run the command. An error of greentrain is one line and exit code 2."""
    try:
        for output in (sys.stdout, sys.stderr):
            if isinstance(output, io.TextIOWrapper):  # a name that it cannot show is no error
                output.reconfigure(errors="backslashreplace")
        app()
    except GreentrainError as error:
        print_line(f"greentrain: {error}", err=True)
        sys.exit(2)


def _show_version(wanted: bool) -> None:
    if wanted:
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
