"""Update when a drift detector finds that the metric on new data fell."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from greentrain._about import DISTRIBUTION
from greentrain.control.action import Option
from greentrain.control.decision import Reason
from greentrain.control.policies.rules import Rule, Verdict, check_mode, known, require
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError

Detector = Literal["adwin", "page_hinkley"]

_SAMPLES = 256
"""Predictions that represent one experience, at most: as many as a probe takes."""
_FALL = 0.05
"""Fall of the metric, summed over experiences, that Page-Hinkley reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftTriggered(Rule):
    """Update when the metric on new data has fallen, by a detector of river.

    ``"adwin"`` (Bifet and Gavalda, SDM 2007) compares the means of the two parts of a window, at
    each possible cut. It receives right and wrong predictions, as it is made for. An accuracy of
    0.75 on 200 new samples becomes 150 and 50 of them, evenly mixed, at most 256 per experience.
    ``"page_hinkley"`` (Page 1954) sums how far values are below their mean, and receives one value
    per experience. It reports a fall at a sum of 0.05 in units of the metric.

    Departures: the detector runs over the whole history at each decision, in place of keeping its
    own memory, so it uses the last 64 experiences. A fall stays due until an update; a rise is no
    drift. A metric outside 0 to 1 is no share of right predictions, so ADWIN does not receive it.
    Unknown values are omitted.

    Args:
        detector: Name of the detector.
        mode: The update mode.

    Raises:
        ConfigurationError: If the detector does not exist, river is not installed, or the mode is
            ``SKIP``.
    """

    detector: Detector = "adwin"
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        known_ones = get_args(Detector)
        require(self.detector in known_ones, "detector", self.detector, " or ".join(known_ones))
        check_mode(self.mode)
        _falls(self.detector)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if the metric fell since the last one."""
        falls = _falls(self.detector)
        fallen, used = False, 0
        for metric, n_new, updated in _seen(state):
            if metric is not None and n_new > 0 and falls.can_take(metric):
                fallen = falls.seen(metric, n_new) or fallen
                used += 1
            fallen = fallen and not updated
        seen, now = len(state.history) + 1, known(state.metric_new)
        sentence = (
            f"{'Fall' if fallen else 'No fall'} of the metric on new data since the last update by "
            f"{self.detector} (now {'unknown' if now is None else f'{now:.4f}'})"
        )
        if used < seen:
            sentence += f", from {used} of {seen} experiences"
        return Verdict(update=fallen, reason=Reason.DRIFT, sentence=sentence)


@dataclass(frozen=True, slots=True)
class _Falls:
    can_take: Callable[[float], bool]
    seen: Callable[[float, int], bool]


def _seen(state: State) -> Iterator[tuple[float | None, int, bool]]:
    # The metric on new data, their number, and whether an update followed.
    for past in state.history:
        yield known(past.metric_new), past.n_new, past.mode is not UpdateMode.SKIP
    yield known(state.metric_new), state.n_new, False


def _falls(detector: Detector) -> _Falls:
    try:
        drift = importlib.import_module("river.drift")  # river is typed in part only
    except ImportError:
        raise ConfigurationError(
            f"the policy DriftTriggered needs river; install it with "
            f'pip install "{DISTRIBUTION}[drift]"'
        ) from None
    if detector == "page_hinkley":
        summed = drift.PageHinkley(min_instances=2, delta=0.005, threshold=_FALL, mode="down")

        def fell(metric: float, n_new: int) -> bool:
            summed.update(metric)
            return bool(summed.drift_detected)

        return _Falls(can_take=math.isfinite, seen=fell)
    window = drift.ADWIN()

    def fell_on_average(metric: float, n_new: int) -> bool:
        before, changed = window.estimation, False
        for outcome in _outcomes(metric, min(n_new, _SAMPLES)):
            window.update(outcome)
            changed = changed or bool(window.drift_detected)
        return changed and metric < before

    return _Falls(can_take=lambda metric: 0 <= metric <= 1, seen=fell_on_average)


def _outcomes(share: float, n: int) -> Iterator[int]:
    # n zeros and ones with that share of ones, to the nearest one, evenly mixed.
    for k in range(n):
        yield math.floor((k + 1) * share + 0.5) - math.floor(k * share + 0.5)
