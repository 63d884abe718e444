"""Emissions: the grams of the windows, and the factors that they were computed with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from greentrain.ledger import RunRow, canonical
from greentrain.report.carbon_figures import CarbonFigures, EmissionFactors, Restated
from greentrain.report.document import EnergyTotals, RunFigures
from greentrain.report.restatement import Restatement
from greentrain.report.row_helpers import basis_of_settings, carbon_settings, number, parse
from greentrain.report.run_windows import RunWindows
from greentrain.report.sums import Sum
from greentrain.units import plural

NO_ZONE = "no zone was given, so no grams are claimed"
NONE_KNOWN = "no window has both a known energy and a known intensity, so no grams are claimed"
NOT_ALL = "not every window has a known energy and intensity, so the grams cover only a part"
KNOWN = (
    "energy of each window{} times its mean intensity; the interval is that of the energy alone, "
    "because the intensity's uncertainty is not known"
)
RESTATED = (
    "restated: the grams are those of the {kind} factors in {file} (SHA-256 {sha256}); the energy "
    "and the PUE are as recorded"
)
WITH_PUE = " times PUE where one was given"


def carbon(
    runs: Sequence[RunFigures], windows: Mapping[str, RunWindows], totals: EnergyTotals
) -> CarbonFigures:
    """Sum up the grams of all windows.

    Args:
        runs: The runs of the report.
        windows: The windows of each run that has any, by its id.
        totals: The totals of the report, whose relative uncertainty the grams share.

    Returns:
        Grams with their interval, the energy that they cover, and the factors. Figures are ``None``
        where nothing is known.
    """
    grams, covered = Sum(), Sum()
    by_basis: dict[str | None, Sum] = defaultdict(Sum)
    replaced: Counter[str] = Counter()
    settings = {run["run_id"]: carbon_settings(run) or {} for run in runs}
    for run_id, run in windows.items():
        grams.join(run.grams)
        covered.join(run.covered)
        for basis, one in run.other_bases.items():
            by_basis[basis].join(one)
        if run.own_basis.known:
            by_basis[basis_of_settings(settings.get(run_id))].join(run.own_basis)
        replaced.update(run.replaced)
    emissions_g, known = grams.total, grams.known
    intensities = _intensities(runs)
    complete = known == totals["windows"] > 0
    return {
        "emissions_g": emissions_g,
        "interval": _interval(emissions_g, totals),
        "complete": complete,
        "covered_j": covered.number,
        "windows": known,
        "by_basis": [
            {"basis": basis, "emissions_g": one.number}
            for basis, one in sorted(by_basis.items(), key=lambda item: item[0] or "")
        ],
        "intensities": intensities,
        "sentence": _sentence(intensities, known, complete=complete) + _fallbacks(replaced),
    }


def restated(
    restatement: Restatement | None,
    kept: Sequence[RunRow],
    windows: Mapping[str, RunWindows],
    totals: EnergyTotals,
) -> Restated | None:
    """Return the factors of a restated report, and the grams before; ``None`` if it is not one.

    Args:
        restatement: The factors.
        kept: The opening rows of the runs as the ledgers hold them.
        windows: The windows of each run that has any, by its id.
        totals: The totals of the report.
    """
    if restatement is None:
        return None
    before, upstream = Sum(), Sum()
    by_basis: dict[str | None, Sum] = defaultdict(Sum)
    bases = {
        row["run_id"]: basis_of_settings(parse(row["environment"], {}).get("carbon"))
        for row in kept
    }
    for run_id, run in windows.items():
        before.join(run.before)
        upstream.join(run.upstream)
        for basis, one in run.before_by_basis.items():
            if one.known:
                by_basis[bases.get(run_id) if basis is True else basis].join(one)
    before_g = before.total if before.known == totals["windows"] > 0 else None
    factors = restatement.as_dict()
    return {
        **factors,
        "before_g": before_g,
        "before_by_basis": [
            {"basis": basis, "emissions_g": one.number}
            for basis, one in sorted(by_basis.items(), key=lambda item: item[0] or "")
        ],
        "upstream_g": upstream.total if upstream.known == totals["windows"] > 0 else None,
        "sentence": RESTATED.format(
            kind=factors["kind"], file=factors["file"], sha256=factors["sha256"]
        ),
    }


def _fallbacks(replaced: Mapping[str, int]) -> str:
    """Return a sentence on the windows whose provider gave no intensity, after another one."""
    if not replaced:
        return ""
    listed = ", ".join(f"{name} in {plural(count, 'window')}" for name, count in replaced.items())
    return f"; where the provider gave no intensity, another was used: {listed}"


def _sentence(intensities: Sequence[EmissionFactors], known: int, *, complete: bool) -> str:
    if known:
        with_pue = any(one["pue"] is not None for one in intensities)
        return KNOWN.format(WITH_PUE if with_pue else "") if complete else NOT_ALL
    return NONE_KNOWN if any(one["intensity"] for one in intensities) else NO_ZONE


def _interval(emissions_g: float | None, totals: EnergyTotals) -> dict[str, float] | None:
    if emissions_g is None or totals["interval"] is None or not totals["energy_j"]:
        return None
    per_j = emissions_g / totals["energy_j"]
    return {
        "low_g": totals["interval"]["low_j"] * per_j,
        "high_g": totals["interval"]["high_j"] * per_j,
    }


def _intensities(runs: Sequence[RunFigures]) -> list[EmissionFactors]:
    """List each set of factors once, with all keys, known or not."""
    listed: dict[str, EmissionFactors] = {}
    for run in runs:
        settings = carbon_settings(run)
        if settings is None:
            continue
        intensity = settings.get("intensity")
        factors: EmissionFactors = {
            "intensity": {
                "source": intensity.get("source"),
                "zone": intensity.get("zone"),
                "data_year": intensity.get("data_year"),
                "signal": intensity.get("signal"),
                "basis": intensity.get("basis"),
            }
            if isinstance(intensity, dict)
            else None,
            "pue": number(settings.get("pue")),
            "pue_source": settings.get("pue_source"),
        }
        listed.setdefault(canonical(factors), factors)
    return list(listed.values())
