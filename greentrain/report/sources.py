"""Sources: the energy and the uncertainty of each metered device, and its idle power."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from greentrain.ledger import SourceRow, canonical
from greentrain.report.document import (
    HostSource,
    RunFigures,
    SourceDescription,
    SourceFigures,
)
from greentrain.report.row_helpers import MeasuredWindow, grouped, known_wh, number, total
from greentrain.units import uncertainty_j

IDLE = "idle"
"""The phase in which nothing is trained."""


def description(row: SourceRow) -> SourceDescription:
    """Return what the ledger records about a source."""
    return {
        "name": row["name"],
        "method": row["method"],
        "relative_uncertainty": number(row["relative_uncertainty"]),
        "device": row["device"],
        "uuid": row["uuid"],
        "power_limit_w": number(row["power_limit_w"]),
        "note": row["note"],
        "reference": row["reference"],
    }


def sensors(runs: Sequence[RunFigures], windows: Sequence[MeasuredWindow]) -> list[SourceFigures]:
    """List each sensor once over all its runs: one name on one host with one description."""
    joules: dict[tuple[str, str], list[float]] = defaultdict(list)
    unknown: Counter[tuple[str, str]] = Counter()
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for window in windows:
        for name, energy_j in window["joules"].items():
            seen[window["run_id"]][name] = None
            if energy_j is None:
                unknown[window["run_id"], name] += 1
            else:
                joules[window["run_id"], name].append(energy_j)
    found: dict[str, tuple[HostSource, list[tuple[str, str]]]] = {}
    for run in runs:
        described = {source["name"]: source for source in run["sources"]}
        for name in [*described, *(name for name in seen[run["run_id"]] if name not in described)]:
            sensor: HostSource = {
                "host": run["environment"].get("host"),
                **described.get(name, _undescribed(name)),
            }
            found.setdefault(canonical(sensor), (sensor, []))[1].append((run["run_id"], name))
    return [
        _with_energy(
            sensor,
            [energy_j for place in places for energy_j in joules[place]],
            sum(unknown[place] for place in places),
        )
        for sensor, places in found.values()
    ]


def combined_j(sources: Sequence[SourceFigures]) -> float | None:
    """Combine standard uncertainties in quadrature over sensors.

    One sensor with two descriptions stays one: its uncertainties are added up.
    """
    energy: dict[str, float | None] = {}
    shares: dict[str, float | None] = {}
    measured = [source for source in sources if source["energy_j"]]
    for key, same in grouped(measured, _identity).items():
        energy_j = math.fsum(source["energy_j"] or 0.0 for source in same)
        parts = [source["standard_uncertainty_j"] for source in same]
        energy[key] = energy_j
        shares[key] = None if None in parts else (total(parts) or 0.0) / energy_j
    return uncertainty_j(energy, shares)


def idle(runs: Sequence[RunFigures], windows: Sequence[MeasuredWindow]) -> list[dict[str, Any]]:
    """List the energy of each source in idle windows, with its mean power.

    Idle energy is subtracted from no other figure.
    """
    hosts = {run["run_id"]: run["environment"].get("host") for run in runs}
    measured = [
        ((hosts.get(window["run_id"]), name), energy_j, window["duration_s"])
        for window in windows
        if window["phase"] == IDLE
        for name, energy_j in window["joules"].items()
        if energy_j is not None
    ]
    listed = []
    for (host, name), parts in grouped(measured, lambda part: part[0]).items():
        energy_j = math.fsum(part[1] for part in parts)
        duration_s = math.fsum(part[2] for part in parts)
        listed.append(
            {
                "name": name,
                "host": host,
                "energy_j": energy_j,
                "duration_s": duration_s,
                "power_w": energy_j / duration_s if duration_s > 0 else None,
            }
        )
    return listed


def _identity(source: SourceFigures) -> str:
    return canonical(source["uuid"] or [source["host"], source["name"]])


def _undescribed(name: str) -> SourceDescription:
    return {
        "name": name,
        "method": None,
        "relative_uncertainty": None,
        "device": None,
        "uuid": None,
        "power_limit_w": None,
        "note": None,
        "reference": None,
    }


def _with_energy(sensor: HostSource, joules: list[float], unknown: int) -> SourceFigures:
    energy_j, share = total(joules), sensor["relative_uncertainty"]
    return {
        **sensor,
        "energy_j": energy_j,
        "energy_wh": known_wh(energy_j),
        "standard_uncertainty_j": None if energy_j is None or share is None else share * energy_j,
        "windows": len(joules) + unknown,
        "windows_unknown": unknown,
    }
