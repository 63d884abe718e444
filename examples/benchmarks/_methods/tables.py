"""Rows of the benchmark from the runs that are finished, and the search with its joules."""

from __future__ import annotations

import statistics

from _results import Row

from _methods.entries import ENTRIES
from _methods.protocol import BATCH_SIZE, Data, Scenario
from _methods.published import FASHION, REHEARSAL, REHEARSAL_REACH
from _methods.runs import FASHION_ORDER, JOINT, ORDER, Run, Runs, Size, measured, searches
from greentrain.units import format_energy

IDS: dict[Scenario, str] = {"task": "mnist_til", "domain": "mnist_dil", "class": "mnist_cil"}
FINETUNED, OFF_BY = 19.9, 1.0
"""Published accuracy of fine-tuning, and the distance that the canary allows, in percent."""
LEAST_JOINT = 97.5
WATTS_OF_A_CORE = 10.0
"""Power that joules are counted with: a constant, as no meter is right on a shared machine."""
SETS: dict[Data, str] = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
NOT_RUN = "not run: a run takes minutes of a core, and the machine was shared"
_UNKNOWN = "the paper does not print its epochs, learning rates and strengths, so ours may differ"
_NOTE = (
    "van de Ven & Tolias 2019: 5 experiences of 2 classes, 2x400 ReLU, Adam 1e-3 without moments "
    "at the start of each, batches of {batch}, {steps:,} steps each"
)


def counted_j(cpu_s: float) -> float:
    """Return joules counted at a constant power: no measurement.

    Example:
        >>> counted_j(3.0)
        30.0
    """
    return WATTS_OF_A_CORE * cpu_s


def rows_of_runs(runs: Runs, size: Size) -> list[Row]:
    """Return a row for each method and scenario, without a value where nothing was run."""
    rows = [_canary(runs, size)]
    rows += [_row(runs, size, JOINT, "class", "97.9 %", reach=LEAST_JOINT)]
    for method, entry in ENTRIES.items():
        for scenario in IDS:
            if (method, scenario) in ORDER:
                published = entry.published.get(scenario)
                shown = "" if published is None else f"{published} %"
                reach = entry.reach.get(scenario)
                rows.append(_row(runs, size, method, scenario, shown, reach=reach))
    return [*rows, *_fashion_rows(runs, size), *_rehearsal_rows(runs, size)]


def _fashion_rows(runs: Runs, size: Size) -> list[Row]:
    """Return the rows of the sources' table of Split Fashion-MNIST."""
    rows = []
    for method, by_scenario in FASHION.items():
        for scenario, (mean, deviation) in by_scenario.items():
            missing = ""
            if (method, scenario) not in FASHION_ORDER:
                missing = "not run: the benchmark has no such entry"
            row = _row(
                *(runs, size, method, scenario),
                f"{mean} ± {deviation} % (Wolczyk et al. 2022)",
                reach=round(mean - deviation, 2),
                data="fashion",
                id="fmnist_table",
                missing=missing,
                unknown=True,
            )
            rows.append(row)
    return rows


def _rehearsal_rows(runs: Runs, size: Size) -> list[Row]:
    """Return the rows of the sources' table of rehearsal."""
    rows = []
    for method, published in REHEARSAL.items():
        for data, value in zip(SETS, published, strict=True):
            order = ORDER if data == "mnist" else FASHION_ORDER
            missing = ""
            if (method, "class") not in order:
                missing = "not run: the benchmark has no such entry"
            row = _row(
                *(runs, size, method, "class"),
                f"{value} % (Deja et al. 2021)",
                reach=value if method in REHEARSAL_REACH else None,
                data=data,
                id="rehearsal_table",
                missing=missing,
                unknown=True,
            )
            rows.append(row)
    return rows


def search_table(runs: Runs, size: Size) -> str:
    """Return the search for strengths as a Markdown table, with its counted joules."""
    lines = [
        "| data | method | scenario | strength | held-out accuracy | joules |",
        "|---|---|---|---|---|---|",
    ]
    total_j = 0.0
    wanted = (
        each
        for data in SETS
        for method, entry in ENTRIES.items()
        for scenario in entry.grid
        for each in searches(method, scenario, size.search_steps, data)
    )
    for done in map(runs.get, wanted):
        if done is None or done.accuracy is None or done.cpu_s is None:
            continue
        total_j += counted_j(done.cpu_s)
        lines.append(
            f"| {SETS[done.data]} | {done.method} | {done.scenario} | {done.strength:g} "
            f"| {done.accuracy:.1f} % | {format_energy(counted_j(done.cpu_s))} |"
        )
    watts = f"{WATTS_OF_A_CORE:g} W for each second of a processor core"
    return "\n".join([*lines, "", f"The search: {format_energy(total_j)}, counted at {watts}."])


def finished(
    runs: Runs, size: Size, method: str, scenario: Scenario, data: Data = "mnist"
) -> list[Run]:
    """Return the runs of a method that are finished, of all seeds."""
    found = (measured(runs, method, scenario, seed, size, data) for seed in range(size.seeds))
    return [run for run in found if run is not None]


def _row(
    runs: Runs,
    size: Size,
    method: str,
    scenario: Scenario,
    published: str,
    *,
    reach: float | None = None,
    data: Data = "mnist",
    id: str = "",
    missing: str = "",
    unknown: bool = False,
) -> Row:
    """Return the row of a method, a scenario and a data set.

    Args:
        runs: The runs.
        size: Seeds and steps.
        method: Name of the method.
        scenario: The scenario.
        published: The published accuracy, or an empty text.
        reach: The target.
        data: MNIST or Fashion-MNIST.
        id: The id; that of the scenario unless given.
        missing: Why the method cannot be run; empty if it can be.
        unknown: Whether the paper leaves details of its protocol open.
    """
    found = [] if missing else finished(runs, size, method, scenario, data)
    name = "fine-tuning" if method == "none" else method
    shown = f"; published {published}" if published else ""
    if found:
        values = [run.accuracy or 0.0 for run in found]
        joules = format_energy(statistics.fmean(counted_j(run.cpu_s or 0.0) for run in found))
        note = _NOTE.format(batch=BATCH_SIZE, steps=size.steps) + shown
        if _is_tuned(method):
            note += f"; strength {found[0].strength:g}, chosen on held-out data"
        note += f"; {joules} counted"
        if found[0].bytes is not None:
            note += f"; {found[0].bytes / 1e6:.2f} MB kept"
        if len(found) < size.seeds:
            note += f"; {size.seeds - len(found)} of {size.seeds} seeds were not run"
    else:
        values, note = [], (missing or NOT_RUN) + shown
    return Row(
        id=id or IDS[scenario],
        what=f"Split {SETS[data]} {scenario}-incremental, {name}",
        value=statistics.fmean(values) if values else None,
        unit="%",
        reach=reach,
        better="higher",
        seeds=len(values),
        interval=(min(values), max(values)) if values else None,
        note=note + (f"; {_UNKNOWN}" if unknown else ""),
    )


def _canary(runs: Runs, size: Size) -> Row:
    found = finished(runs, size, "none", "class")
    what = f"canary: distance of class-incremental fine-tuning from the published {FINETUNED} %"
    if not found:
        return Row(
            id=IDS["class"],
            what=what,
            value=None,
            unit="points",
            reach=OFF_BY,
            seeds=0,
            note="not run",
        )
    off = max(abs((run.accuracy or 0.0) - FINETUNED) for run in found)
    return Row(
        id=IDS["class"],
        what=what,
        value=off,
        unit="points",
        reach=OFF_BY,
        seeds=len(found),
        note="the largest of all seeds",
    )


def _is_tuned(method: str) -> bool:
    return method in ENTRIES and bool(ENTRIES[method].grid or ENTRIES[method].searched_as)
