"""What ``greentrain record`` and ``greentrain simulate`` do."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greentrain.cli.rich_tables import open_console
from greentrain.errors import ConfigurationError
from greentrain.units import J_PER_WH, format_energy, parse_energy

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from greentrain.configuration import Configuration
    from greentrain.simulation import RecordedTable
    from greentrain.simulation.recorded_table import RecordedRow
    from greentrain.streams import Stream

SURE_GAP = 4.0
"""Standard errors that a gap has to have, over several tables, for a share of it to mean much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one policy reaches at one budget, as the mean over tables.

    Args:
        policy: Name of the policy.
        budget: The budget as it was asked for.
        anytime: The mean of the metric after each experience, oriented.
        share: Share of the gap between training once and always in full; ``None`` where no table
            has a gap, or it is not sure that there is one.
        share_se: Standard error of it over the tables; ``None`` for one table.
        spent: Share of the budget that was spent.
        violations: Experiences for which more was spent than there was, in all tables.
    """

    policy: str
    budget: str
    anytime: float
    share: float | None
    share_se: float | None
    spent: float
    violations: int


def record(
    config: Path,
    arguments: Sequence[str],
    *,
    out: Path,
    budget: str,
    exact: bool,
    step_fractions: str | None,
    joules_per_sample: float | None,
    name: str,
) -> None:
    """Record a table of the stream and model of a configuration.

    Args:
        config: The YAML file, as for ``greentrain run``.
        arguments: What the command line says in place of the file.
        out: The table's file.
        budget: What recording may draw.
        exact: Whether to branch on all that may have happened.
        step_fractions: Efforts to try, separated by commas.
        joules_per_sample: Joules of a sample that is trained on, in place of measured ones.
        name: Name of the recording, and of its budget in the ledger.

    Raises:
        ConfigurationError: If something cannot be used; nothing is written then.
    """
    from greentrain.configuration import configure, override, read

    told, tried = override(read(config), arguments), _efforts(step_fractions)
    console = open_console()
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # the user's own modules, as with `python script.py`
    with console.status("loading torch and Lightning") as status:
        configuration = configure(told)
        given = _given(configuration)
        stream = _stream(configuration, told.get("num_experiences"))
        from greentrain.simulation.recording import record as make

        price: dict[str, Any] = {}
        if joules_per_sample is not None:
            price = {"cost": "samples", "joules_per_sample": joules_per_sample}

        def show(row: RecordedRow) -> None:
            status.update(f"{row.action} at experience {row.position} of {len(stream)}")

        table = make(
            configuration.make_model,
            stream,
            out=out,
            budget=budget,
            ledger=configuration.outputs.ledger,
            exact=exact,
            step_fractions=tried,
            name=name,
            on_row=show,
            **given,
            **price,
        )
    rows = sum(len(each) for each in table.rows.values())
    _print(
        console,
        f"wrote {out}: {rows} rows of {table.num_experiences} experiences; retraining in full at each "
        f"costs {format_energy(table.full_j)} ({table.header.cost})",
    )


def simulate(
    paths: Sequence[Path],
    *,
    policies: str,
    budgets: str,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Judge policies on recorded tables.

    Args:
        paths: The tables' files: one for each seed, say.
        policies: Names of policies, separated by commas.
        budgets: Shares of what always retraining in full costs, or energies, separated by commas.
        plot: Where to draw a chart, as SVG; ``None`` for none.
        as_json: Whether to print JSON in place of a table.

    Raises:
        ConfigurationError: If something cannot be used.
    """
    from greentrain.report.policy_chart import comparison_chart
    from greentrain.simulation.recorded_table import read_table

    if plot is not None and plot.suffix != ".svg":
        raise ConfigurationError(f"cannot draw {str(plot)!r}; charts are SVG: name it like 'a.svg'")
    tables = [read_table(path) for path in paths]
    began = time.perf_counter()
    cells = judge(tables, _names(policies), _names(budgets))
    took_s = time.perf_counter() - began
    if plot is not None:
        series: dict[str, list[float | None]] = {}
        for cell in cells:
            series.setdefault(cell.policy, []).append(cell.share)
        plot.write_text(comparison_chart(_names(budgets), series), encoding="utf-8")
    if as_json:
        content = {"seconds": took_s, "cells": [dataclasses.asdict(cell) for cell in cells]}
        sys.stdout.write(f"{json.dumps(content, indent=2)}\n")
        return
    console = open_console()
    console.print(_shown(tables, cells))
    many = len(cells) * len(tables)
    _print(console, f"{many} simulations in {took_s:.1f} s")
    if plot is not None:
        _print(console, f"wrote {plot}")


def judge(
    tables: Sequence[RecordedTable], policies: Sequence[str], budgets: Sequence[str]
) -> list[Cell]:
    """Return what each policy reaches at each budget, as the mean over tables.

    Args:
        tables: The tables.
        policies: Names of policies, as :func:`greentrain.simulation.named_policies.named_policy` reads them.
        budgets: Shares such as ``"5%"``, or energies such as ``"0.5Wh"``.

    Raises:
        ConfigurationError: If a name or a budget cannot be read.
    """
    from greentrain.simulation.named_policies import named_policy
    from greentrain.simulation.simulator import always_full, share_of_gap, simulate, train_once

    ends = [(train_once(table).anytime, always_full(table).anytime) for table in tables]
    sure = _sure([full - once for once, full in ends])
    cells = []
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
            cells.append(
                Cell(
                    policy=policy,
                    budget=budget,
                    anytime=statistics.fmean(outcome.anytime for outcome in outcomes),
                    share=statistics.fmean(known) if known else None,
                    share_se=_standard_error(known),
                    spent=statistics.fmean(each.spent_j / each.budget_j for each in outcomes),
                    violations=sum(outcome.violations for outcome in outcomes),
                )
            )
    return cells


def budget_of(text: str, table: RecordedTable) -> float:
    """Read a budget: a share of what always retraining in full costs, or an energy.

    Returns:
        Joules.

    Raises:
        ConfigurationError: If it cannot be read, or is not above 0.
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


def _given(configuration: Configuration) -> dict[str, Any]:
    """Return the arguments of a recording that a configuration holds."""
    from greentrain.simulation.recording import record as make
    from greentrain.training.modes import ModeConfig

    known = {*inspect.signature(make).parameters, *ModeConfig.__dataclass_fields__}
    given: dict[str, Any] = {
        name: each.make() for name, each in configuration.components.items() if name in known
    }
    for settings in configuration.settings:
        given |= settings.make()
    return {name: value for name, value in given.items() if name in known - {"budget"}}


def _stream(configuration: Configuration, num_experiences: object) -> Stream:
    """Return what is to be recorded: ``limit`` experiences, or those that the budget is for."""
    from greentrain.streams import Stream

    stream = configuration.make_stream()
    most = configuration.limit or (num_experiences if isinstance(num_experiences, int) else None)
    name = stream.name if isinstance(stream, Stream) else configuration.name
    return Stream(list(islice(stream, most)), name=name)


def _efforts(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(each) for each in _names(text)]
    except ValueError:
        raise ConfigurationError(
            f"cannot read the efforts {text!r}; write numbers with commas between: 0.25,0.5,1"
        ) from None


def _names(text: str) -> list[str]:
    """Split at commas that stand in no parentheses."""
    found = [each.strip() for each in re.split(r",(?![^(]*\))", text)]
    if not all(found):
        raise ConfigurationError(f"cannot read {text!r}; write names with commas between")
    return found


def _standard_error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _sure(gaps: Sequence[float]) -> bool:
    """Tell whether there is a gap: of several tables, one that scatter does not make."""
    error = _standard_error(gaps)
    return error is None or statistics.fmean(gaps) >= SURE_GAP * error


def _shown(tables: Sequence[RecordedTable], cells: Sequence[Cell]) -> Table:
    from rich.table import Table

    header = tables[0].header
    number = f"{len(tables)} tables" if len(tables) > 1 else "1 table"
    shown = Table(title=f"{header.monitor} on {header.stream} ({header.keys}, {number})")
    shown.add_column("policy")
    for name in ("budget", "of it spent", f"anytime {header.monitor}", "share of the gap"):
        shown.add_column(name, justify="right")
    shown.add_column("violations", justify="right")
    sign = 1.0 if header.more_is_better else -1.0
    for index, cell in enumerate(cells):
        last = index + 1 == len(cells) or cells[index + 1].policy != cell.policy
        shown.add_row(
            cell.policy,
            cell.budget if not cell.budget.endswith("%") else _in_energy(cell.budget, tables),
            f"{cell.spent:.0%}",
            f"{sign * cell.anytime:.4f}",
            _share(cell),
            str(cell.violations),
            end_section=last,
        )
    return shown


def _in_energy(budget: str, tables: Sequence[RecordedTable]) -> str:
    budget_j = statistics.fmean(budget_of(budget, table) for table in tables)
    return f"{budget} ({budget_j / J_PER_WH:.3g} Wh)"


def _share(cell: Cell) -> str:
    if cell.share is None:
        return "no gap"
    error = "" if cell.share_se is None else f" ± {100 * cell.share_se:.1f}"
    return f"{100 * cell.share:.1f}{error} %"


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
