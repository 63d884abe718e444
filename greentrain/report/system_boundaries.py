"""Wider boundaries than the metered one: the node by its wall meter, the facility by its PUE.

Both are worked out from what was metered, stand beside it, and are never folded into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from greentrain.report.row_helpers import Row, number, total
from greentrain.units import wh

CONTRADICTION = (
    "the wall showed less than what was metered, although the node draws all of it: check units, "
    "clocks and what is metered"
)


def node(run: Row, calibration: Row | None) -> dict[str, Any] | None:
    """Return a run's energy as its node's wall meter sees it; ``None`` without a calibration.

    A factor holds for the boundary that it was found with; a run within another one has no figure.

    Args:
        run: A run of the report, with its ``energy_j``.
        calibration: The run's last row of kind ``"calibration"``.
    """
    if calibration is None or calibration["boundary"] not in (None, run["boundary"]):
        return None
    factor = number(calibration["factor"])
    if factor is None or run["energy_j"] is None:
        return None
    low, high = number(calibration["low"]), number(calibration["high"])
    energy_j = factor * run["energy_j"]
    return {
        "boundary": "node",
        "energy_j": energy_j,
        "energy_wh": wh(energy_j),
        "low_j": None if low is None else low * run["energy_j"],
        "high_j": None if high is None else high * run["energy_j"],
        "factor": factor,
        "factor_low": low,
        "factor_high": high,
        "spans": calibration["spans"],
        "compared_software_j": number(calibration["software_j"]),
        "compared_wall_j": number(calibration["wall_j"]),
        "wall": calibration["wall"] or None,
        "note": CONTRADICTION if factor < 1 else None,
    }


def facility(run: Row) -> dict[str, Any] | None:
    """Return a run's energy times its PUE; ``None`` where no PUE was given.

    Args:
        run: A run of the report, with its ``energy_j``, ``boundary``, ``environment``, ``node``.
    """
    told = run["environment"].get("carbon")
    pue = number(told.get("pue")) if isinstance(told, dict) else None
    within = run["node"] or run
    if pue is None or within["energy_j"] is None:
        return None
    low_j, high_j = (within.get(bound) for bound in ("low_j", "high_j"))
    return {
        "boundary": "facility",
        "energy_j": pue * within["energy_j"],
        "energy_wh": wh(pue * within["energy_j"]),
        "low_j": None if low_j is None else pue * low_j,
        "high_j": None if high_j is None else pue * high_j,
        "pue": pue,
        "pue_source": told.get("pue_source"),
        "times": within["boundary"],
    }


def together(runs: Sequence[Row], key: str) -> dict[str, Any] | None:
    """Sum up the runs' ``"node"`` or ``"facility"`` figures; ``None`` if no run has one.

    Returns:
        The sum, with bounds where every part has them (added up, as one meter's error is the same
        in all of them), what the same runs were metered at, and whether every run that was metered
        has such a figure.
    """
    with_one = [run for run in runs if run[key] is not None]
    if not with_one:
        return None
    energy_j = math.fsum(run[key]["energy_j"] for run in with_one)
    return {
        "boundary": key,
        "energy_j": energy_j,
        "energy_wh": wh(energy_j),
        **{bound: _all([run[key][bound] for run in with_one]) for bound in ("low_j", "high_j")},
        "metered_j": total(run["energy_j"] for run in with_one),
        "runs": len(with_one),
        "complete": len(with_one) == sum(run["energy_j"] is not None for run in runs),
        "basis": _bases(with_one, key),
    }


def _bases(runs: Sequence[Row], key: str) -> list[dict[str, Any]]:
    """List each calibration, or each PUE with its source, once."""
    names = {
        "node": ("factor", "factor_low", "factor_high", "spans", "wall", "note"),
        "facility": ("pue", "pue_source", "times"),
    }[key]
    listed: list[dict[str, Any]] = []
    for run in runs:
        basis = {name: run[key][name] for name in names}
        if basis not in listed:
            listed.append(basis)
    return listed


def _all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None
