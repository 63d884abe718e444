"""The ``greentrain top`` command."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greentrain.cli import console, watching
from greentrain.units import (
    carbon_unit,
    energy_unit,
    format_carbon,
    format_energy,
    format_number,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from greentrain.ledger.live import LiveDecision, LiveRun, LiveView

_MOST_RUNS = 20
_WIDE = 90


def top(
    ledger: console.FoundLedgerOption = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame, and end.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two frames.")] = 2.0,
    last: Annotated[int, typer.Option(help="Number of decisions to show.", min=0)] = 5,
) -> None:
    """Show the power, budgets, running updates and last decisions of a ledger, until Ctrl-C."""
    from greentrain.ledger import newest_ledger

    watching.check_interval(interval)
    if ledger is None:
        ledger = newest_ledger(Path())
        console.print_line(f"reading {ledger}", err=True)
    if once or not console.open_console().is_terminal:
        console.open_console().print(read_frame(ledger, last))
    else:
        watching.watch(partial(read_frame, ledger, last), interval)


def read_frame(ledger: str, last: int) -> RenderableType:
    """Return the present frame of a ledger.

    Args:
        ledger: The ledger's file or URL.
        last: Number of decisions to show.
    """
    from greentrain.ledger import Ledger
    from greentrain.ledger.live import live_view

    # An open file that was deleted or replaced would be read for ever.
    with closing(Ledger(ledger, create=False)) as opened:
        width = console.open_console().width
        return frame(live_view(opened, last=last), opened.name, wide=width >= _WIDE)


def frame(view: LiveView, name: str, *, wide: bool = True) -> RenderableType:
    """Return one frame.

    Args:
        view: What happens in the ledger.
        name: Name of the ledger.
        wide: Whether there is room for reasons.
    """
    from rich.console import Group

    moment = f"{view.moment:%Y-%m-%d %H:%M:%S} UTC"
    if view.is_empty:
        return console.plain_text(
            f"{name}, {moment}: nothing is recorded yet; a run appears here once it has begun"
        )
    running = console.new_table(
        f"{name}, {moment}", "run", "status", "power", "phase", "update", right=["power"]
    )
    for run in view.runs[:_MOST_RUNS]:
        console.add_row(
            running,
            f"{run.name} ({run.kind})",
            _status(run, view.moment),
            _power(run),
            _phase(run, view.moment),
            _update(run, view.moment),
        )
    parts: list[RenderableType] = [running]
    if (more := len(view.runs) - _MOST_RUNS) > 0:
        parts.append(console.plain_text(f"and {more} more, which began earlier"))
    if view.budgets:
        parts.append(_budgets(view))
    if view.decisions:
        decided = console.new_table(
            "Last decisions",
            *("run", "experience", "action", "used"),
            *["reason"] * wide,
            right=["used"],
        )
        unit = energy_unit(one.energy_j for one in view.decisions)
        for one in view.decisions:
            cells = [one.run, one.experience_id, _action(one), _used(one, unit)]
            console.add_row(decided, *cells, *[one.sentence] * wide)
        parts.append(decided)
    return Group(*parts)


def _budgets(view: LiveView) -> RenderableType:
    amounts = ("left", "of", "spent", "reserved now")
    table = console.new_table("Budgets", "budget", *amounts, right=amounts)
    for name, status in view.budgets.items():
        values = (status.left, status.total, status.spent, status.taken.reserved)
        ended = " (ended)" if status.over else ""
        if status.unit == "J":
            texts = [format_energy(one, energy_unit(values)) for one in values]
        else:
            texts = [format_carbon(one, carbon_unit(values)) for one in values]
        console.add_row(table, name + ended, *texts)
    return table


def _status(run: LiveRun, moment: datetime) -> str:
    ago = _ago(moment - run.since)
    if run.status == "running":
        return f"running for {ago}"
    if run.status == "silent":
        return f"no row for {ago}: killed, or waiting for data"
    return f"{run.status} {ago} ago"


def _power(run: LiveRun) -> str:
    if run.status != "running" or run.phase is None:
        return "-"
    if run.phase.power_w is None:
        return "unknown"
    return f"{'' if run.phase.complete else 'at least '}{format_number(run.phase.power_w)} W"


def _phase(run: LiveRun, moment: datetime) -> str:
    if run.phase is None:
        return "none measured yet"
    if run.status not in ("running", "silent"):
        return "-"
    epoch = "" if run.phase.epoch is None else f" {run.phase.epoch}"
    began = f"{run.phase.phase}{epoch}"
    if not run.phase.is_open:
        return f"after {began}"
    if run.status == "silent":
        return f"in {began}"
    return f"{began} for {_ago(moment - run.phase.started)}"


def _update(run: LiveRun, moment: datetime) -> str:
    if run.update is None:
        return "-"
    what = f"{_action(run.update)} on {run.update.experience_id}"
    if run.status == "running":
        return f"{what} for {_ago(moment - run.update.decided)}"
    return f"{what}, not finished"


def _action(one: LiveDecision) -> str:
    from greentrain.control import UPDATE_MODES

    labels = {str(mode): row.label.lower() for mode, row in UPDATE_MODES.items()}
    part = "" if one.step_fraction in (0, 1) else f" {100 * one.step_fraction:.0f} %"
    return labels.get(one.update_mode, one.update_mode) + part


def _used(one: LiveDecision, unit: str) -> str:
    if not one.done:
        return "no outcome"
    return f"{format_energy(one.energy_j, unit)}{'' if one.kept else ', not kept'}"


def _ago(time_passed: timedelta) -> str:
    """Return a time as text; clocks of two machines may differ, so none is below 0."""
    seconds = max(0, round(time_passed.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
