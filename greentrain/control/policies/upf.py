"""UPF: forecast the error of a kept and of a retrained model, and compare their bad cases."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from greentrain.control.action import Option
from greentrain.control.decision import Reason
from greentrain.control.policies.rules import (
    Rule,
    Verdict,
    age,
    check_mode,
    known,
    last_update,
    require,
)
from greentrain.control.regression import Vector, posterior
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode

Observation = tuple[int, int, float]
"""Experience at which a model was trained, experience at which it was probed, its error."""

_FEWEST = 3
"""Observations below which there is no forecast: the newest one, a fresh model, and one more."""
_PRIOR_SD = np.array([1.0, 0.1, 1.0])
"""Of the error of a new model at the start, and of its slopes over training time and age. A loss is
attributed to the age of a model until a second model shows otherwise."""
_PRIOR_NOISE_SD = 0.02
_PRIOR_NOISE_WEIGHT = 4.0
_LARGEST_SHARE = 0.99
_EDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class UPF(Rule):
    """Retrain when the bad case of retraining is better than the bad case of keeping the model.

    This is the uncertainty-performance forecaster of Regol et al., "When to retrain a machine
    learning model", ICML 2025, arXiv 2505.14903. A model of experience ``i`` is expected to have at
    ``j`` a Beta-distributed error that is linear in ``(i / T, (j - i) / T, j / T)``. Retraining
    costs ``alpha``. The 95 % quantiles of the cost over the experiences to come are compared, kept
    against retrained now.

    Departures: ``j / T`` is the sum of the other two and is omitted. So is the shift of the
    features, which the history does not contain. The paper fits an elastic net on an offline
    window. Here a Bayesian ridge regression learns from the history, 64 experiences at most, and
    adds the uncertainty of its forecast to the residual variance. Errors of different experiences
    count as independent. Their mean counts as Beta-distributed with the right mean and variance, so
    its quantile needs no sampling. Both alternatives continue to the end of the stream without
    another retraining.

    Errors are ``1 - metric``; a metric outside 0 to 1 counts as unknown. With fewer than three
    known errors the model is kept.

    Args:
        alpha: Cost of a retraining, as error summed over experiences: at 0.1 it has to save one
            error of 10 % on one experience.
        quantile: Quantile of the bad case, above 0 and below 1.
        mode: The update mode.

    Raises:
        ConfigurationError: If an argument is out of range, or the mode is ``SKIP``.
    """

    alpha: float = 0.1
    quantile: float = 0.95
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        require(math.isfinite(self.alpha) and self.alpha >= 0, "alpha", self.alpha, "0 or more")
        require(0 < self.quantile < 1, "quantile", self.quantile, "a number above 0 and below 1")
        check_mode(self.mode)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if the forecast does."""
        observed = list(_observations(state))
        if len(observed) < _FEWEST:
            sentence = f"{len(observed)} errors known, {_FEWEST} needed for a forecast: model kept"
            return Verdict(update=False, reason=Reason.FORECAST, sentence=sentence)
        now, ahead = len(state.history), state.remaining
        kept, renewed = _forecast(observed, (now - age(state), now), now=now, ahead=ahead)
        keep = ahead * beta_quantile(*kept, self.quantile)
        retrain = self.alpha + ahead * beta_quantile(*renewed, self.quantile)
        return Verdict(
            update=retrain < keep,
            reason=Reason.FORECAST,
            sentence=(
                f"Over {ahead} experiences, the {self.quantile:.0%} quantile of the error is "
                f"{keep:.4f} if kept and {retrain:.4f} if retrained, including {self.alpha:g} for "
                f"retraining (from {len(observed)} known errors)"
            ),
        )


def beta_quantile(mean: float, variance: float, quantile: float) -> float:
    """Return a quantile of the Beta distribution with a given mean and variance.

    Means outside 0 to 1 are moved inside, and variances to the largest that the mean allows.

    Example:
        >>> round(beta_quantile(0.5, 1 / 12, 0.95), 6)  # the uniform distribution
        0.95
    """
    special = importlib.import_module("scipy.special")  # a third of a second
    mean = min(max(mean, _EDGE), 1 - _EDGE)
    variance = min(max(variance, 1e-12), _LARGEST_SHARE * mean * (1 - mean))
    weight = mean * (1 - mean) / variance - 1
    return float(special.betaincinv(mean * weight, (1 - mean) * weight, quantile))


def _observations(state: State) -> Iterator[Observation]:
    trained: int | None = None
    if last_update(state.history) is None:
        trained = len(state.history) - age(state)
    for j, past in enumerate(state.history):
        yield from _observation(trained, j, past.metric_new)
        if past.mode is not UpdateMode.SKIP:
            trained = j
            yield from _observation(trained, j, past.metric_after)
    yield from _observation(trained, len(state.history), state.metric_new)


def _observation(trained: int | None, j: int, metric: float | None) -> Iterator[Observation]:
    value = known(metric)
    if trained is not None and value is not None and 0 <= value <= 1:
        yield trained, j, 1 - value


def _forecast(
    observed: Sequence[Observation], trained: Sequence[int], *, now: int, ahead: int
) -> list[tuple[float, float]]:
    # Mean and variance of the mean error from now on, of models trained at these experiences.
    last = now + ahead
    rows = _features([(i, j) for i, j, _ in observed], last)
    errors = np.array([error for _, _, error in observed])
    prior = np.array([float(errors.mean()), 0.0, 0.0])
    noise_sd = np.full(len(errors), _PRIOR_NOISE_SD)
    weights, covariance = posterior(prior, _PRIOR_SD, rows, errors, noise_sd)
    squares = float(np.sum((errors - rows @ weights) ** 2))
    variance = (_PRIOR_NOISE_WEIGHT * _PRIOR_NOISE_SD**2 + squares) / (
        _PRIOR_NOISE_WEIGHT + len(errors)
    )
    # The error is linear, so its mean over the experiences to come is the error at their middle.
    middle = now + (ahead - 1) / 2
    return [
        (float(mean @ weights), float(mean @ covariance @ mean) + variance / ahead)
        for mean in _features([(i, middle) for i in trained], last)
    ]


def _features(pairs: Sequence[tuple[float, float]], last: int) -> Vector:
    return np.array([[1.0, i / last, (j - i) / last] for i, j in pairs])
