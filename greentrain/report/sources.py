"""Sources: the energy and the uncertainty of each metered device, and its idle power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from greentrain.ledger import SourceRow, canonical
from greentrain.report.document import (
    HostSource,
    RunFigures,
    SourceDescription,
    SourceFigures,
)
from greentrain.report.row_helpers import grouped, known_wh, number, total
from greentrain.report.run_windows import RunWindows, SourceSum
from greentrain.report.sums import Sum
from greentrain.units import uncertainty_j


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


def sensors(runs: Sequence[RunFigures], windows: Mapping[str, RunWindows]) -> list[SourceFigures]:
    """List each sensor once over all its runs: one name on one host with one description."""
    found: dict[str, tuple[HostSource, list[SourceSum]]] = {}
    for run in runs:
        described = {source["name"]: source for source in run["sources"]}
        measured = windows[run["run_id"]].sources if run["run_id"] in windows else {}
        for name in dict.fromkeys([*described, *measured]):
            sensor: HostSource = {
                "host": run["environment"].get("host"),
                **described.get(name, _undescribed(name)),
            }
            of_sensor = found.setdefault(canonical(sensor), (sensor, []))[1]
            if name in measured:
                of_sensor.append(measured[name])
    return [_with_energy(sensor, sums) for sensor, sums in found.values()]


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


def idle(runs: Sequence[RunFigures], windows: Mapping[str, RunWindows]) -> list[dict[str, Any]]:
    """List the energy of each source in idle windows, with its mean power.

    Idle energy is subtracted from no other figure.
    """
    hosts = {run["run_id"]: run["environment"].get("host") for run in runs}
    idle_sources = [
        (source.first_idle, hosts.get(run_id), name, source)
        for run_id, of_run in windows.items()
        for name, source in of_run.sources.items()
        if source.idle[0].known
    ]
    idle_sources.sort(key=itemgetter(0))
    listed = []
    for (host, name), parts in grouped(idle_sources, itemgetter(1, 2)).items():
        joules, seconds = Sum(), Sum()
        for *_, source in parts:
            joules.join(source.idle[0])
            seconds.join(source.idle[1])
        listed.append(
            {
                "name": name,
                "host": host,
                "energy_j": joules.number,
                "duration_s": seconds.number,
                "power_w": joules.number / seconds.number if seconds.number > 0 else None,
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


def _with_energy(sensor: HostSource, sums: Sequence[SourceSum]) -> SourceFigures:
    joules = Sum()
    for one in sums:
        joules.join(one.joules)
    unknown = sum(one.unknown for one in sums)
    energy_j, share = joules.total, sensor["relative_uncertainty"]
    return {
        **sensor,
        "energy_j": energy_j,
        "energy_wh": known_wh(energy_j),
        "standard_uncertainty_j": None if energy_j is None or share is None else share * energy_j,
        "windows": joules.known + unknown,
        "windows_unknown": unknown,
    }
