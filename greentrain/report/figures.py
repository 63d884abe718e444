"""Energy figures: totals with source, method and uncertainty, and what was not measured."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from greentrain.ledger import canonical
from greentrain.report.rows import Row, Rows, joules_by_source, total
from greentrain.units import uncertainty_j, wh

COVERAGE_FACTOR = 2.0
"""How many standard uncertainties the interval reaches to either side: about 95 %."""

_PARTS = {"gpu": "graphics cards", "cpu": "processors", "ram": "memory"}


def energy_of(windows: Rows) -> dict[str, Any]:
    """Sum up windows: joules, watt-hours, seconds and how many of the windows are incomplete."""
    energy_j = total(window["energy_j"] for window in windows)
    return {
        "energy_j": energy_j,
        "energy_wh": _wh(energy_j),
        "duration_s": math.fsum(window["duration_s"] for window in windows),
        "windows": len(windows),
        "windows_incomplete": sum(not window["complete"] for window in windows),
    }


def boundary(windows: Rows) -> str | None:
    """Name what was metered, such as ``"gpu+cpu+ram"``; ``None`` where nothing was."""
    parts = {
        _part(name)
        for window in windows
        for name, joules in joules_by_source(window).items()
        if joules is not None
    }
    known = [part for part in _PARTS if part in parts]
    return "+".join([*known, *sorted(parts - set(known))]) or None


def totals(runs: Sequence[Row], windows: Rows) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sum up all windows, and say what was not measured.

    Args:
        runs: The runs of the report, parsed.
        windows: The windows of the ledger.

    Returns:
        The totals with their sources, uncertainty, boundary and phases; and what is missing.
    """
    sources = _sources(runs, windows)
    summed = energy_of(windows)
    standard_j = None if summed["energy_j"] is None else _combined_j(sources)
    within = boundary(windows)
    figures = {
        **summed,
        "complete": bool(windows) and summed["windows_incomplete"] == 0,
        "standard_uncertainty_j": standard_j,
        "interval": _interval(summed["energy_j"], standard_j),
        "interval_note": _interval_note(summed, standard_j, sources),
        "boundary": within,
        "boundary_note": _boundary_note(runs),
        "sources": sources,
        "by_phase": _by_phase(windows),
        "without_budget_j": total(
            window["energy_j"] for window in windows if window["reservation_id"] is None
        ),
    }
    return figures, _not_measured(runs, windows, sources, within)


def _sources(runs: Sequence[Row], windows: Rows) -> list[dict[str, Any]]:
    """List each sensor once: one name on one host, described in one way, over all its runs."""
    joules: dict[tuple[str, str], list[float]] = defaultdict(list)
    unknown: Counter[tuple[str, str]] = Counter()
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for window in windows:
        for name, energy_j in joules_by_source(window).items():
            seen[window["run_id"]][name] = None
            if energy_j is None:
                unknown[window["run_id"], name] += 1
            else:
                joules[window["run_id"], name].append(energy_j)
    sensors: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {}
    for run in runs:
        described = {source["name"]: source for source in run["sources"]}
        for name in [*described, *(name for name in seen[run["run_id"]] if name not in described)]:
            sensor = _describe(name, described.get(name, {}), run["environment"].get("host"))
            sensors.setdefault(canonical(sensor), (sensor, []))[1].append((run["run_id"], name))
    return [
        _with_energy(
            sensor,
            [energy_j for place in places for energy_j in joules[place]],
            sum(unknown[place] for place in places),
        )
        for sensor, places in sensors.values()
    ]


def _describe(name: str, source: Row, host: object) -> dict[str, Any]:
    return {
        "name": name,
        "host": host,
        "device": source.get("device") or None,
        "method": source.get("method"),
        "relative_uncertainty": source.get("relative_uncertainty"),
        "note": source.get("note") or None,
        "reference": source.get("reference") or None,
    }


def _with_energy(sensor: dict[str, Any], joules: list[float], unknown: int) -> dict[str, Any]:
    energy_j, share = total(joules), sensor["relative_uncertainty"]
    return {
        **sensor,
        "energy_j": energy_j,
        "energy_wh": _wh(energy_j),
        "standard_uncertainty_j": (None if energy_j is None or share is None else share * energy_j),
        "windows": len(joules) + unknown,
        "windows_unknown": unknown,
    }


def _combined_j(sources: Sequence[Row]) -> float | None:
    """Combine over sensors; descriptions of one sensor that differ stay fully correlated."""
    energy: dict[str, float | None] = {}
    shares: dict[str, float | None] = {}
    sensors: dict[str, list[Row]] = defaultdict(list)
    for source in sources:
        if source["energy_j"]:
            sensors[canonical([source["host"], source["name"]])].append(source)
    for key, same in sensors.items():
        energy_j = math.fsum(source["energy_j"] for source in same)
        parts = [source["standard_uncertainty_j"] for source in same]
        energy[key] = energy_j
        shares[key] = None if None in parts else math.fsum(parts) / energy_j
    return uncertainty_j(energy, shares)


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
    if summed["windows_incomplete"]:
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


def _not_measured(
    runs: Sequence[Row], windows: Rows, sources: Sequence[Row], within: str | None
) -> dict[str, Any]:
    gaps: dict[tuple[str, str, tuple[str, ...]], list[Row]] = defaultdict(list)
    for window in windows:
        if not window["complete"]:
            missing = [name for name, joules in joules_by_source(window).items() if joules is None]
            gaps[window["run_id"], window["phase"], tuple(missing)].append(window)
    return {
        "windows": [
            {"run_id": run_id, "phase": phase, "sources_unknown": list(names), **energy_of(of_it)}
            for (run_id, phase, names), of_it in gaps.items()
        ],
        "sources": [
            {key: source[key] for key in ("name", "host", "windows", "windows_unknown")}
            for source in sources
            if source["windows_unknown"] or source["energy_j"] is None
        ],
        "runs_without_windows": [run["run_id"] for run in runs if run["windows"] == 0],
        "outside_boundary": _outside(within),
    }


def _outside(within: str | None) -> list[str]:
    parts = set(within.split("+")) if within else set()
    sentences = [
        f"{words} ({part}): no source of these runs gave a figure"
        for part, words in _PARTS.items()
        if part not in parts
    ]
    if parts <= set(_PARTS):
        # A source by another name may well be a wall meter, which includes all of this.
        sentences.append(
            "storage, mainboard, fans and the losses of the power supply: no source covers them"
        )
    sentences.append("cooling and other overheads of the building (PUE): not added")
    sentences.append("water, and what making the hardware took: not accounted for")
    return sentences


def _part(name: str) -> str:
    return name.split(":", 1)[0]


def _wh(energy_j: float | None) -> float | None:
    return None if energy_j is None else wh(energy_j)
