"""Energy totals with source, method and uncertainty, and a list of what was not measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from greentrain.report.document import (
    BoundaryEnergy,
    EnergyFigures,
    EnergyInterval,
    EnergyTotals,
    NotMeasured,
    RunFigures,
    SourceFigures,
)
from greentrain.report.run_windows import RunWindows, phases_of
from greentrain.report.sources import combined_j, idle, sensors
from greentrain.report.sums import Sum, joined
from greentrain.report.system_boundaries import together
from greentrain.units import plural, wh

COVERAGE_FACTOR = 2.0
"""Standard uncertainties that the interval extends to either side: about 95 %."""

BUILDING = "cooling and other overheads of the building (PUE)"
NO_WATER = "water: neither in the energy nor in its emissions"
NO_MANUFACTURE = (
    "water, and the manufacture of the hardware: neither in the energy nor in its emissions"
)
"""Beginnings of sentences, and sentences, about what the figures leave out."""
_NODE = "node"
_PARTS = {"gpu": "graphics cards", "cpu": "processors", "ram": "memory"}


def boundary(runs: Iterable[RunWindows]) -> str | None:
    """Name what was metered, such as ``"gpu+cpu+ram"``; ``None`` where nothing was."""
    return boundary_of(
        {name: None for run in runs for name, one in run.sources.items() if one.joules.known}
    )


def boundary_of(names: Iterable[str]) -> str | None:
    """Name what sources cover; on a host whose whole node is metered, its parts are not named.

    Example:
        >>> boundary_of(["ram", "gpu:0", "cpu"]), boundary_of(["node", "cpu"]), boundary_of([])
        ('gpu+cpu+ram', 'node', None)
        >>> boundary_of(["node0/gpu:0", "node1/gpu:0", "node1/cpu"])
        'gpu+cpu'
    """
    hosts: dict[str, set[str]] = defaultdict(set)
    for name in names:
        host, _, device = name.rpartition("/")
        hosts[host].add(device.partition(":")[0])
    parts: set[str] = set()
    for covered in hosts.values():
        parts |= {_NODE} if _NODE in covered else covered
    known = [part for part in _PARTS if part in parts]
    return "+".join([*known, *sorted(parts - set(known))]) or None


def interval(low_j: float, high_j: float) -> EnergyInterval:
    """Return a 95 % interval in joules and in watt-hours."""
    return {
        "coverage": 0.95,
        "low_j": low_j,
        "high_j": high_j,
        "low_wh": wh(low_j),
        "high_wh": wh(high_j),
    }


def energy_totals(
    runs: Sequence[RunFigures],
    windows: Mapping[str, RunWindows],
    *,
    measured: Mapping[str, RunWindows],
) -> EnergyTotals:
    """Sum up all windows.

    Args:
        runs: The runs of the report, with energy that two runs measured counted once.
        windows: Their windows by run id, with energy that two runs measured counted once.
        measured: The same windows as they were measured, for the idle power.
    """
    sources, each = sensors(runs, windows), list(windows.values())
    phases = phases_of(each)
    summed = joined(phases.values()).figures()
    standard_j = None if summed["energy_j"] is None else combined_j(sources)
    partial = bool(summed["windows_incomplete"] or summed["windows_recovered"])
    unpaid = Sum()
    for run in each:
        unpaid.join(run.unpaid)
    return {
        **summed,
        "complete": bool(summed["windows"]) and not partial,
        "standard_uncertainty_j": standard_j,
        "interval": _interval(summed["energy_j"], standard_j),
        "interval_note": _interval_note(summed, standard_j, sources, partial=partial),
        "boundary": boundary(each),
        "boundary_note": _boundary_note(runs),
        "node": together(runs, "node"),
        "facility": together(runs, "facility"),
        "sources": sources,
        "by_phase": [{"phase": phase, **one.figures()} for phase, one in phases.items()],
        "idle": idle(runs, measured),
        "recovered_j": joined(run.recovered for run in each).energy_j,
        "without_budget_j": unpaid.total,
    }


def not_measured(
    runs: Sequence[RunFigures], windows: Mapping[str, RunWindows], totals: EnergyTotals
) -> NotMeasured:
    """List incomplete windows, killed runs, sources without figures, and uncovered devices."""
    gaps = [
        (run_id, phase, names, one)
        for run_id, run in windows.items()
        for (phase, names), one in run.gaps.items()
    ]
    cut_short = [(run_id, run.recovered) for run_id, run in windows.items()]
    return {
        "windows": [
            {"run_id": run_id, "phase": phase, "sources_unknown": list(names), **one.figures()}
            for run_id, phase, names, one in sorted(gaps, key=lambda gap: gap[3].first)
        ],
        "after_last_heartbeat": [
            {"run_id": run_id, **one.figures()}
            for run_id, one in sorted(cut_short, key=lambda run: run[1].first)
            if one.windows
        ],
        "sources": [
            {
                "name": source["name"],
                "host": source["host"],
                "windows": source["windows"],
                "windows_unknown": source["windows_unknown"],
            }
            for source in totals["sources"]
            if source["windows_unknown"] or source["energy_j"] is None
        ],
        "runs_without_windows": [run["run_id"] for run in runs if run["windows"] == 0],
        "outside_boundary": _outside(totals["boundary"], totals["facility"]),
    }


def _interval(energy_j: float | None, standard_j: float | None) -> EnergyInterval | None:
    if energy_j is None or standard_j is None:
        return None
    spread_j = COVERAGE_FACTOR * standard_j
    # Energy is never negative, however uncertain its sensor.
    return {**interval(max(0.0, energy_j - spread_j), energy_j + spread_j), "k": COVERAGE_FACTOR}


def _interval_note(
    summed: EnergyFigures,
    standard_j: float | None,
    sources: Sequence[SourceFigures],
    *,
    partial: bool,
) -> str | None:
    if summed["energy_j"] is None:
        return "nothing was measured, so there is no interval"
    if standard_j is None:
        names = dict.fromkeys(
            source["name"]
            for source in sources
            if source["energy_j"] and source["relative_uncertainty"] is None
        )
        return f"the uncertainty of {', '.join(names)} is not known, so no interval is claimed"
    return (
        "the interval covers the measured part; the unmeasured part adds to it" if partial else None
    )


def _boundary_note(runs: Sequence[RunFigures]) -> str | None:
    counts = Counter(run["boundary"] for run in runs if run["boundary"] is not None)
    if len(counts) < 2:
        return None
    parts = [f"{name} ({plural(count, 'run')})" for name, count in counts.items()]
    return f"the runs were measured within different boundaries: {', '.join(parts)}"


def _outside(within: str | None, facility: BoundaryEnergy | None) -> list[str]:
    parts = set(within.split("+")) if within else set()
    sentences = []
    if _NODE not in parts:
        sentences += [
            f"{words} ({part}): no source of these runs gave a figure"
            for part, words in _PARTS.items()
            if part not in parts
        ]
    if parts <= set(_PARTS):
        # A source by another name may be a wall meter, which includes all of this.
        sentences.append(
            "storage, mainboard, fans and the losses of the power supply: no source covers them"
        )
    beyond = "; they are in the energy of the facility and in the emissions" if facility else ""
    sentences.append(f"{BUILDING}: not in the energy{beyond}")
    sentences.append(NO_MANUFACTURE)
    return sentences
