"""Update when a drift detector sees the metric on new data fall."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from greentrain._about import DISTRIBUTION
from greentrain.budget import Balance
from greentrain.control.action import Option, State, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.options import known
from greentrain.control.policies.rules import Verdict, carry_out, check_mode, not_due
from greentrain.errors import ConfigurationError

Detector = Literal["adwin", "page_hinkley"]

_SAMPLES = 256
"""Outcomes that stand for one experience, at most: as many as a look takes."""
_FALL = 0.05
"""Fall of the metric, summed over experiences, at which Page-Hinkley calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftTriggered:
    """Update when the metric on new data has fallen, by a detector of river's.

    ``"adwin"`` (Bifet and Gavalda, SDM 2007) compares the means of the two parts of a window, at
    each place where it can be cut. It is fed what it is made for, right and wrong predictions: an
    accuracy of 0.75 on 200 new samples becomes 150 and 50 of them, evenly mixed, at most 256 for
    an experience. ``"page_hinkley"`` (Page 1954) sums how far values stay below their mean, and is
    fed one value for each experience; it calls at a sum of 0.05 in units of the metric.

    Departures: the detector is run anew over the history at each decision, in place of having a
    memory of its own, so that it sees the last 64 experiences. A fall that was seen stays due until
    an update; a rise is none. A metric outside 0 to 1 is no share of right predictions, and ADWIN
    is not fed with it; unknown values are left out.

    Args:
        detector: Which detector.
        mode: The update mode.

    Raises:
        ConfigurationError: If the detector is not known, river is not installed, or the mode is
            ``SKIP``.
    """

    detector: Detector = "adwin"
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        if self.detector not in get_args(Detector):
            allowed = " or ".join(get_args(Detector))
            raise ConfigurationError(f"detector is {self.detector!r}; it is {allowed}")
        check_mode(self.mode)
        _falls(self.detector)

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if a fall was seen since the last update."""
        falls = _falls(self.detector)
        fallen, fed = False, 0
        for metric, n_new, updated in _seen(state):
            if metric is not None and n_new > 0 and falls.can_take(metric):
                fallen = falls.seen(metric, n_new) or fallen
                fed += 1
            fallen = fallen and not updated
        seen = len(state.history) + 1
        told = f"{self.detector} saw {'a' if fallen else 'no'} fall of the metric on new data"
        now = known(state.metric_new)
        told += f" since the last update (now {'unknown' if now is None else f'{now:.4f}'})"
        if fed < seen:
            told += f", from {fed} of {seen} experiences, the others unknown to it"
        verdict = (
            Verdict(update=True, reason=Reason.DRIFT, sentence=told) if fallen else not_due(told)
        )
        return carry_out(state, options, balance, self.mode, lambda option: verdict)


@dataclass(frozen=True, slots=True)
class _Falls:
    can_take: Callable[[float], bool]
    seen: Callable[[float, int], bool]


def _seen(state: State) -> Iterator[tuple[float | None, int, bool]]:
    # The metric on new data, how many these were, and whether an update followed.
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
