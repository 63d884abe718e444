"""The ``greentrain doctor`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from greentrain.cli import console
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from greentrain.cli.diagnosis import Diagnosis


def doctor(
    as_json: console.JsonOption = False,
    idle_s: Annotated[
        float | None,
        typer.Option(
            "--idle",
            help="Also measure the power of the idle machine, for so many seconds.",
            metavar="SECONDS",
            show_default="not measured",
        ),
    ] = None,
) -> None:
    """Show what can be measured on this machine, with which method, and what is missing."""
    if idle_s is not None and not idle_s > 0:
        raise ConfigurationError(f"--idle is {idle_s:g}; it must be a number of seconds, above 0")
    from greentrain.cli.diagnosis import examine

    found = examine(idle_s=idle_s)
    if as_json:
        console.print_json(found.as_dict())
        return
    show_diagnosis(found, console.open_console())
    console.print_next("demo")


def show_diagnosis(found: Diagnosis, terminal: Console) -> None:
    """Print a diagnosis as tables.

    Args:
        found: The diagnosis.
        terminal: The terminal.
    """
    from greentrain.energy import source_power_w

    power_w = {} if found.idle is None else source_power_w(found.idle)
    columns = ["source", "device", "method", "uncertainty", "notes", *(["idle"] if power_w else [])]
    table = console.new_table("Measured devices", *columns, lines=True)
    for source in found.sources:
        share = source.relative_uncertainty
        uncertainty = "unknown" if share is None else f"± {share:.0%}"
        row = [source.name, source.device, source.method, uncertainty, source.note]
        if power_w:
            idle_w = power_w.get(source.name)
            row.append("unknown" if idle_w is None else f"{idle_w:.3g} W")
        console.add_row(table, *row)
    terminal.print(table)
    if found.idle is not None:
        terminal.print(
            f"Idle power is the mean of {found.idle.duration_s:.0f} s, other programs included."
        )
    lacking = console.new_table(
        "What is missing or could be better", "what", "why", "remedy", lines=True
    )
    for missing in found.missing:
        console.add_row(lacking, missing.what, missing.why, missing.fix)
    terminal.print(lacking)
