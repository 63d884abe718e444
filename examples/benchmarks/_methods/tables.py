"""Rows of the benchmark from the runs that are finished, and the search with its joules."""

from __future__ import annotations

import statistics

from _results import Row

from _methods.entries import ENTRIES
from _methods.protocol import BATCH_SIZE, Scenario
from _methods.runs import JOINT, ORDER, Run, Runs, Size, measured, searches
from greentrain.units import format_energy

IDS: dict[Scenario, str] = {"task": "mnist_til", "domain": "mnist_dil", "class": "mnist_cil"}
FINETUNED, OFF_BY = 19.9, 1.0
"""Published accuracy of fine-tuning, and the distance that the canary allows, in percent."""
LEAST_JOINT = 97.5
WATTS_OF_A_CORE = 10.0
"""Power that joules are counted with: a constant, as no meter is right on a shared machine."""
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
    rows = [_canary(runs, size), _row(runs, size, JOINT, "class", reach=LEAST_JOINT)]
    for method, entry in ENTRIES.items():
        for scenario, id in IDS.items():
            if (method, scenario) in ORDER:
                reach = entry.reach.get(scenario)
                rows.append(_row(runs, size, method, scenario, reach=reach, id=id))
    return rows


def search_table(runs: Runs, size: Size) -> str:
    """Return the search for strengths as a Markdown table, with its counted joules."""
    lines = [
        "| method | scenario | strength | held-out accuracy | joules |",
        "|---|---|---|---|---|",
    ]
    total_j = 0.0
    for method, entry in ENTRIES.items():
        for scenario in entry.grid:
            for wanted in searches(method, scenario, size.search_steps):
                done = runs.get(wanted)
                if done is None or done.accuracy is None or done.cpu_s is None:
                    continue
                total_j += counted_j(done.cpu_s)
                lines.append(
                    f"| {method} | {scenario} | {done.strength:g} | {done.accuracy:.1f} % "
                    f"| {format_energy(counted_j(done.cpu_s))} |"
                )
    watts = f"{WATTS_OF_A_CORE:g} W for each second of a processor core"
    return "\n".join([*lines, "", f"The search: {format_energy(total_j)}, counted at {watts}."])


def _finished(runs: Runs, size: Size, method: str, scenario: Scenario) -> list[Run]:
    found = (
        measured(runs, method, scenario, seed, size.steps, size.search_steps)
        for seed in range(size.seeds)
    )
    return [run for run in found if run is not None]


def _row(
    runs: Runs,
    size: Size,
    method: str,
    scenario: Scenario,
    *,
    reach: float | None = None,
    id: str = "",
) -> Row:
    found = _finished(runs, size, method, scenario)
    what = f"Split MNIST {scenario}-incremental, {'fine-tuning' if method == 'none' else method}"
    id = id or IDS[scenario]
    published = ENTRIES[method].published.get(scenario) if method in ENTRIES else 97.9
    shown = "" if published is None else f"; published {published} %"
    if not found:
        note = "not run: a run takes minutes of a core, and the machine was shared by six"
        note += shown
        return Row(
            id=id,
            what=what,
            value=None,
            unit="%",
            reach=reach,
            better="higher",
            seeds=0,
            note=note,
        )
    values = [run.accuracy or 0.0 for run in found]
    joules = format_energy(statistics.fmean(counted_j(run.cpu_s or 0.0) for run in found))
    strength = (
        f"; strength {found[0].strength:g}, chosen on held-out data" if _is_tuned(method) else ""
    )
    missing = size.seeds - len(found)
    short = f"; {missing} of {size.seeds} seeds were not run" if missing else ""
    return Row(
        id=id,
        what=what,
        value=statistics.fmean(values),
        unit="%",
        reach=reach,
        better="higher",
        seeds=len(values),
        interval=(min(values), max(values)),
        note=_NOTE.format(batch=BATCH_SIZE, steps=size.steps)
        + f"{shown}{strength}; {joules} counted{short}",
    )


def _canary(runs: Runs, size: Size) -> Row:
    found = _finished(runs, size, "none", "class")
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
