"""Lines that stand beside the measured energy: water, making the hardware, and whose scope it is.

Each is worked out from what the user gave, stands by itself, and is added to nothing. What was not
given is unknown, and the line says what to give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from greentrain.report.disclosures import Given
from greentrain.report.row_helpers import Row, Rows, number
from greentrain.units import J_PER_WH

_J_PER_KWH = 1000.0 * J_PER_WH
_S_PER_H = 3600.0
_BY_USER = "given by the user"
_EMBODIED = ("embodied_kg", "embodied_lifetime_h", "embodied_reserved_share")
NO_ENERGY = "no energy is known, so nothing is worked out from it"

SCOPES = {
    "own": (
        "Scope 2",
        "electricity bought for hardware of one's own is Scope 2, reported by both methods (GHG "
        "Protocol Scope 2 Guidance 2015, chapters 5 and 7)",
    ),
    "colocated": (
        "Scope 2 or 3",
        "where the reporting company controls the servers, by the consolidation approach of its "
        "inventory, their electricity is Scope 2; where it does not, Scope 3, category 8 (GHG "
        "Protocol Scope 2 Guidance 2015, chapter 5; Scope 3 Standard 2011, appendix A, on leased "
        "assets)",
    ),
    "cloud": (
        "Scope 3",
        "electricity of a provider's hardware is Scope 3 of its customer: category 1 for a "
        "service bought, category 8 for hardware leased (GHG Protocol Scope 3 Standard 2011, "
        "chapter 5)",
    ),
}
"""Where the electricity belongs by whose the hardware is, and what says so."""
NO_HOSTING = 'give hosting ("own", "colocated" or "cloud"): whose scope it is depends on it'
NO_MARKET = "give market_based_g_per_kwh, the factor of the electricity contract"
NO_WATER = "give water_l_per_kwh, such as the building's WUE"
NO_TIME = "no time was measured, so none of the hardware's life was used"
NO_LOCATION = "no window has grams: give the stream or the callback a zone or an intensity"


def beside(given: Given, runs: Rows, windows: Rows, totals: Row, carbon: Row) -> dict[str, Any]:
    """Work out the lines beside the measured energy.

    Args:
        given: What the user states.
        runs: The runs of the report.
        windows: The windows of the ledger.
        totals: The totals of the report, for the energy.
        carbon: The report's emissions, for the grams by location.

    Returns:
        ``"water"``, ``"embodied"`` and ``"electricity"`` (the emissions of the electricity by
        location and by market, with the scope that they belong to), each with unit, method and
        source; ``None`` for what is unknown, with a sentence of what to give.
    """
    return {
        "water": _water(given, totals),
        "embodied": _embodied(given, windows),
        "electricity": _electricity(given, runs, totals, carbon),
    }


def embodied_g(
    *,
    embodied_kg: float,
    time_s: float,
    embodied_lifetime_h: float,
    embodied_reserved_share: float,
) -> float:
    """Return a share of what making hardware took, in grams of CO2 equivalent.

    ``M = TE * (TiR / EL) * (RR / ToR)``, Software Carbon Intensity specification 1.1 (ISO/IEC
    21031:2024), embodied emissions.

    Args:
        embodied_kg: What making all of the hardware took (TE).
        time_s: How long it was reserved (TiR).
        embodied_lifetime_h: Hours that it is expected to serve (EL).
        embodied_reserved_share: The share of it that was reserved (RR / ToR).

    Example:
        >>> server = {"embodied_kg": 1314.0, "embodied_lifetime_h": 26280.0}  # three years
        >>> round(embodied_g(time_s=7200.0, embodied_reserved_share=0.5, **server), 9)
        50.0
    """
    of_life = time_s / _S_PER_H / embodied_lifetime_h
    return 1000.0 * embodied_kg * of_life * embodied_reserved_share


def time_s(windows: Rows) -> float:
    """Return how long anything was measured: time in which windows overlap counts once.

    Args:
        windows: Windows with ``times``, see :func:`greentrain.report.times.with_times`.
    """
    measured_us, end_us = 0, 0
    for start, end in sorted(span for window in windows for span in window["times"]):
        measured_us += max(0, end - max(start, end_us))
        end_us = max(end_us, end)
    return measured_us / 1e6


def _water(given: Given, totals: Row) -> dict[str, Any]:
    factor, energy_j = given.water_l_per_kwh, totals["energy_j"]
    missing = NO_WATER if factor is None else NO_ENERGY if energy_j is None else None
    return {
        "water_l": None if missing else factor * energy_j / _J_PER_KWH,
        "unit": "l",
        "method": None if missing else "metered energy, times the litres given for each kWh",
        "source": _source(factor, given.water_source),
        "l_per_kwh": factor,
        "sentence": missing,
    }


def _embodied(given: Given, windows: Rows) -> dict[str, Any]:
    held = given.as_dict()
    absent = [name for name in _EMBODIED if held[name] is None]
    missing = f"give {_listed(absent)}" if absent else None if windows else NO_TIME
    reserved_s = None if missing else time_s(windows)
    return {
        "embodied_g": None
        if missing
        else embodied_g(time_s=reserved_s or 0.0, **{name: held[name] for name in _EMBODIED}),
        "unit": "g CO2e",
        "method": None if missing else "SCI, M = TE * (TiR / EL) * (RR / ToR), ISO/IEC 21031:2024",
        "source": _source(given.embodied_kg, given.embodied_source),
        "time_s": reserved_s,
        **{name: held[name] for name in _EMBODIED},
        "sentence": missing,
    }


def _electricity(given: Given, runs: Rows, totals: Row, carbon: Row) -> dict[str, Any]:
    scope, sentence = (None, NO_HOSTING) if given.hosting is None else SCOPES[given.hosting]
    return {
        "hosting": given.hosting,
        "scope": scope,
        "sentence": sentence,
        "location_based": _by_location(carbon),
        "market_based": _by_market(given, runs, totals),
    }


def _by_location(carbon: Row) -> dict[str, Any]:
    missing = NO_LOCATION if carbon["emissions_g"] is None else None
    sources = [
        str(one["intensity"].get("source"))
        for one in carbon["intensities"]
        if isinstance(one.get("intensity"), dict)
    ]
    return {
        "emissions_g": carbon["emissions_g"],
        "unit": "g CO2e",
        "method": None
        if missing
        else "energy of each window, times PUE where one was given, "
        "times the grid's mean intensity",
        "source": None if missing or not sources else _listed(list(dict.fromkeys(sources))),
        "complete": carbon["complete"],
        "covered_j": carbon["covered_j"],
        "sentence": missing,
    }


def _by_market(given: Given, runs: Rows, totals: Row) -> dict[str, Any]:
    factor, energy_j = given.market_based_g_per_kwh, totals["energy_j"]
    missing = NO_MARKET if factor is None else NO_ENERGY if energy_j is None else None
    return {
        "emissions_g": None if missing else factor * energy_j * _mean_pue(runs) / _J_PER_KWH,
        "unit": "g CO2e",
        "method": None
        if missing
        else "metered energy, times PUE where one was given, times the factor of the contract",
        "source": _source(factor, given.market_based_source),
        "complete": missing is None and totals["complete"],
        "covered_j": None if missing else energy_j,
        "g_per_kwh": factor,
        "sentence": missing,
    }


def _mean_pue(runs: Rows) -> float:
    """Return the runs' mean PUE by their energy, as the grams by location have it in them."""
    metered = [(run["energy_j"] or 0.0, _pue(run)) for run in runs]
    metered_j = math.fsum(energy_j for energy_j, _ in metered)
    if not metered_j:
        return 1.0
    return math.fsum(energy_j * pue for energy_j, pue in metered) / metered_j


def _pue(run: Row) -> float:
    told = run["environment"].get("carbon")
    return (number(told.get("pue")) if isinstance(told, dict) else None) or 1.0


def _source(value: float | None, source: str | None) -> str | None:
    return None if value is None else source or _BY_USER


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:-2], " and ".join(names[-2:])])
