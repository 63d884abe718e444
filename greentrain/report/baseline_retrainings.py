"""Compare measured baseline retrainings with the updates of the stream.

This is the only comparison with always retraining in full that is measured and not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greentrain.ledger import DecisionRow
from greentrain.report.document import RunFigures
from greentrain.report.experiences import Outcomes, settings_of
from greentrain.report.row_helpers import MeasuredWindow
from greentrain.units import plural, wh

PROBE = "probe"
"""Phase that measures the stream's own model, which a full retraining alone would not need."""
FEWEST = 5
"""Baseline retrainings below which no difference of metrics is judged."""
HOW = (
    "each baseline retraining was a full retraining on the data of that moment, and both models "
    "were measured on the same held-out samples. The stream's joules are those of the experience, "
    "probes included. The baseline's joules are those of its training and validation. ± is one "
    "standard error over the baseline retrainings"
)
NOTHING_TO_COMPARE = "no baseline retraining finished with complete measurements"
SEVERAL = "the baseline retrainings have different metrics, so no difference is computed"
UNKNOWN = "a baseline retraining has no known metric, so no difference is computed"
TOO_FEW = f"fewer than {FEWEST} baseline retrainings are too few to judge the metric"
_NO_METRIC = {"metric": None, "difference": None, "difference_se": None, "as_good": None}
_NO_ENERGY = dict.fromkeys(
    ("method", "baseline_j", "stream_j", "share", "avoided_j", "avoided_wh", "avoided_se_j")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BaselinePair:
    """A baseline retraining, and the update at the same experience.

    Args:
        baseline_j: Joules of the baseline retraining.
        stream_j: Joules of the experience.
        metric: Name of the metric.
        lost: Metric of the baseline minus that of the stream, positive if the baseline is better.
    """

    baseline_j: float
    stream_j: float
    metric: str
    lost: float | None


def measured(
    baselines: Sequence[DecisionRow],
    outcomes: Outcomes,
    windows_of: Callable[[str], Sequence[MeasuredWindow]],
    runs: Sequence[RunFigures],
) -> dict[str, Any] | None:
    """Compare baseline retrainings with the updates at the same experiences.

    Args:
        baselines: The decisions about baseline retrainings.
        outcomes: The outcomes of all decisions.
        windows_of: Returns the windows of a reservation.
        runs: The runs of the report.

    Returns:
        Mean joules of both, their difference and that of the metric with standard errors, as plain
        values; ``None`` without baseline retrainings.
    """
    if not baselines:
        return None
    settings = {run["run_id"]: settings_of(run["environment"]) for run in runs}
    found = [
        _pair(
            row,
            outcomes,
            windows_of(row["reservation_id"] or ""),
            settings.get(row["run_id"], {}),
        )
        for row in baselines
    ]
    pairs = [pair for pair in found if pair is not None]
    counts = {
        "baseline_retrainings": len(pairs),
        "unfinished": len(baselines) - len(pairs),
        "how": HOW,
    }
    if not pairs:
        return {**counts, **_NO_ENERGY, **_NO_METRIC, "sentence": NOTHING_TO_COMPARE}
    baseline_j = mean([pair.baseline_j for pair in pairs])
    stream_j = mean([pair.stream_j for pair in pairs])
    saved = [pair.baseline_j - pair.stream_j for pair in pairs]
    return {
        **counts,
        "method": f"measured ({plural(len(pairs), 'baseline retraining')})",
        "baseline_j": baseline_j,
        "stream_j": stream_j,
        "share": stream_j / baseline_j if baseline_j > 0 else None,
        "avoided_j": mean(saved),
        "avoided_wh": wh(mean(saved)),
        "avoided_se_j": standard_error(saved),
        **_metric(pairs),
    }


def mean(values: Sequence[float]) -> float:
    """Return the mean of some values."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean, ``s / sqrt(n)``; ``None`` of a single value.

    Example:
        >>> round(standard_error([1.0, 2.0, 3.0]), 4)  # 1 / sqrt(3)
        0.5774
        >>> standard_error([1.0]) is None
        True
    """
    count, middle = len(values), mean(values)
    if count < 2:
        return None
    scatter = math.fsum((value - middle) ** 2 for value in values)
    return math.sqrt(scatter / (count - 1) / count)


def judged(difference: float, error: float | None, baselines: int) -> tuple[bool | None, str]:
    """Judge whether a stream is as good as full retraining, by the rule by which updates are kept.

    It is, unless its metric is lower by more than one standard error.

    Args:
        difference: Mean improvement of the stream's metric over the baseline's.
        error: Standard error of the difference.
        baselines: Number of baseline retrainings.

    Returns:
        The judgement, ``None`` if there are too few, and a sentence.

    Example:
        >>> judged(-0.01, 0.02, 5)[0], judged(-0.03, 0.02, 5)[0], judged(0.0, 0.02, 4)[0]
        (True, False, None)
    """
    if error is None or baselines < FEWEST:
        return None, TOO_FEW
    good = difference >= -error
    verdict = "as good as full retraining" if good else "not as good as full retraining"
    distance = f"the metric differs by {difference:+.4g}, ± {error:.2g}"
    return good, f"{verdict}, by {baselines} baseline retrainings: {distance}"


def _metric(pairs: Sequence[_BaselinePair]) -> dict[str, Any]:
    names = {pair.metric for pair in pairs}
    if len(names) > 1:
        return {**_NO_METRIC, "sentence": SEVERAL}
    lost = [pair.lost for pair in pairs if pair.lost is not None]
    if len(lost) < len(pairs):
        return {**_NO_METRIC, "metric": names.pop(), "sentence": UNKNOWN}
    difference, error = 0.0 - mean(lost), standard_error(lost)
    good, sentence = judged(difference, error, len(lost))
    return {
        "metric": names.pop(),
        "difference": difference,
        "difference_se": error,
        "as_good": good,
        "sentence": sentence,
    }


def _pair(
    decision: DecisionRow,
    outcomes: Outcomes,
    paid: Sequence[MeasuredWindow],
    settings: Mapping[str, Any],
) -> _BaselinePair | None:
    """Return a baseline retraining with its experience; ``None`` if either did not finish."""
    baseline, stream = outcomes.of(decision), outcomes.of_update(decision)
    if baseline is None or stream is None or stream["energy_j"] is None:
        return None
    whole = all(one["complete"] for one in paid) and baseline["steps"] == baseline["planned_steps"]
    if not paid or not whole:
        return None
    before, after = baseline["metric_before"], baseline["metric_after"]
    sign = {"max": 1.0, "min": -1.0}.get(str(settings.get("mode")))
    return _BaselinePair(
        baseline_j=math.fsum(one["energy_j"] or 0.0 for one in paid if one["phase"] != PROBE),
        stream_j=stream["energy_j"],
        metric=baseline["metric"],
        lost=None if before is None or after is None or sign is None else sign * (after - before),
    )
