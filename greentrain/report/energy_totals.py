"""Energy figures: totals with source, method and uncertainty, and what was not measured."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from greentrain.report import sources as sensors
from greentrain.report import system_boundaries as wider
from greentrain.report.row_helpers import Row, Rows, joules_by_source, total
from greentrain.units import wh

COVERAGE_FACTOR = 2.0
"""How many standard uncertainties the interval reaches to either side: about 95 %."""

_NODE = "node"
_PARTS = {"gpu": "graphics cards", "cpu": "processors", "ram": "memory"}


def energy_of(windows: Rows) -> dict[str, Any]:
    """Sum up windows: joules, watt-hours, seconds, and how many are not whole."""
    energy_j = total(window["energy_j"] for window in windows)
    return {
        "energy_j": energy_j,
        "energy_wh": None if energy_j is None else wh(energy_j),
        "duration_s": math.fsum(window["duration_s"] for window in windows),
        "windows": len(windows),
        "windows_incomplete": sum(not window["complete"] for window in windows),
        "windows_recovered": sum(window["recovered"] for window in windows),
    }


def boundary(windows: Rows) -> str | None:
    """Name what was metered, such as ``"gpu+cpu+ram"``; ``None`` where nothing was."""
    return boundary_of(
        {
            name: None  # each once: of many windows only a few names are new
            for window in windows
            for name, joules in joules_by_source(window).items()
            if joules is not None
        }
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


def totals(
    runs: Sequence[Row], windows: Rows, *, measured: Rows
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sum up all windows, and say what was not measured.

    Args:
        runs: The runs of the report, parsed, with their figures as they count.
        windows: The windows as they count: what two of them measured is in one of them.
        measured: The same windows as they were measured, which idle power is worked out from.

    Returns:
        The totals with their sources, uncertainty, boundary and phases; and what is missing.
    """
    sources = sensors.sensors(runs, windows)
    summed = energy_of(windows)
    standard_j = None if summed["energy_j"] is None else sensors.combined_j(sources)
    within = boundary(windows)
    figures = {
        **summed,
        "complete": bool(windows)
        and not summed["windows_incomplete"]
        and not summed["windows_recovered"],
        "standard_uncertainty_j": standard_j,
        "interval": _interval(summed["energy_j"], standard_j),
        "interval_note": _interval_note(summed, standard_j, sources),
        "boundary": within,
        "boundary_note": _boundary_note(runs),
        "node": wider.together(runs, "node"),
        "facility": wider.together(runs, "facility"),
        "sources": sources,
        "by_phase": _by_phase(windows),
        "idle": sensors.idle(runs, measured),
        "recovered_j": total(window["energy_j"] for window in windows if window["recovered"]),
        "without_budget_j": total(
            window["energy_j"] for window in windows if window["reservation_id"] is None
        ),
    }
    return figures, _not_measured(runs, windows, figures)


def _interval(energy_j: float | None, standard_j: float | None) -> dict[str, Any] | None:
    if energy_j is None or standard_j is None:
        return None
    # Nothing draws less than nothing, however uncertain its sensor.
    low_j = max(0.0, energy_j - COVERAGE_FACTOR * standard_j)
    high_j = energy_j + COVERAGE_FACTOR * standard_j
    return {
        "coverage": 0.95,
        "k": COVERAGE_FACTOR,
        "low_j": low_j,
        "high_j": high_j,
        "low_wh": wh(low_j),
        "high_wh": wh(high_j),
    }


def _interval_note(summed: Row, standard_j: float | None, sources: Sequence[Row]) -> str | None:
    if summed["energy_j"] is None:
        return "nothing was measured, so there is no interval"
    if standard_j is None:
        names = dict.fromkeys(
            source["name"]
            for source in sources
            if source["energy_j"] and source["relative_uncertainty"] is None
        )
        return f"no uncertainty is known of {', '.join(names)}, so no interval is claimed"
    if summed["windows_incomplete"] or summed["windows_recovered"]:
        return "the interval is that of what was measured; what was not comes on top of it"
    return None


def _boundary_note(runs: Sequence[Row]) -> str | None:
    counts = Counter(run["boundary"] for run in runs if run["boundary"] is not None)
    if len(counts) < 2:
        return None
    parts = [f"{name} ({count} run{'s' if count > 1 else ''})" for name, count in counts.items()]
    return f"the runs were measured within different boundaries: {', '.join(parts)}"


def _by_phase(windows: Rows) -> list[dict[str, Any]]:
    phases: dict[str, list[Row]] = defaultdict(list)
    for window in windows:
        phases[window["phase"]].append(window)
    return [{"phase": phase, **energy_of(of_it)} for phase, of_it in phases.items()]


def _not_measured(runs: Sequence[Row], windows: Rows, figures: Row) -> dict[str, Any]:
    gaps: dict[tuple[str, str, tuple[str, ...]], list[Row]] = defaultdict(list)
    cut_short: dict[str, list[Row]] = defaultdict(list)
    for window in windows:
        if not window["complete"]:
            missing = [name for name, joules in joules_by_source(window).items() if joules is None]
            gaps[window["run_id"], window["phase"], tuple(missing)].append(window)
        if window["recovered"]:
            cut_short[window["run_id"]].append(window)
    return {
        "windows": [
            {"run_id": run_id, "phase": phase, "sources_unknown": list(names), **energy_of(of_it)}
            for (run_id, phase, names), of_it in gaps.items()
        ],
        "after_last_heartbeat": [
            {"run_id": run_id, **energy_of(of_it)} for run_id, of_it in cut_short.items()
        ],
        "sources": [
            {key: source[key] for key in ("name", "host", "windows", "windows_unknown")}
            for source in figures["sources"]
            if source["windows_unknown"] or source["energy_j"] is None
        ],
        "runs_without_windows": [run["run_id"] for run in runs if run["windows"] == 0],
        "outside_boundary": _outside(figures["boundary"], figures["facility"]),
    }


def _outside(within: str | None, facility: Row | None) -> list[str]:
    parts = set(within.split("+")) if within else set()
    sentences = []
    if _NODE not in parts:
        sentences += [
            f"{words} ({part}): no source of these runs gave a figure"
            for part, words in _PARTS.items()
            if part not in parts
        ]
    if parts <= set(_PARTS):
        # A source by another name may well be a wall meter, which includes all of this.
        sentences.append(
            "storage, mainboard, fans and the losses of the power supply: no source covers them"
        )
    sentences.append(
        "cooling and other overheads of the building (PUE): not added"
        + (" to these figures; they are in the facility's" if facility else "")
    )
    sentences.append("water, and what making the hardware took: in none of these figures")
    return sentences
