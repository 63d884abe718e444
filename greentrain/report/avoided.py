"""Avoided energy: the modelled difference to always retraining in full.

The figure is a counterfactual. It is reported separately and subtracted from no other figure. It is
based on the cost model's prediction of a full retraining at each experience. For measured
comparisons see :mod:`greentrain.report.baseline_retrainings`.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from greentrain.control import UpdateMode
from greentrain.ledger import DecisionRow
from greentrain.report.document import EnergyInterval, RunFigures
from greentrain.report.energy_totals import interval
from greentrain.report.experiences import UpdateFigures
from greentrain.report.row_helpers import carbon_settings, number, parse
from greentrain.report.run_windows import IDLE, RunWindows
from greentrain.report.shifted_carbon import ShiftedCarbon
from greentrain.report.sums import Sum, joined
from greentrain.units import J_PER_WH, format_number, wh

REPLICATES = 2000
SEED = 0
FEWEST = 5
"""Experiences below which a bootstrap has too few samples for an interval."""

HOW = (
    "modelled: the cost model's prediction of retraining in full at each decision, minus the "
    "energy that the same runs used. Where full retraining was done, its measured energy replaces "
    "the prediction. The energy used includes probes, calibration, waits, baseline retrainings and "
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


class AvoidedEnergy:
    """The comparison of experiences with always retraining in full; :meth:`add` adds one.

    Attributes:
        shifted: The waits and pauses of the same runs.
    """

    def __init__(self) -> None:
        self._used, self._full, self._sd = array("d"), array("d"), array("d")
        self._unknown: Counter[str] = Counter()
        self._left_out, self._lost = Sum(), Sum()
        self._interrupted = 0
        self._attributed: dict[str, Sum] = defaultdict(Sum)
        self.shifted = ShiftedCarbon()

    def add(self, decision: DecisionRow, one: UpdateFigures) -> None:
        """Add an experience and the decision about it."""
        if one["shadow"]:  # another job trained in an unknown way, so nothing was avoided here
            return
        self.shifted.add(decision, one["shifted_g"])
        self._attributed[one["run_id"]].add(one["energy_j"] or 0.0)
        full = _full(decision, one)
        if one["status"] != "done":
            self._interrupted += 1
            self._lost.add(one["energy_j"])
        elif full is None or one["energy_j"] is None:
            self._unknown[one["reason"] if full is None else "energy unknown"] += 1
            self._left_out.add(one["energy_j"])
        else:
            self._used.append(one["energy_j"])
            self._full.append(full[0])
            self._sd.append(full[1])

    def figures(
        self,
        windows: Mapping[str, RunWindows],
        runs: Sequence[RunFigures],
        measured: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Compute the avoided energy and, where possible, the avoided carbon.

        Args:
            windows: The windows of each run, by its id.
            runs: The runs of the report.
            measured: The comparison with baseline retrainings.

        Returns:
            ``"energy"`` avoided against always retraining in full; ``"measured"``, the comparison
            with baseline retrainings; the ``"carbon"`` of the avoided energy; and the carbon
            ``"shifted"`` in time.
        """
        deciding = [run for run in runs if run["run_id"] in self._attributed]
        energy = self._energy(windows)
        of_deciding = [windows[run] for run in self._attributed if run in windows]
        return {
            "energy": energy,
            "measured": measured,
            "carbon": _carbon(energy, of_deciding, deciding),
            "shifted": self.shifted.figures(),
        }

    def _energy(self, windows: Mapping[str, RunWindows]) -> dict[str, Any]:
        # The energy of a killed update belongs to no finished experience.
        overhead_j = self._lost.plus([self._unattributed_j(windows)])
        known = {
            "against": "retraining in full at every experience",
            "experiences": len(self._used),
            "interrupted": self._interrupted,
            "without_prediction": dict(sorted(self._unknown.items())),
            "left_out_j": self._left_out.total,
            "how": HOW,
        }
        if not self._used:
            sentence = NONE_KNOWN if self._attributed else NO_DECISION
            return {**known, **_UNKNOWN_ENERGY, "sentence": sentence}
        full_j = math.fsum(self._full)
        used_j = math.fsum([*self._used, overhead_j])
        spread = self._interval(overhead_j)
        sentence = _judged(spread)
        return {
            **known,
            "method": "modelled",
            "avoided_j": full_j - used_j,
            "avoided_wh": wh(full_j - used_j),
            "modelled_full_j": full_j,
            "model_sd_j": math.fsum(self._sd),
            "used_j": used_j,
            "overhead_j": overhead_j,
            "interval": None
            if spread is None
            else {**spread, "how": INTERVAL, "replicates": REPLICATES, "seed": SEED},
            "significant": sentence in (LESS, MORE),
            "sentence": sentence,
        }

    def _unattributed_j(self, windows: Mapping[str, RunWindows]) -> float:
        """Return joules that deciding runs used outside any experience, as in unfinished probes."""
        return math.fsum(
            max(0.0, _metered_j(windows.get(run_id)) - attributed.number)
            for run_id, attributed in self._attributed.items()
        )

    def _interval(self, overhead_j: float) -> EnergyInterval | None:
        if len(self._used) < FEWEST:
            return None
        pairs = zip(self._full, self._used, strict=True)
        differences_j = [full_j - used_j for full_j, used_j in pairs]
        return interval(*interval_j(differences_j, self._sd, overhead_j))


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
        sums[replicate] = (values + error * sds)[sample].sum() - overhead_j
    low, high = np.quantile(sums, (0.025, 0.975))
    return float(f"{low:.6g}"), float(f"{high:.6g}")


def _judged(spread: EnergyInterval | None) -> str:
    if spread is None:
        return TOO_FEW
    if spread["low_j"] > 0:
        return LESS
    return MORE if spread["high_j"] < 0 else NOT_SIGNIFICANT


def _full(decision: DecisionRow, one: UpdateFigures) -> tuple[float, float] | None:
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


def _metered_j(run: RunWindows | None) -> float:
    if run is None:
        return 0.0
    busy = (one for phase, one in run.phases.items() if phase != IDLE)
    return joined(busy).energy_j or 0.0


def _carbon(
    energy: Mapping[str, Any], windows: Sequence[RunWindows], runs: Sequence[RunFigures]
) -> dict[str, Any]:
    """Return the grams of the avoided energy, at the mean intensity of the runs' own energy."""
    if energy["avoided_j"] is None:
        return {**_UNKNOWN_GRAMS, "sentence": energy["sentence"]}
    grams, covered = Sum(), Sum()
    for run in windows:
        grams.join(run.grams)
        covered.join(run.covered)
    used_j = covered.number
    if not used_j or any(run.without_intensity for run in windows):
        return {**_UNKNOWN_GRAMS, "sentence": NO_INTENSITY}
    if any(_is_default(run) for run in runs):
        return {**_UNKNOWN_GRAMS, "sentence": DEFAULT_INTENSITY}
    g_per_j = grams.number / used_j
    g_per_kwh = g_per_j * 1000.0 * J_PER_WH
    spread = energy["interval"]
    return {
        "avoided_g": energy["avoided_j"] * g_per_j,
        "low_g": None if spread is None else spread["low_j"] * g_per_j,
        "high_g": None if spread is None else spread["high_j"] * g_per_j,
        "g_per_kwh": g_per_kwh,
        "sentence": (
            f"the avoided energy at {format_number(g_per_kwh)} g/kWh, the mean intensity of these "
            "runs' energy, with PUE where one was given"
        ),
    }


def _is_default(run: RunFigures) -> bool:
    """Return whether a run's intensity is one value for a year, or may be."""
    intensity = (carbon_settings(run) or {}).get("intensity")
    return not isinstance(intensity, dict) or intensity.get("data_year") is not None
