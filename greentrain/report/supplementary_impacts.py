"""Supplementary impacts: water, embodied emissions, and electricity by location and by market.

Each is computed from the user's disclosures, is reported separately, and is added to no other
figure. Without its disclosure a line is ``None`` and names what to give.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from greentrain.report.carbon_figures import (
    CarbonFigures,
    Electricity,
    Impact,
    SupplementaryImpacts,
)
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import EnergyTotals, RunFigures
from greentrain.report.row_helpers import Span, mean_pue
from greentrain.report.run_windows import RunWindows, merged
from greentrain.report.sums import Sum
from greentrain.report.times import length
from greentrain.units import J_PER_WH

_J_PER_KWH = 1000.0 * J_PER_WH
_S_PER_H = 3600.0
_BY_USER = "given by the user"
NO_ENERGY = "no energy is known, so nothing can be computed from it"

SCOPES = {
    "own": (
        "Scope 2",
        "electricity bought for the company's own hardware is Scope 2, reported by both methods "
        "(GHG Protocol Scope 2 Guidance 2015, chapters 5 and 7)",
    ),
    "colocated": (
        "Scope 2 or 3",
        "the consolidation approach of the company's inventory decides: electricity of servers "
        "that the reporting company controls is Scope 2. Other servers are Scope 3, category 8 "
        "(GHG Protocol Scope 2 Guidance 2015, chapter 5; Scope 3 Standard 2011, appendix A)",
    ),
    "cloud": (
        "Scope 3",
        "electricity of a provider's hardware is Scope 3 of its customer: category 1 for a "
        "service bought, category 8 for hardware leased (GHG Protocol Scope 3 Standard 2011, "
        "chapter 5)",
    ),
}
"""Scope of the electricity by the hosting of the hardware, with the rule that it follows."""
NO_HOSTING = 'give hosting ("own", "colocated" or "cloud"): the scope depends on it'
RECORDED = (
    "energy of each window, times PUE where one was given, times the market-based intensity that "
    "was recorded with it"
)
NO_MARKET = "give market_based_g_per_kwh, the factor of the electricity contract"
NO_WATER = "give water_l_per_kwh, such as the building's WUE"
NO_TIME = "no time was measured, so no share of the hardware's life was used"
NO_LOCATION = "no window has grams: give the stream or the callback a zone or an intensity"


def supplementary_impacts(
    disclosures: Disclosures,
    runs: Sequence[RunFigures],
    windows: Collection[RunWindows],
    totals: EnergyTotals,
    carbon: CarbonFigures,
) -> SupplementaryImpacts:
    """Compute the supplementary impacts.

    Args:
        disclosures: The user's disclosures.
        runs: The runs of the report.
        windows: The windows of each run that has any.
        totals: The totals of the report, for the energy.
        carbon: The report's emissions, for the grams by location.

    Returns:
        Each impact with unit, method and source; or ``None`` with a sentence that names what to
        give.
    """
    return {
        "water": _water(disclosures, totals),
        "embodied": _embodied(disclosures, windows),
        "electricity": _electricity(disclosures, runs, windows, totals, carbon),
    }


def embodied_g(
    *,
    embodied_kg: float,
    time_s: float,
    embodied_lifetime_h: float,
    embodied_reserved_share: float,
) -> float:
    """Return a share of the hardware's embodied emissions, in grams of CO2 equivalent.

    ``M = TE * (TiR / EL) * (RR / ToR)``, Software Carbon Intensity specification 1.1 (ISO/IEC
    21031:2024), embodied emissions.

    Args:
        embodied_kg: Impact emissions of all of the hardware (TE).
        time_s: Time for which it was reserved (TiR).
        embodied_lifetime_h: Expected lifetime in hours (EL).
        embodied_reserved_share: Share of the hardware that was reserved (RR / ToR).

    Example:
        >>> server = {"embodied_kg": 1314.0, "embodied_lifetime_h": 26280.0}  # three years
        >>> round(embodied_g(time_s=7200.0, embodied_reserved_share=0.5, **server), 9)
        50.0
    """
    of_life = time_s / _S_PER_H / embodied_lifetime_h
    return 1000.0 * embodied_kg * of_life * embodied_reserved_share


def time_s(spans: Iterable[Span]) -> float:
    """Return the time in which anything was measured; spans that overlap count once."""
    return length(merged(spans)) / 1e6


def _water(disclosures: Disclosures, totals: EnergyTotals) -> Impact:
    factor, energy_j = disclosures.water_l_per_kwh, totals["energy_j"]
    litres = None
    if factor is not None and energy_j is not None:
        litres = factor * energy_j / _J_PER_KWH
    return {
        "water_l": litres,
        "unit": "l",
        "method": None
        if litres is None
        else "energy of the sources, times the litres given for each kWh",
        "source": _source(factor, disclosures.water_source),
        "l_per_kwh": factor,
        "sentence": NO_WATER if factor is None else NO_ENERGY if energy_j is None else None,
    }


def _embodied(disclosures: Disclosures, windows: Collection[RunWindows]) -> Impact:
    kg, lifetime_h, share = (
        disclosures.embodied_kg,
        disclosures.embodied_lifetime_h,
        disclosures.embodied_reserved_share,
    )
    given = {
        "embodied_kg": kg,
        "embodied_lifetime_h": lifetime_h,
        "embodied_reserved_share": share,
    }
    absent = [name for name, value in given.items() if value is None]
    missing = f"give {_listed(absent)}" if absent else None if windows else NO_TIME
    reserved_s = None if missing else time_s(span for run in windows for span in run.spans)
    grams = None
    if kg is not None and lifetime_h is not None and share is not None and reserved_s is not None:
        grams = embodied_g(
            embodied_kg=kg,
            time_s=reserved_s,
            embodied_lifetime_h=lifetime_h,
            embodied_reserved_share=share,
        )
    return {
        "embodied_g": grams,
        "unit": "g CO2e",
        "method": None if missing else "SCI, M = TE * (TiR / EL) * (RR / ToR), ISO/IEC 21031:2024",
        "source": _source(kg, disclosures.embodied_source),
        "time_s": reserved_s,
        "embodied_kg": kg,
        "embodied_lifetime_h": lifetime_h,
        "embodied_reserved_share": share,
        "sentence": missing,
    }


def _electricity(
    disclosures: Disclosures,
    runs: Sequence[RunFigures],
    windows: Collection[RunWindows],
    totals: EnergyTotals,
    carbon: CarbonFigures,
) -> Electricity:
    hosting = disclosures.hosting
    scope, sentence = (None, NO_HOSTING) if hosting is None else SCOPES[hosting]
    return {
        "hosting": hosting,
        "scope": scope,
        "sentence": sentence,
        "location_based": _by_location(carbon),
        "market_based": _by_market(disclosures, runs, windows, totals),
    }


def _by_location(carbon: CarbonFigures) -> Impact:
    missing = NO_LOCATION if carbon["emissions_g"] is None else None
    sources = [str(one["intensity"]["source"]) for one in carbon["intensities"] if one["intensity"]]
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


def _by_market(
    disclosures: Disclosures,
    runs: Sequence[RunFigures],
    windows: Collection[RunWindows],
    totals: EnergyTotals,
) -> Impact:
    """Return the grams by the factor that is given now, or else by those that were recorded."""
    factor, energy_j = disclosures.market_based_g_per_kwh, totals["energy_j"]
    recorded = Sum()
    for run in windows:
        recorded.join(run.by_market)
    if factor is None and recorded.known and energy_j is not None:
        return {
            "emissions_g": recorded.number,
            "unit": "g CO2e",
            "method": RECORDED,
            "source": disclosures.market_based_source or _BY_USER,
            "complete": recorded.known == totals["windows"] and totals["complete"],
            "covered_j": None,
            "g_per_kwh": None,
            "sentence": None,
        }
    grams = None
    if factor is not None and energy_j is not None:
        grams = factor * energy_j * mean_pue(runs) / _J_PER_KWH
    return {
        "emissions_g": grams,
        "unit": "g CO2e",
        "method": None
        if grams is None
        else "energy of the sources, times PUE where one was given, "
        "times the factor of the contract",
        "source": _source(factor, disclosures.market_based_source),
        "complete": grams is not None and totals["complete"],
        "covered_j": None if grams is None else energy_j,
        "g_per_kwh": factor,
        "sentence": NO_MARKET if factor is None else NO_ENERGY if energy_j is None else None,
    }


def _source(value: float | None, source: str | None) -> str | None:
    return None if value is None else source or _BY_USER


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:-2], " and ".join(names[-2:])])
