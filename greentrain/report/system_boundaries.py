"""Energy within wider boundaries: the node by its wall meter, the facility by its PUE.

Both are computed from the metered energy, are reported separately, and are never added to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from greentrain.ledger import CalibrationRow
from greentrain.report.document import BoundaryEnergy, RunFigures
from greentrain.report.row_helpers import number, total
from greentrain.units import wh

CONTRADICTION = (
    "the wall meter showed less than the sources, although they are part of the node: check units, "
    "clocks and sources"
)
_BASES = {
    "node": ("factor", "factor_low", "factor_high", "spans", "wall", "note"),
    "facility": ("pue", "pue_source", "times"),
}


def node(
    energy_j: float | None, boundary: str | None, calibration: CalibrationRow | None
) -> BoundaryEnergy | None:
    """Return a run's energy as the node's wall meter would show it.

    A factor holds for the boundary that it was found with.

    Args:
        energy_j: Metered joules.
        boundary: Their boundary.
        calibration: The run's last row of kind ``"calibration"``.

    Returns:
        The energy; ``None`` without a calibration for this boundary.
    """
    if energy_j is None or calibration is None or calibration["boundary"] not in (None, boundary):
        return None
    factor = number(calibration["factor"])
    if factor is None:
        return None
    low, high = number(calibration["low"]), number(calibration["high"])
    return {
        **_energy("node", factor * energy_j, _times(energy_j, low), _times(energy_j, high)),
        "factor": factor,
        "factor_low": low,
        "factor_high": high,
        "spans": calibration["spans"],
        "compared_software_j": number(calibration["software_j"]),
        "compared_wall_j": number(calibration["wall_j"]),
        "wall": calibration["wall"] or None,
        "note": CONTRADICTION if factor < 1 else None,
    }


def facility(
    energy_j: float | None,
    boundary: str | None,
    of_node: BoundaryEnergy | None,
    carbon: Mapping[str, Any] | None,
) -> BoundaryEnergy | None:
    """Return a run's energy times its PUE.

    Args:
        energy_j: Metered joules.
        boundary: Their boundary.
        of_node: The energy of the node, which is used where it is known.
        carbon: The carbon settings of the run.

    Returns:
        The energy; ``None`` where no PUE was given.
    """
    pue = number((carbon or {}).get("pue"))
    within_j = energy_j if of_node is None else of_node["energy_j"]
    if carbon is None or pue is None or within_j is None:
        return None
    low_j, high_j = (None, None) if of_node is None else (of_node["low_j"], of_node["high_j"])
    return {
        **_energy("facility", pue * within_j, _times(pue, low_j), _times(pue, high_j)),
        "pue": pue,
        "pue_source": carbon.get("pue_source"),
        "times": boundary if of_node is None else of_node["boundary"],
    }


def together(runs: Sequence[RunFigures], key: Literal["node", "facility"]) -> BoundaryEnergy | None:
    """Sum up the energy of the runs' nodes or facilities.

    Bounds are added up, because one meter's error is the same in all runs.

    Returns:
        The sum, with bounds where every run has them; the metered energy of the same runs; and
        ``complete`` if every metered run has such a figure. ``None`` if no run has one.
    """
    having = [run for run in runs if run[key] is not None]
    parts = [part for run in having if (part := run[key]) is not None]
    if not parts:
        return None
    return {
        **_energy(
            key,
            math.fsum(part["energy_j"] for part in parts),
            _all([part["low_j"] for part in parts]),
            _all([part["high_j"] for part in parts]),
        ),
        "metered_j": total(run["energy_j"] for run in having),
        "runs": len(parts),
        "complete": len(parts) == sum(run["energy_j"] is not None for run in runs),
        "basis": _bases(parts, _BASES[key]),
    }


def _energy(
    boundary: str, energy_j: float, low_j: float | None, high_j: float | None
) -> BoundaryEnergy:
    return {
        "boundary": boundary,
        "energy_j": energy_j,
        "energy_wh": wh(energy_j),
        "low_j": low_j,
        "high_j": high_j,
    }


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _bases(parts: Sequence[BoundaryEnergy], names: Sequence[str]) -> list[dict[str, Any]]:
    """List each calibration, or each PUE with its source, once."""
    listed: list[dict[str, Any]] = []
    for part in cast(Sequence[Mapping[str, Any]], parts):
        basis = {name: part[name] for name in names}
        if basis not in listed:
            listed.append(basis)
    return listed


def _all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None
