"""The ``greentrain simulate`` command."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greentrain.cli import console
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy, parse_energy

if TYPE_CHECKING:
    from rich.table import Table

    from greentrain.simulation import RecordedTable

SURE_GAP = 4.0
"""Standard errors that a gap needs, over several tables, for a share of it to be meaningful."""

WORST_SHOWN = -0.5
"""Share of the gap below which its size says nothing: training once is far better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySummary:
    """The result of one policy at one budget, as the mean over tables.

    Args:
        policy: Name of the policy.
        budget: The budget as given.
        anytime: Mean of the metric after each experience, oriented.
        share: Share of the gap between training once and always in full; ``None`` where no table
            has a gap, or the gap is uncertain.
        share_se: Standard error of the share over the tables; ``None`` for one table.
        spent: Share of the budget that was spent.
        violations: Experiences that cost more than was left, in all tables.
    """

    policy: str
    budget: str
    anytime: float
    share: float | None
    share_se: float | None
    spent: float
    violations: int


def simulate(
    tables: Annotated[
        list[Path], typer.Argument(help="Tables written by 'record'.", metavar="TABLE...")
    ],
    policies: Annotated[
        str, typer.Option(help="Policies, separated by commas: names, or module:Class(argument=1).")
    ] = "priced,greedy,always-replay,always-warm,always-full,oracle",
    budgets: Annotated[
        str,
        typer.Option(help="Shares of the cost of always retraining in full, or energies (0.5Wh)."),
    ] = "2%,5%,10%,20%,50%",
    plot: Annotated[
        Path | None, typer.Option(help="Plot a chart, as SVG.", metavar="FILE.svg")
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Compare policies on recorded tables, in seconds and without training."""
    console.use_current_folder()  # for the user's own policies
    from greentrain.report.policy_chart import comparison_chart
    from greentrain.simulation.recorded_table import read_table

    if plot is not None and plot.suffix != ".svg":
        raise ConfigurationError(f"cannot plot {str(plot)!r}; charts are SVG: name it like 'a.svg'")
    read = [read_table(path) for path in tables]
    started = time.perf_counter()
    results = simulate_all(read, console.split_list(policies), console.split_list(budgets))
    duration_s = time.perf_counter() - started
    if plot is not None:
        series: dict[str, list[float | None]] = {}
        for result in results:
            series.setdefault(result.policy, []).append(result.share)
        plot.write_text(comparison_chart(console.split_list(budgets), series), encoding="utf-8")
    if as_json:
        cells = [dataclasses.asdict(result) for result in results]
        console.print_json({"seconds": duration_s, "cells": cells})
        return
    terminal = console.open_console()
    terminal.print(_table(read, results))
    console.print_line(_ends(read))
    for line in _violations(results):
        console.print_line(line)
    console.print_line(f"{len(results) * len(read)} simulations in {duration_s:.1f} s")
    if plot is not None:
        console.print_line(f"wrote {plot}")
    else:
        console.print_next("simulate", *tables, "--plot", "policies.svg")


def simulate_all(
    tables: Sequence[RecordedTable], policies: Sequence[str], budgets: Sequence[str]
) -> list[PolicySummary]:
    """Return the result of each policy at each budget, as the mean over tables.

    Args:
        tables: The tables.
        policies: Names of policies: see :mod:`greentrain.simulation.named_policies`.
        budgets: Shares such as ``"5%"``, or energies such as ``"0.5Wh"``.

    Raises:
        ConfigurationError: If a name or a budget cannot be read.
    """
    from greentrain.simulation.named_policies import named_policy
    from greentrain.simulation.simulator import always_full, share_of_gap, simulate, train_once

    ends = [(train_once(table).anytime, always_full(table).anytime) for table in tables]
    sure = _is_sure([full - once for once, full in ends])
    results = []
    for policy in policies:
        for budget in budgets:
            outcomes = [
                simulate(table, named_policy(policy, table), budget_of(budget, table))
                for table in tables
            ]
            shares = [
                share_of_gap(outcome.anytime, once, full)
                for outcome, (once, full) in zip(outcomes, ends, strict=True)
            ]
            known = [share for share in shares if share is not None] if sure else []
            results.append(
                PolicySummary(
                    policy=policy,
                    budget=budget,
                    anytime=statistics.fmean(outcome.anytime for outcome in outcomes),
                    share=statistics.fmean(known) if known else None,
                    share_se=_standard_error(known),
                    spent=statistics.fmean(each.spent_j / each.budget_j for each in outcomes),
                    violations=sum(outcome.violations for outcome in outcomes),
                )
            )
    return results


def budget_of(text: str, table: RecordedTable) -> float:
    """Read a budget: a share of the cost of always retraining in full, or an energy.

    Returns:
        Joules.

    Raises:
        ConfigurationError: If the text cannot be read, or the budget is not above 0.
    """
    if text.endswith("%"):
        try:
            budget_j = float(text[:-1]) / 100 * table.full_j
        except ValueError:
            raise ConfigurationError(
                f"cannot read the budget {text!r}; write it as 5% or as 0.5Wh"
            ) from None
    else:
        budget_j = parse_energy(text)
    if not (math.isfinite(budget_j) and budget_j > 0):
        raise ConfigurationError(f"the budget {text!r} is not above 0; write it as 5% or as 0.5Wh")
    return budget_j


def _standard_error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _is_sure(gaps: Sequence[float]) -> bool:
    """Return whether the mean gap of several tables is larger than their scatter explains."""
    error = _standard_error(gaps)
    return error is None or statistics.fmean(gaps) >= SURE_GAP * error


def _table(tables: Sequence[RecordedTable], results: Sequence[PolicySummary]) -> Table:
    """Return a row for each policy and a column for each budget."""
    header = tables[0].header
    number = f"{len(tables)} tables" if len(tables) > 1 else "1 table"
    budgets = list(dict.fromkeys(result.budget for result in results))
    names = [_with_energy(budget, tables) for budget in budgets]
    title = f"Share of the gap closed: {header.stream} ({header.keys}, {number})"
    shown = console.new_table(title, "policy", *names, right=names)
    cells: dict[str, list[str]] = {}
    for result in results:
        cells.setdefault(result.policy, []).append(_share(result))
    for policy, shares in cells.items():
        console.add_row(shown, policy, *shares)
    return shown


def _ends(tables: Sequence[RecordedTable]) -> str:
    """Say between which two results the gap is."""
    from greentrain.simulation.simulator import always_full, train_once

    monitor = tables[0].header.monitor
    sign = 1.0 if tables[0].header.more_is_better else -1.0
    once = sign * statistics.fmean(train_once(table).anytime for table in tables)
    full = sign * statistics.fmean(always_full(table).anytime for table in tables)
    full_j = statistics.fmean(table.full_j for table in tables)
    return (
        f"The gap is between training once (mean {monitor} {once:.4f}) and always retraining "
        f"({full:.4f} for {format_energy(full_j)})."
    )


def _violations(results: Sequence[PolicySummary]) -> list[str]:
    return [
        f"{result.policy} used more than was left {result.violations} times, at {result.budget}."
        for result in results
        if result.violations
    ]


def _with_energy(budget: str, tables: Sequence[RecordedTable]) -> str:
    if not budget.endswith("%"):
        return budget
    budget_j = statistics.fmean(budget_of(budget, table) for table in tables)
    return f"{budget} ({format_energy(budget_j)})"


def _share(result: PolicySummary) -> str:
    if result.share is None:
        return "no gap"
    if result.share < WORST_SHOWN:
        return f"< {100 * WORST_SHOWN:.0f} %"
    error = "" if result.share_se is None else f" ± {100 * result.share_se:.1f}"
    return f"{100 * result.share:.1f}{error} %"
