"""Avoided energy: the modelled difference to always retraining in full.

The figure is a counterfactual. It is reported separately and subtracted from no other figure. It is
based on the cost model's prediction of a full retraining at each experience. For measured
comparisons see :mod:`greentrain.report.baseline_retrainings`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from greentrain.control import UpdateMode
from greentrain.ledger import DecisionRow
from greentrain.report.baseline_retrainings import measured
from greentrain.report.document import EnergyInterval, ExperienceEntry, RunFigures
from greentrain.report.energy_totals import interval
from greentrain.report.experiences import is_baseline
from greentrain.report.row_helpers import (
    MeasuredWindow,
    ReportRows,
    carbon_settings,
    grouped,
    number,
    parse,
    total,
)
from greentrain.report.sources import IDLE
from greentrain.units import J_PER_WH, wh

REPLICATES = 2000
SEED = 0
FEWEST = 5
"""Experiences below which a bootstrap has too few samples for an interval."""

HOW = (
    "modelled: the cost model's prediction of retraining in full at each decision, minus the "
    "energy that the same runs used. Where full retraining was done, its measured energy replaces "
    "the prediction. The energy used includes probes, calibration, baseline retrainings and "
    "interrupted updates"
)
INTERVAL = (
    f"the middle 95 % of {REPLICATES} bootstrap samples of the experiences (Efron & Tibshirani "
    "1993, section 13.3). Each sample has one error of the cost model, by its standard deviation, "
    "shared by all predictions. The meters' own error is on both sides and is not included"
)
NO_DECISION = "this report holds no decisions of a stream, so there is nothing to compare with"
NONE_KNOWN = "no decision holds a prediction of the energy of retraining in full"
TOO_FEW = f"fewer than {FEWEST} experiences can be compared, so no interval is claimed"
NOT_SIGNIFICANT = "not significant: the interval contains zero"
LESS = "significant: the whole interval is above zero"
MORE = "significant: the whole interval is below zero, so always retraining would have used less"
NO_INTENSITY = "no grams are claimed: not every window of these runs has a known carbon intensity"
DEFAULT_INTENSITY = (
    "no grams are claimed: the carbon intensity is, or may be, one value for a whole year, which "
    "says nothing about the hours in which energy was avoided"
)
NOTHING_SHIFTED = "nothing was shifted: no run was moved to another time for its carbon intensity"
_UNKNOWN_ENERGY = dict.fromkeys(
    (
        "method",
        "avoided_j",
        "avoided_wh",
        "modelled_full_j",
        "model_sd_j",
        "used_j",
        "overhead_j",
        "interval",
        "significant",
    )
)
_UNKNOWN_GRAMS = dict.fromkeys(("avoided_g", "low_g", "high_g", "g_per_kwh"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelledPair:
    """The energy of an experience, and the energy that retraining in full would have used."""

    used_j: float
    full_j: float
    sd_j: float


def avoided(
    rows: ReportRows, experiences: Sequence[ExperienceEntry], runs: Sequence[RunFigures]
) -> dict[str, Any]:
    """Compute the avoided energy and, where possible, the avoided carbon.

    Args:
        rows: The ledger's rows by kind; without baseline retrainings, its decisions are in the
            order of ``experiences``.
        experiences: The experiences of the report.
        runs: The runs of the report.

    Returns:
        ``"energy"`` avoided against always retraining in full; ``"measured"``, the comparison with
        baseline retrainings; the ``"carbon"`` of the avoided energy; and the carbon ``"shifted"``
        in time.
    """
    decisions = [row for row in rows["decision"] if not is_baseline(row)]
    deciding = {one["run_id"] for one in experiences if not one["shadow"]}
    windows = [window for window in rows["window"] if window["run_id"] in deciding]
    energy = _energy(decisions, windows, experiences)
    return {
        "energy": energy,
        "measured": measured(rows, runs),
        "carbon": _carbon(energy, windows, [run for run in runs if run["run_id"] in deciding]),
        "shifted": {"shifted_g": None, "sentence": NOTHING_SHIFTED},
    }


def interval_j(
    differences_j: Sequence[float], sds_j: Sequence[float], overhead_j: float
) -> tuple[float, float]:
    """Return the bootstrap interval of the sum of differences, minus an overhead.

    Args:
        differences_j: For each experience, the joules of retraining in full minus those used.
        sds_j: Standard deviation of each prediction among them. One error is shared by all, because
            they come from one model.
        overhead_j: Joules that are subtracted from every sample.

    Returns:
        Lower and upper bound in joules, to six digits: sums of two machines, which may differ in
        their last bits, give the same bounds.

    Example:
        >>> interval_j([10.0] * 5, [0.0] * 5, 8.0)
        (42.0, 42.0)
    """
    count = len(differences_j)
    values, sds = np.asarray(differences_j, float), np.asarray(sds_j, float)
    # Only uniform numbers are sampled: NumPy may change how it derives others from them.
    random = np.random.default_rng(SEED)
    normal = NormalDist()
    sums = np.empty(REPLICATES)
    for replicate in range(REPLICATES):
        sample = (random.random(count) * count).astype(int)
        error = normal.inv_cdf(min(max(random.random(), 1e-12), 1 - 1e-12))
        sums[replicate] = values[sample].sum() + error * sds[sample].sum() - overhead_j
    low, high = np.quantile(sums, (0.025, 0.975))
    return float(f"{low:.6g}"), float(f"{high:.6g}")


def _energy(
    decisions: Sequence[DecisionRow],
    windows: Sequence[MeasuredWindow],
    experiences: Sequence[ExperienceEntry],
) -> dict[str, Any]:
    pairs, interrupted, unknown, left_out = [], [], Counter[str](), []
    for decision, one in zip(decisions, experiences, strict=True):
        if one["shadow"]:  # another job trained in an unknown way, so nothing was avoided here
            continue
        full = _full(decision, one)
        if one["status"] != "done":
            interrupted.append(one["energy_j"])
        elif full is None or one["energy_j"] is None:
            unknown[one["reason"] if full is None else "energy unknown"] += 1
            left_out.append(one["energy_j"])
        else:
            pairs.append(_ModelledPair(used_j=one["energy_j"], full_j=full[0], sd_j=full[1]))
    # The energy of a killed update belongs to no finished experience.
    overhead_j = math.fsum(
        [*(joules or 0.0 for joules in interrupted), _unattributed_j(windows, experiences)]
    )
    known = {
        "against": "retraining in full at every experience",
        "experiences": len(pairs),
        "interrupted": len(interrupted),
        "without_prediction": dict(sorted(unknown.items())),
        "left_out_j": total(left_out),
        "how": HOW,
    }
    if not pairs:
        decided = any(not one["shadow"] for one in experiences)
        return {**known, **_UNKNOWN_ENERGY, "sentence": NONE_KNOWN if decided else NO_DECISION}
    full_j = math.fsum(pair.full_j for pair in pairs)
    used_j = math.fsum([*(pair.used_j for pair in pairs), overhead_j])
    spread = _interval(pairs, overhead_j)
    sentence = _judged(spread)
    return {
        **known,
        "method": "modelled",
        "avoided_j": full_j - used_j,
        "avoided_wh": wh(full_j - used_j),
        "modelled_full_j": full_j,
        "model_sd_j": math.fsum(pair.sd_j for pair in pairs),
        "used_j": used_j,
        "overhead_j": overhead_j,
        "interval": None
        if spread is None
        else {**spread, "how": INTERVAL, "replicates": REPLICATES, "seed": SEED},
        "significant": sentence in (LESS, MORE),
        "sentence": sentence,
    }


def _judged(spread: EnergyInterval | None) -> str:
    if spread is None:
        return TOO_FEW
    if spread["low_j"] > 0:
        return LESS
    return MORE if spread["high_j"] < 0 else NOT_SIGNIFICANT


def _full(decision: DecisionRow, one: ExperienceEntry) -> tuple[float, float] | None:
    """Return joules and standard deviation of retraining in full; ``None`` if not predicted."""
    full = (UpdateMode.FULL_RETRAIN, 1.0)
    finished = one["status"] == "done" and one["steps"] == one["planned_steps"]
    measured_j = one["update_energy_j"]
    if (one["update_mode"], one["step_fraction"]) == full and finished and measured_j is not None:
        return measured_j, 0.0
    for option in parse(decision["alternatives"], []):
        if (
            isinstance(option, dict)
            and (option.get("update_mode"), option.get("step_fraction")) == full
        ):
            mean_j, sd_j = number(option.get("predicted_j")), number(option.get("cost_sd_j"))
            return None if mean_j is None or sd_j is None else (mean_j, sd_j)
    return None


def _unattributed_j(
    windows: Sequence[MeasuredWindow], experiences: Sequence[ExperienceEntry]
) -> float:
    """Return joules that deciding runs used outside any experience, such as unfinished probes."""
    metered = grouped(
        (window for window in windows if window["phase"] != IDLE), lambda window: window["run_id"]
    )
    attributed = grouped(
        (one for one in experiences if not one["shadow"]), lambda one: one["run_id"]
    )
    return math.fsum(
        max(0.0, _sum_j(metered[run_id]) - _sum_j(of_run)) for run_id, of_run in attributed.items()
    )


def _sum_j(measured: Sequence[MeasuredWindow] | Sequence[ExperienceEntry]) -> float:
    return math.fsum(one["energy_j"] or 0.0 for one in measured)


def _interval(pairs: Sequence[_ModelledPair], overhead_j: float) -> EnergyInterval | None:
    if len(pairs) < FEWEST:
        return None
    differences_j = [pair.full_j - pair.used_j for pair in pairs]
    return interval(*interval_j(differences_j, [pair.sd_j for pair in pairs], overhead_j))


def _carbon(
    energy: Mapping[str, Any], windows: Sequence[MeasuredWindow], runs: Sequence[RunFigures]
) -> dict[str, Any]:
    """Return the grams of the avoided energy, at the mean intensity of the runs' own energy."""
    if energy["avoided_j"] is None:
        return {**_UNKNOWN_GRAMS, "sentence": energy["sentence"]}
    known = [window for window in windows if window["emissions_g"] is not None]
    used_j = _sum_j(known)
    if not used_j or any(window["intensity_g_per_kwh"] is None for window in windows):
        return {**_UNKNOWN_GRAMS, "sentence": NO_INTENSITY}
    if any(_is_default(run) for run in runs):
        return {**_UNKNOWN_GRAMS, "sentence": DEFAULT_INTENSITY}
    g_per_j = math.fsum(window["emissions_g"] or 0.0 for window in known) / used_j
    g_per_kwh = g_per_j * 1000.0 * J_PER_WH
    spread = energy["interval"]
    return {
        "avoided_g": energy["avoided_j"] * g_per_j,
        "low_g": None if spread is None else spread["low_j"] * g_per_j,
        "high_g": None if spread is None else spread["high_j"] * g_per_j,
        "g_per_kwh": g_per_kwh,
        "sentence": (
            f"the avoided energy at {g_per_kwh:.4g} g/kWh, the mean intensity of these runs' "
            "energy, with PUE where one was given"
        ),
    }


def _is_default(run: RunFigures) -> bool:
    """Return whether a run's intensity is one value for a year, or may be."""
    intensity = (carbon_settings(run) or {}).get("intensity")
    return not isinstance(intensity, dict) or intensity.get("data_year") is not None
