"""What the ``greentrain`` command shows as tables."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from greentrain.units import format_energy

if TYPE_CHECKING:
    from greentrain.streams import Experience
    from greentrain.training import UpdateResult

_WIDTH_WHEN_PIPED = 140


def demo(
    out: Path, *, budget: str | None, num_experiences: int | None, zone: str | None, seed: int
) -> None:
    """Run the demo and show what was decided."""
    console = open_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading torch, Lightning and MLflow", total=8)
        from greentrain.demo import DEFAULT_BUDGET, run_demo

        brought: dict[str, str] = {}

        def show(experience: Experience, result: UpdateResult) -> None:
            brought[experience.id] = str(experience.metadata["brings"])
            progress.update(task, advance=1, description=f"{result.update_mode}: {experience.id}")

        outcome = run_demo(
            out,
            budget=budget if budget is not None else DEFAULT_BUDGET,
            num_experiences=num_experiences,
            zone=zone,
            seed=seed,
            on_result=show,
        )
    console.print(decisions(outcome.results, brought))
    drawn_j = sum(result.energy_j for result in outcome.results)
    if all(result.broke for result in outcome.results):
        console.print(
            f"The budget of {outcome.budget} pays for nothing, so nothing was started: "
            "every experience was skipped."
        )
    elif outcome.budget.energy_j is None:
        console.print(f"{format_energy(drawn_j)} were drawn under a budget of {outcome.budget}.")
    else:
        spent_j = outcome.budget.energy_j - outcome.results[-1].left_j
        console.print(
            f"{format_energy(spent_j)} of a budget of {outcome.budget} were spent, and "
            f"{format_energy(outcome.results[-1].left_j)} are left."
        )
        if drawn_j > spent_j * (1 + 1e-9):
            console.print(f"{format_energy(drawn_j - spent_j)} more were drawn to size it.")
    overrun_j = sum(result.overrun_j for result in outcome.results)
    if overrun_j > 0:
        console.print(f"{format_energy(overrun_j)} were drawn beyond what had been reserved.")
    uri = shlex.quote(outcome.mlflow_uri)
    mlflow = shlex.quote(str(Path(sys.executable).with_name("mlflow")))
    for line in (
        f"Report:    {outcome.report}",
        f"Dashboard: {mlflow} ui --backend-store-uri {uri}",
        "           then open http://127.0.0.1:5000/?workflowType=machine_learning",
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def decisions(results: Sequence[UpdateResult], brought: dict[str, str]) -> Table:
    """Return the table of what was decided and what came of it."""
    table = Table(title="What was decided, and what came of it", show_lines=True)
    table.add_column("experience")
    table.add_column("update mode")
    table.add_column("reason", ratio=1)
    table.add_column("predicted", justify="right")
    table.add_column("drawn", justify="right")
    table.add_column("accuracy before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("budget left", justify="right")
    for result in results:
        table.add_row(
            f"{result.experience_id}\n{brought.get(result.experience_id, '')}",
            str(result.decision.action) + ("" if result.kept else "\n(not kept)"),
            result.reason,
            format_energy(result.decision.cost_j.mean),
            format_energy(result.energy_j),
            _accuracy(result.metric_before),
            _accuracy(result.metric_after),
            format_energy(result.left_j),
        )
    return table


def open_console() -> Console:
    """Return the terminal, or a wide page where the output is piped."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WHEN_PIPED)
    return console


def _accuracy(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
