"""The ``greentrain demo`` command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greentrain.cli import console
from greentrain.units import energy_unit, format_energy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from greentrain.demo import DemoOutcome
    from greentrain.streams import Experience
    from greentrain.training import UpdateResult


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo-out"),
    budget: Annotated[
        str | None,
        typer.Option(
            help="Energy budget, such as '0.05 Wh' or '40 % of full'.", show_default="25 % of full"
        ),
    ] = None,
    num_experiences: Annotated[
        int | None,
        typer.Option(help="Experiences that the budget has to last for.", show_default="8"),
    ] = None,
    zone: console.ZoneOption = None,
    seed: Annotated[int, typer.Option(help="Seed of stream, weights and sampling.")] = 0,
) -> None:
    """Train a small model on eight experiences of digits within an energy budget."""
    from greentrain.budget import Budget

    if budget is not None:  # before the slow imports
        Budget.parse(budget, num_experiences=1 if num_experiences is None else num_experiences)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    terminal = console.open_console()
    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    contents: dict[str, str] = {}
    with Progress(*columns, console=terminal, transient=True) as progress:
        task = progress.add_task("loading torch, Lightning and MLflow", total=8)
        from greentrain.demo import DEFAULT_BUDGET, run_demo

        def show(experience: Experience, result: UpdateResult) -> None:
            contents[experience.id] = str(experience.metadata["brings"])
            progress.update(task, advance=1, description=f"{result.update_mode}: {experience.id}")

        outcome = run_demo(
            out,
            budget=budget if budget is not None else DEFAULT_BUDGET,
            num_experiences=num_experiences,
            zone=zone,
            seed=seed,
            on_result=show,
        )
    terminal.print(_decisions(outcome.results, contents))
    for line in _summary(outcome):
        terminal.print(line)
    mlflow = Path(sys.executable).with_name("mlflow")
    command = shlex.join([str(mlflow), "ui", "--backend-store-uri", outcome.mlflow_uri])
    console.print_line(f"Report:    {outcome.report}")
    console.print_line(f"Dashboard: {command}")
    console.print_line("           then open http://127.0.0.1:5000/?workflowType=machine_learning")
    console.print_next("explain", "--ledger", out / "greentrain.db")


def _summary(outcome: DemoOutcome) -> Iterator[str]:
    used_j = sum(result.energy_j for result in outcome.results)
    overrun_j = sum(result.overrun_j for result in outcome.results)
    if all(result.budget_exhausted for result in outcome.results):
        yield (
            f"The budget of {outcome.budget} is too small for any update: "
            "every experience was skipped."
        )
    elif outcome.budget.energy_j is None:
        yield f"{format_energy(used_j)} were used under a budget of {outcome.budget}."
    else:
        left_j = outcome.results[-1].left_j
        spent_j = outcome.budget.energy_j - left_j
        yield (
            f"{format_energy(spent_j)} of a budget of {outcome.budget} were used; "
            f"{format_energy(left_j)} are left."
        )
        if used_j > spent_j * (1 + 1e-9):
            yield f"Sizing the budget used {format_energy(used_j - spent_j)} more."
    if overrun_j > 0:
        yield f"{format_energy(overrun_j)} were used beyond the reservations."


def _decisions(results: Sequence[UpdateResult], contents: Mapping[str, str]) -> Table:
    right = ("predicted", "used", "accuracy before", "after", "budget left")
    columns = ("experience", "update mode", "reason", *right)
    table = console.new_table("Decisions and their outcomes", *columns, right=right, lines=True)
    energies = [(one.decision.cost_j.mean, one.energy_j, one.left_j) for one in results]
    unit = energy_unit(energy_j for row in energies for energy_j in row)
    for result in results:
        console.add_row(
            table,
            f"{result.experience_id}\n{contents.get(result.experience_id, '')}",
            str(result.decision.action) + ("" if result.kept else "\n(not kept)"),
            result.reason,
            format_energy(result.decision.cost_j.mean, unit),
            format_energy(result.energy_j, unit),
            _accuracy(result.metric_before),
            _accuracy(result.metric_after),
            format_energy(result.left_j, unit),
        )
    return table


def _accuracy(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
