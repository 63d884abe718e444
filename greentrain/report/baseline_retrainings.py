"""What controls measured: full retrainings beside a stream, against what the stream itself did.

Only here, and only where there were controls, is anything said of how the stream compares with
always retraining in full that was not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greentrain.control import Reason
from greentrain.report.experiences import Outcomes, settings_of
from greentrain.report.row_helpers import Row, Rows
from greentrain.units import wh

LOOK = "probe"
"""Phase in which a control measures the stream's own model: no full retraining would."""
FEWEST = 5
"""Controls below which no difference of metrics is judged."""
HOW = (
    "at each control, a full retraining on the data of that moment was carried out and measured, "
    "and both models were measured on the same held-out samples; joules of the stream are those of "
    "the experience, looks included, joules of a control those of its training and validation; "
    "± is one standard error over the controls"
)
NOTHING_TO_COMPARE = "no control came to an end that was measured in full, so nothing is compared"
SEVERAL = "the controls are of different metrics, so no difference is formed"
UNKNOWN = "not every control's metrics are known, so no difference is formed"
TOO_FEW = f"fewer than {FEWEST} controls are too few to judge the difference of the metric by"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A control, and the experience that it stands beside; a metric is better where it is more."""

    control_j: float
    stream_j: float
    metric: str
    lost: float | None


def is_control(row: Row) -> bool:
    """Tell whether a decision, or an entry of it, is that of a control."""
    return bool(row["reason"] == Reason.BASELINE)


def measured(rows: Mapping[str, Rows], runs: Sequence[Row]) -> dict[str, Any] | None:
    """Compare controls with what the stream did at the same experiences.

    Args:
        rows: The ledger's rows by kind.
        runs: The runs of the report.

    Returns:
        Mean joules of both, their difference and that of the metric with standard errors, as plain
        values; ``None`` where there were no controls.
    """
    controls = [row for row in rows["decision"] if is_control(row)]
    if not controls:
        return None
    outcomes, settings = Outcomes(rows), {run["run_id"]: settings_of(run) for run in runs}
    found = [
        _pair(row, outcomes, rows["window"], settings.get(row["run_id"], {})) for row in controls
    ]
    pairs = [pair for pair in found if pair is not None]
    told = {"controls": len(pairs), "unfinished": len(controls) - len(pairs), "how": HOW}
    if not pairs:
        names = ("method", "control_j", "stream_j", "share", "avoided_j", "avoided_wh")
        unknown = dict.fromkeys((*names, "avoided_se_j", "metric", "difference", "difference_se"))
        return {**told, **unknown, "as_good": None, "sentence": NOTHING_TO_COMPARE}
    control_j = mean([pair.control_j for pair in pairs])
    stream_j = mean([pair.stream_j for pair in pairs])
    saved = [pair.control_j - pair.stream_j for pair in pairs]
    return {
        **told,
        "method": f"measured ({len(pairs)} control{'s' if len(pairs) > 1 else ''})",
        "control_j": control_j,
        "stream_j": stream_j,
        "share": stream_j / control_j if control_j > 0 else None,
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


def judged(difference: float, error: float | None, controls: int) -> tuple[bool | None, str]:
    """Say whether a stream is as good as full retraining, by the rule by which updates are kept.

    It is unless its metric is lower by more than one standard error.

    Args:
        difference: What the stream's metric is better by, on average.
        error: Standard error of that.
        controls: How many controls there were.

    Returns:
        Whether it is, ``None`` where that cannot be told, and a sentence that says so.

    Example:
        >>> judged(-0.01, 0.02, 5)[0], judged(-0.03, 0.02, 5)[0], judged(0.0, 0.02, 4)[0]
        (True, False, None)
    """
    if error is None or controls < FEWEST:
        return None, TOO_FEW
    good = difference >= -error
    verdict = "as good as full retraining" if good else "not as good as full retraining"
    distance = f"the metric is {difference:+.4g} from it, ± {error:.2g}"
    return good, f"{verdict}, by {controls} controls: {distance}"


def _metric(pairs: Sequence[_Pair]) -> dict[str, Any]:
    names = {pair.metric for pair in pairs}
    unknown = {"metric": None, "difference": None, "difference_se": None, "as_good": None}
    if len(names) > 1:
        return {**unknown, "sentence": SEVERAL}
    lost = [pair.lost for pair in pairs if pair.lost is not None]
    if len(lost) < len(pairs):
        return {**unknown, "metric": names.pop(), "sentence": UNKNOWN}
    difference, error = 0.0 - mean(lost), standard_error(lost)
    good, sentence = judged(difference, error, len(lost))
    return {
        "metric": names.pop(),
        "difference": difference,
        "difference_se": error,
        "as_good": good,
        "sentence": sentence,
    }


def _pair(decision: Row, outcomes: Outcomes, windows: Rows, settings: Row) -> _Pair | None:
    """Return a control with its experience; ``None`` if either did not come to its end."""
    control, stream = outcomes.of(decision), outcomes.of_update(decision)
    if control is None or stream is None or stream["energy_j"] is None:
        return None
    of_it = [one for one in windows if one["reservation_id"] == decision["reservation_id"]]
    whole = all(one["complete"] for one in of_it) and control["steps"] == control["planned_steps"]
    if not of_it or not whole:
        return None
    known = (control["metric_before"], control["metric_after"])
    sign = {"max": 1.0, "min": -1.0}.get(str(settings.get("mode")))
    lost = None if None in known or sign is None else sign * (known[1] - known[0])
    return _Pair(
        control_j=math.fsum(one["energy_j"] for one in of_it if one["phase"] != LOOK),
        stream_j=stream["energy_j"],
        metric=control["metric"],
        lost=lost,
    )
