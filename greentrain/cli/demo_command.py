"""The ``greentrain demo`` command."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greentrain.cli import console
from greentrain.cli.experience_lines import ExperienceLines, most_instructive
from greentrain.units import energy_unit, format_energy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greentrain.budget import Budget
    from greentrain.demo import DemoOutcome
    from greentrain.report.document import Report
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
    terminal = console.open_console()
    shown: list[ExperienceLines] = []
    with terminal.status("loading torch, Lightning and MLflow") as status:
        from greentrain.demo import DEFAULT_BUDGET, run_demo

        def show(result: UpdateResult, sized: Budget) -> None:
            if not shown:
                shown.append(ExperienceLines("val_acc", sized, percent=True))
                console.print_line(_title(sized, Budget.parse(budget or DEFAULT_BUDGET)), terminal)
                console.print_line(shown[0].header, terminal)
            console.print_line(shown[0].line(result), terminal)

        outcome = run_demo(
            out,
            budget=budget if budget is not None else DEFAULT_BUDGET,
            num_experiences=num_experiences,
            zone=zone,
            seed=seed,
            on_begin=lambda experience: status.update(f"experience {experience.id}"),
            on_result=show,
        )
    for line in _summary(outcome):
        console.print_line(line)
    shown_experience = most_instructive(list(outcome.results)).experience_id
    ledger = out / "greentrain.db"
    console.print_next("explain", "--ledger", ledger, "--experience", shown_experience)
    console.print_line(f"      open {out / 'report.html'}")
    mlflow = Path(sys.executable).with_name("mlflow")
    command = shlex.join([str(mlflow), "ui", "--backend-store-uri", outcome.mlflow_uri])
    console.print_line(f"      {command}")
    console.print_line("      then open http://127.0.0.1:5000/?workflowType=machine_learning")


def _title(sized: Budget, given: Budget) -> str:
    if sized.energy_j is None or given.share_of_full is None:
        return f"greentrain demo   budget {given}"
    share = f"{100 * given.share_of_full:g} % of always retraining"
    return f"greentrain demo   budget {format_energy(sized.energy_j)} = {share}"


def _summary(outcome: DemoOutcome) -> Iterator[str]:
    results, budget = outcome.results, outcome.budget
    used_j = sum(result.energy_j for result in results)
    overrun_j = sum(result.overrun_j for result in results)
    if all(result.budget_exhausted for result in results):
        yield f"The budget of {budget} is too small for any update: every experience was skipped."
        return
    if budget.energy_j is None:
        yield f"Used {format_energy(used_j)} under a budget of {budget}."
    else:
        spent_j = budget.energy_j - results[-1].left_j
        unit = energy_unit([budget.energy_j])
        spent = f"{format_energy(spent_j, unit).removesuffix(f' {unit}')} of "
        line = f"Used {spent}{format_energy(budget.energy_j, unit)}"
        if used_j > spent_j * (1 + 1e-9):
            line += f"; sizing the budget used another {format_energy(used_j - spent_j)}"
        final = results[-1].metric_after
        yield f"{line}." + ("" if final is None else f" Final val_acc {100 * final:.1f} %.")
    if overrun_j > 0:
        yield f"{format_energy(overrun_j)} of it were used beyond the reservations."
    yield from _avoided(outcome.document)
    (run,) = outcome.document["runs"]
    methods = {source["method"] or "unknown" for source in run["sources"]}
    yield f"Energy of {run['boundary']}: {', '.join(sorted(methods))}."


def _avoided(document: Report) -> Iterator[str]:
    from greentrain.report.formats import avoided, avoided_span

    found = document["avoided"]["energy"]
    full_j, avoided_j = found["modelled_full_j"], found["avoided_j"]
    if not full_j or avoided_j is None:
        return
    less = "less" if avoided_j >= 0 else "more"
    share = f"{abs(100 * avoided_j / full_j):.0f} %"
    line = f"Modelled: {share} {less} energy than always retraining"
    if found["interval"] is None:
        yield f"{line} (no interval: too few experiences)."
        return
    unit = energy_unit([full_j])
    write = partial(format_energy, unit=unit)
    span = avoided_span(found["interval"]["low_j"], found["interval"]["high_j"], write)
    yield f"{line} (avoided: {avoided(avoided_j, write)}, 95 % interval {span})."
