"""Sources: what each sensor gave, how sure it is, and what it draws idle."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from greentrain.ledger import canonical
from greentrain.report.row_helpers import Row, Rows, joules_by_source, total
from greentrain.units import uncertainty_j, wh

COLUMNS = (
    "name",
    "method",
    "relative_uncertainty",
    "device",
    "uuid",
    "power_limit_w",
    "note",
    "reference",
)
"""What is known of a source, as the ledger's rows have it."""

IDLE = "idle"
"""The phase in which nothing is trained."""


def sensors(runs: Sequence[Row], windows: Rows) -> list[dict[str, Any]]:
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
    found: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {}
    for run in runs:
        described = {source["name"]: source for source in run["sources"]}
        for name in [*described, *(name for name in seen[run["run_id"]] if name not in described)]:
            sensor = {"host": run["environment"].get("host"), **dict.fromkeys(COLUMNS)}
            sensor |= described.get(name, {"name": name})
            found.setdefault(canonical(sensor), (sensor, []))[1].append((run["run_id"], name))
    return [
        _with_energy(
            sensor,
            [energy_j for place in places for energy_j in joules[place]],
            sum(unknown[place] for place in places),
        )
        for sensor, places in found.values()
    ]


def combined_j(sources: Sequence[Row]) -> float | None:
    """Combine uncertainties over sensors; descriptions of one that differ stay correlated."""
    energy: dict[str, float | None] = {}
    shares: dict[str, float | None] = {}
    same_sensor: dict[str, list[Row]] = defaultdict(list)
    for source in sources:
        if source["energy_j"]:
            identity = source["uuid"] or [source["host"], source["name"]]
            same_sensor[canonical(identity)].append(source)
    for key, same in same_sensor.items():
        energy_j = math.fsum(source["energy_j"] for source in same)
        parts = [source["standard_uncertainty_j"] for source in same]
        energy[key] = energy_j
        shares[key] = None if None in parts else math.fsum(parts) / energy_j
    return uncertainty_j(energy, shares)


def idle(runs: Sequence[Row], windows: Rows) -> list[dict[str, Any]]:
    """List what each source drew in idle windows, with its mean power; it is taken off nothing."""
    hosts = {run["run_id"]: run["environment"].get("host") for run in runs}
    drawn: dict[tuple[Any, str], list[tuple[float, float]]] = defaultdict(list)
    for window in windows:
        if window["phase"] == IDLE:
            for name, energy_j in joules_by_source(window).items():
                if energy_j is not None:
                    place = (hosts.get(window["run_id"]), name)
                    drawn[place].append((energy_j, window["duration_s"]))
    return [
        _idle_power(name, host, math.fsum(joules), math.fsum(seconds))
        for (host, name), parts in drawn.items()
        for joules, seconds in [zip(*parts, strict=True)]
    ]


def _idle_power(name: str, host: Any, energy_j: float, duration_s: float) -> dict[str, Any]:
    return {
        "name": name,
        "host": host,
        "energy_j": energy_j,
        "duration_s": duration_s,
        "power_w": energy_j / duration_s if duration_s > 0 else None,
    }


def _with_energy(sensor: dict[str, Any], joules: list[float], unknown: int) -> dict[str, Any]:
    energy_j, share = total(joules), sensor["relative_uncertainty"]
    return {
        **sensor,
        "energy_j": energy_j,
        "energy_wh": None if energy_j is None else wh(energy_j),
        "standard_uncertainty_j": (None if energy_j is None or share is None else share * energy_j),
        "windows": len(joules) + unknown,
        "windows_unknown": unknown,
    }
