"""Emissions: the grams that the windows carry, and how they came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from greentrain.ledger import canonical
from greentrain.report.row_helpers import Row, Rows, number, total

NO_ZONE = "no zone was given, so no grams are claimed"
NONE_KNOWN = "no window has both a known energy and a known intensity, so no grams are claimed"
NOT_ALL = "not every window has a known energy and intensity, so the grams are those of a part"
KNOWN = (
    "energy of each window times PUE times its mean intensity; the intensity's own uncertainty is "
    "not known, and the interval is that of the energy alone"
)

_PROVENANCE = ("source", "zone", "data_year", "signal", "basis")


def carbon(runs: Sequence[Row], windows: Rows, totals: Row) -> dict[str, Any]:
    """Sum up the grams of all windows.

    Args:
        runs: The runs of the report, parsed.
        windows: The windows of the ledger.
        totals: The totals of the report, for the share of the energy's uncertainty.

    Returns:
        Grams with the interval that the energy's uncertainty gives them, the energy that they stand
        for, and where the intensities come from; ``None`` where nothing is known.
    """
    known = [row for row in windows if row["emissions_g"] is not None]
    emissions_g = total(row["emissions_g"] for row in known)
    intensities = _intensities(runs)
    covered_j = math.fsum(row["energy_j"] for row in known)
    complete = len(known) == len(windows) and bool(windows)
    return {
        "emissions_g": emissions_g,
        "interval": _interval(emissions_g, totals),
        "complete": complete,
        "covered_j": covered_j,
        "windows": len(known),
        "intensities": intensities,
        "sentence": _sentence(intensities, len(known), complete=complete),
    }


def _sentence(intensities: Sequence[Row], known: int, *, complete: bool) -> str:
    if known:
        return KNOWN if complete else NOT_ALL
    return NONE_KNOWN if any(one.get("intensity") for one in intensities) else NO_ZONE


def _interval(emissions_g: float | None, totals: Row) -> dict[str, float] | None:
    if emissions_g is None or totals["interval"] is None or not totals["energy_j"]:
        return None
    per_j = emissions_g / totals["energy_j"]
    return {
        "low_g": totals["interval"]["low_j"] * per_j,
        "high_g": totals["interval"]["high_j"] * per_j,
    }


def _intensities(runs: Sequence[Row]) -> list[dict[str, Any]]:
    """List each way in which a run's grams came about once, with all keys, known or not."""
    listed: dict[str, dict[str, Any]] = {}
    for run in runs:
        told = run["environment"].get("carbon")
        if isinstance(told, dict):
            intensity = told.get("intensity")
            held = {
                "intensity": {key: intensity.get(key) for key in _PROVENANCE}
                if isinstance(intensity, dict)
                else None,
                "pue": number(told.get("pue")),
                "pue_source": told.get("pue_source"),
            }
            listed.setdefault(canonical(held), held)
    return list(listed.values())
