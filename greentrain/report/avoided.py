"""What was not drawn: energy against always retraining in full, a counterfactual that says so.

It stands apart and is taken off nothing. Nobody measured what did not happen: it is modelled, from
what the cost model predicted of a full retraining of each experience when it was decided about.
What controls measured stands beside it: see :mod:`greentrain.report.baseline_retrainings`.
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
from greentrain.report.baseline_retrainings import is_control, measured
from greentrain.report.row_helpers import Row, Rows, number, parse, total
from greentrain.report.sources import IDLE
from greentrain.units import J_PER_WH, wh

REPLICATES = 2000
SEED = 0
FEWEST = 5
"""Experiences below which a bootstrap says nothing: too few to draw again from."""

HOW = (
    "modelled: what the cost model predicted of retraining in full, at each decision, with what "
    "was known then; where that is what was done, what it drew; less everything that the same "
    "runs drew, looks at the data, calibration, controls and interrupted updates "
    "included"
)
INTERVAL = (
    f"the middle 95 % of {REPLICATES} bootstrap samples of the experiences (Efron & Tibshirani "
    "1993, section 13.3), each with one error of the cost model, by its standard deviation, shared "
    "by all predictions; the meters' own error, which both sides share, is not in it"
)
NO_DECISION = "no stream's decisions are in this report, so there is nothing to compare with"
NONE_KNOWN = "no decision's alternatives hold what retraining in full was predicted to draw"
TOO_FEW = f"fewer than {FEWEST} experiences can be compared, so no interval is claimed"
NOT_SIGNIFICANT = "not significant: the interval contains zero"
LESS = "significant: all of the interval is above zero"
MORE = "significant: all of the interval is below zero, so more was drawn than always retraining"
NO_INTENSITY = "no grams are claimed: not every window of these runs has a known carbon intensity"
DEFAULT_INTENSITY = (
    "no grams are claimed: the carbon intensity is one value for a whole year, or may be, which "
    "says nothing about the hours in which nothing was drawn"
)
NOTHING_SHIFTED = "nothing was shifted: no run was moved to another time for its carbon intensity"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """An experience: what it drew, and what retraining in full would have drawn."""

    drawn_j: float
    full_j: float
    sd_j: float


def avoided(rows: Mapping[str, Rows], experiences: Rows, runs: Rows) -> dict[str, Any]:
    """Work out what was avoided, in energy and, where that can be said, in carbon.

    Args:
        rows: The ledger's rows by kind; the decisions, but for controls, in the order of
            ``experiences``.
        experiences: The experiences of the report.
        runs: The runs of the report.

    Returns:
        ``"energy"`` avoided against always retraining in full, what controls ``"measured"`` of the
        same, if there were any, the ``"carbon"`` that the energy stands for, and apart from all
        that the carbon ``"shifted"`` in time.
    """
    stream = {**rows, "decision": [row for row in rows["decision"] if not is_control(row)]}
    energy = _energy(stream, experiences)
    deciding = {one["run_id"] for one in experiences if not one["advice"]}
    return {
        "energy": energy,
        "measured": measured(rows, runs),
        "carbon": _carbon(
            energy,
            [window for window in rows["window"] if window["run_id"] in deciding],
            [run for run in runs if run["run_id"] in deciding],
        ),
        "shifted": {"shifted_g": None, "sentence": NOTHING_SHIFTED},
    }


def interval_j(
    differences_j: Sequence[float], sds_j: Sequence[float], charged_j: float
) -> tuple[float, float]:
    """Return the bootstrap interval of the sum of differences, less what is charged to it.

    Args:
        differences_j: For each experience, what would have been drawn less what was, in joules.
        sds_j: Standard deviation of each prediction among them; one error is shared by all, as they
            come from one model.
        charged_j: Joules that are taken off every sample alike.

    Returns:
        Lower and upper bound in joules, to six digits: sums that differ in their last bits, as
        those of two machines may, give the same bounds.

    Example:
        >>> interval_j([10.0] * 5, [0.0] * 5, 8.0)
        (42.0, 42.0)
    """
    count = len(differences_j)
    values, sds = np.asarray(differences_j, float), np.asarray(sds_j, float)
    # Only plain uniform numbers are drawn: how others are made of them may change with NumPy.
    random = np.random.default_rng(SEED)
    normal = NormalDist()
    sums = np.empty(REPLICATES)
    for replicate in range(REPLICATES):
        drawn = (random.random(count) * count).astype(int)
        error = normal.inv_cdf(min(max(random.random(), 1e-12), 1 - 1e-12))
        sums[replicate] = values[drawn].sum() + error * sds[drawn].sum() - charged_j
    low, high = np.quantile(sums, (0.025, 0.975))
    return float(f"{low:.6g}"), float(f"{high:.6g}")


def _energy(rows: Mapping[str, Rows], experiences: Rows) -> dict[str, Any]:
    pairs, interrupted, unknown, left_out = [], [], Counter[str](), []
    for decision, one in zip(rows["decision"], experiences, strict=True):
        if one["advice"]:  # another job trained, and who knows how: nothing was avoided here
            continue
        full = _full(decision, one)
        if one["status"] != "done":
            interrupted.append(one["energy_j"])
        elif full is None or one["energy_j"] is None:
            unknown[one["reason"] if full is None else "energy unknown"] += 1
            left_out.append(one["energy_j"])
        else:
            pairs.append(_Pair(drawn_j=one["energy_j"], full_j=full[0], sd_j=full[1]))
    # A killed update drew for nothing, and belongs to no experience that came to an end.
    charged_j = math.fsum(
        [*(joules or 0.0 for joules in interrupted), _beside_j(rows, experiences)]
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
        decided = [one for one in experiences if not one["advice"]]
        sentence = NONE_KNOWN if decided else NO_DECISION
        return {**_unknown_energy(sentence), **known}
    full_j = math.fsum(pair.full_j for pair in pairs)
    drawn_j = math.fsum([*(pair.drawn_j for pair in pairs), charged_j])
    interval = _interval(pairs, charged_j)
    sentence = _judged(interval)
    return {
        **known,
        "method": "modelled",
        "avoided_j": full_j - drawn_j,
        "avoided_wh": wh(full_j - drawn_j),
        "modelled_full_j": full_j,
        "model_sd_j": math.fsum(pair.sd_j for pair in pairs),
        "drawn_j": drawn_j,
        "charged_beside_j": charged_j,
        "interval": interval,
        "significant": sentence in (LESS, MORE),
        "sentence": sentence,
    }


def _judged(interval: Row | None) -> str:
    if interval is None:
        return TOO_FEW
    if interval["low_j"] > 0:
        return LESS
    return MORE if interval["high_j"] < 0 else NOT_SIGNIFICANT


def _unknown_energy(sentence: str) -> dict[str, Any]:
    names = (
        "method",
        "avoided_j",
        "avoided_wh",
        "modelled_full_j",
        "model_sd_j",
        "drawn_j",
        "charged_beside_j",
        "interval",
        "significant",
    )
    return {**dict.fromkeys(names), "sentence": sentence}


def _full(decision: Row, one: Row) -> tuple[float, float] | None:
    """Return joules and standard deviation of retraining in full; ``None`` where nobody said."""
    full = (UpdateMode.FULL_RETRAIN, 1.0)
    finished = one["status"] == "done" and one["steps"] == one["planned_steps"]
    if (one["update_mode"], one["step_fraction"]) == full and finished:
        measured_j = one["update_energy_j"]
        if measured_j is not None:
            return measured_j, 0.0
    for offer in parse(decision["alternatives"], []):
        if (
            isinstance(offer, dict)
            and (offer.get("update_mode"), offer.get("step_fraction")) == full
        ):
            mean_j, sd_j = number(offer.get("predicted_j")), number(offer.get("cost_sd_j"))
            return None if mean_j is None or sd_j is None else (mean_j, sd_j)
    return None


def _beside_j(rows: Mapping[str, Rows], experiences: Rows) -> float:
    """Joules that deciding runs drew, and no experience of them has: looks that were cut short."""
    attributed: dict[str, list[float]] = {}
    for one in (one for one in experiences if not one["advice"]):
        attributed.setdefault(one["run_id"], []).append(one["energy_j"] or 0.0)
    metered: dict[str, list[float]] = {run_id: [] for run_id in attributed}
    for window in rows["window"]:
        if window["run_id"] in metered and window["phase"] != IDLE:
            metered[window["run_id"]].append(window["energy_j"] or 0.0)
    return math.fsum(
        max(0.0, math.fsum(metered[run_id]) - math.fsum(attributed[run_id])) for run_id in metered
    )


def _interval(pairs: Sequence[_Pair], charged_j: float) -> dict[str, Any] | None:
    if len(pairs) < FEWEST:
        return None
    low_j, high_j = interval_j(
        [pair.full_j - pair.drawn_j for pair in pairs], [pair.sd_j for pair in pairs], charged_j
    )
    return {
        "coverage": 0.95,
        "low_j": low_j,
        "high_j": high_j,
        "low_wh": wh(low_j),
        "high_wh": wh(high_j),
        "how": INTERVAL,
        "replicates": REPLICATES,
        "seed": SEED,
    }


def _carbon(energy: Row, windows: Rows, runs: Rows) -> dict[str, Any]:
    """Return the avoided joules in grams, at the mean intensity of what the same runs drew."""
    unknown = {"avoided_g": None, "low_g": None, "high_g": None, "g_per_kwh": None}
    if energy["avoided_j"] is None:
        return {**unknown, "sentence": energy["sentence"]}
    known = [window for window in windows if window["emissions_g"] is not None]
    drawn_j = math.fsum(window["energy_j"] for window in known)
    if not drawn_j or any(window["intensity_g_per_kwh"] is None for window in windows):
        return {**unknown, "sentence": NO_INTENSITY}
    if any(_is_default(run) for run in runs):
        return {**unknown, "sentence": DEFAULT_INTENSITY}
    g_per_j = math.fsum(window["emissions_g"] for window in known) / drawn_j
    g_per_kwh = g_per_j * 1000.0 * J_PER_WH
    interval = energy["interval"]
    return {
        "avoided_g": energy["avoided_j"] * g_per_j,
        "low_g": None if interval is None else interval["low_j"] * g_per_j,
        "high_g": None if interval is None else interval["high_j"] * g_per_j,
        "g_per_kwh": g_per_kwh,
        "sentence": (
            f"the avoided energy at {g_per_kwh:.4g} g/kWh, the mean of what these runs drew, PUE "
            "included where one was given"
        ),
    }


def _is_default(run: Row) -> bool:
    """Tell whether a run's intensity is one value for a year, or nothing says that it is not."""
    told = run["environment"].get("carbon")
    intensity = told.get("intensity") if isinstance(told, dict) else None
    return not isinstance(intensity, dict) or intensity.get("data_year") is not None
