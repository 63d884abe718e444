"""The ``greentrain record`` command."""

from __future__ import annotations

import inspect
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greentrain.cli import console
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy

if TYPE_CHECKING:
    from greentrain.configuration import Configuration
    from greentrain.simulation.recorded_table import RecordedRow
    from greentrain.streams import Stream


def record(
    context: typer.Context,
    config: console.ConfigArgument,
    budget: Annotated[str, typer.Option(help="Energy budget of the recording, such as '50 Wh'.")],
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("table.jsonl"),
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Branch on all earlier updates, not on the last one alone."),
    ] = False,
    step_fractions: Annotated[
        str | None,
        typer.Option(
            help="Step fractions to try, such as 0.25,0.5,1.",
            show_default="those of an update; 1 with --exact",
        ),
    ] = None,
    joules_per_sample: Annotated[
        float | None,
        typer.Option(
            help="Joules of each sample trained on, in place of measured ones.",
            show_default="measured",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the recording, and of its budget in the ledger.")
    ] = "recording",
) -> None:
    """Train every possible update from every possible model, and write a table for 'simulate'.

    An interrupted recording continues where it stopped. Options replace keys of the file.
    """
    from greentrain.configuration import configure, read

    content, fractions = read(config), _step_fractions(step_fractions)
    console.use_current_folder()
    terminal = console.open_console()
    with terminal.status("loading torch and Lightning") as status:
        configuration = configure(content, context.args)
        given = _arguments(configuration)
        stream = _stream(configuration)
        from greentrain.simulation.recording import record as make_table

        if joules_per_sample is not None:
            given |= {"cost": "samples", "joules_per_sample": joules_per_sample}

        def show(row: RecordedRow) -> None:
            status.update(f"{row.action} at experience {row.position} of {len(stream)}")

        table = make_table(
            configuration.make_model,
            stream,
            out=out,
            budget=budget,
            ledger=configuration.get("ledger"),
            exact=exact,
            step_fractions=fractions,
            name=name,
            on_row=show,
            **given,
        )
    n_rows = sum(len(rows) for rows in table.rows.values())
    console.print_line(
        f"wrote {out}: {n_rows} rows of {table.num_experiences} experiences; full retraining at "
        f"each costs {format_energy(table.full_j)} ({table.header.cost})"
    )
    console.print_next("simulate", out)


def _arguments(configuration: Configuration) -> dict[str, Any]:
    """Return the arguments of a recording that a configuration gives."""
    from greentrain.simulation.recording import record as make_table

    given = configuration.make_arguments()
    if "evaluation" in given:
        given["eval_on"] = given["evaluation"].eval_on
    accepted = inspect.signature(make_table).parameters.keys() - {"budget", "ledger", "name"}
    return {name: value for name, value in given.items() if name in accepted}


def _stream(configuration: Configuration) -> Stream:
    """Return the recorded stream: ``limit`` experiences, or as many as the budget is for."""
    from greentrain.streams import Stream

    stream = configuration.make_stream()
    most = configuration.get("limit") or configuration.get("num_experiences")
    name = stream.name if isinstance(stream, Stream) else configuration.get("name", "stream")
    return Stream(list(islice(stream, most)), name=name)


def _step_fractions(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(each) for each in console.split_list(text)]
    except ValueError:
        raise ConfigurationError(
            f"cannot read the step fractions {text!r}; write numbers with commas between: "
            "0.25,0.5,1"
        ) from None
