"""UPF: forecast how a model will do if it is kept or retrained, and compare the bad cases."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from greentrain.budget import Balance
from greentrain.control.action import Option, State, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.options import known
from greentrain.control.policies.rules import (
    Verdict,
    age,
    carry_out,
    check_mode,
    last_update,
    not_due,
)
from greentrain.control.regression import Vector, posterior
from greentrain.errors import ConfigurationError

Observation = tuple[int, int, float]
"""Experience at which a model was trained, experience at which it was looked at, its error."""

_FEWEST = 3
"""Observations below which nothing is forecast: the newest one, a fresh model, and one more."""
_PRIOR_SD = np.array([1.0, 0.1, 1.0])
"""Of a new model's error at the start, and of its slopes over when it was trained and over its age:
what a model loses is put down to its age as long as no second model has shown otherwise."""
_PRIOR_NOISE_SD = 0.02
_PRIOR_NOISE_WEIGHT = 4.0
_LARGEST_SHARE = 0.99
_EDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class UPF:
    """Retrain when the bad case of retraining is better than the bad case of keeping the model.

    The uncertainty-performance forecaster of Regol et al., "When to retrain a machine learning
    model", ICML 2025, arXiv 2505.14903. A model that was trained at experience ``i`` is expected
    to have at ``j`` an error that is linear in ``(i / T, (j - i) / T, j / T)`` and
    Beta-distributed. To retrain costs ``alpha``; what is compared are the 95 % quantiles of the
    cost over the experiences to come, kept against retrained now.

    Departures: ``j / T`` is the sum of the other two and is left out; so is the shift of the
    features, which the paper has and the history does not hold. The paper fits an elastic net on an
    offline window; here a Bayesian ridge regression learns from the history as it goes, 64
    experiences at most, and adds the uncertainty of its forecast to the residual variance. Errors
    of different experiences are taken as independent; their mean is taken as Beta-distributed with
    the right mean and variance, so that its quantile needs no sampling. Both alternatives are
    followed to the end of the stream without another retraining.

    The metric has to lie between 0 and 1, errors are ``1 - metric``; others count as unknown. With
    fewer than three known errors the model is kept.

    Args:
        alpha: What a retraining costs, as error summed over experiences: at 0.1 it has to save
            one error of 10 % on one experience.
        quantile: How bad the bad case is, above 0 and below 1.
        mode: The update mode.

    Raises:
        ConfigurationError: If an argument is out of range, or the mode is ``SKIP``.
    """

    alpha: float = 0.1
    quantile: float = 0.95
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ConfigurationError(f"alpha is {self.alpha!r}; it is 0 or more")
        if not 0 < self.quantile < 1:
            raise ConfigurationError(f"quantile is {self.quantile!r}; it is above 0 and below 1")
        check_mode(self.mode)

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if the forecast says so."""
        return carry_out(state, options, balance, self.mode, lambda option: self._judge(state))

    def _judge(self, state: State) -> Verdict:
        observed = list(_observations(state))
        if len(observed) < _FEWEST:
            return not_due(
                f"{len(observed)} errors are known, and a forecast needs {_FEWEST}: the model is "
                "kept"
            )
        now, ahead = len(state.history), state.remaining
        kept, renewed = _forecast(observed, (now - age(state), now), now=now, ahead=ahead)
        keep = ahead * beta_quantile(*kept, self.quantile)
        retrain = self.alpha + ahead * beta_quantile(*renewed, self.quantile)
        told = (
            f"over {ahead} experiences, {self.quantile:.0%} of the forecast stays below an error "
            f"of {keep:.4f} if the model is kept and of {retrain:.4f} if retrained, "
            f"{self.alpha:g} of it for retraining (from {len(observed)} known errors)"
        )
        if not retrain < keep:
            return not_due(told)
        return Verdict(update=True, reason=Reason.FORECAST, sentence=told)


def beta_quantile(mean: float, variance: float, quantile: float) -> float:
    """Return a quantile of the Beta distribution with a given mean and variance.

    Means outside 0 to 1 are moved inside, and variances to what the mean allows.

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
    # For models trained at these experiences: mean and variance of their mean error from now on.
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
    # The error is linear, so that its mean over the experiences to come is that at their middle.
    middle = now + (ahead - 1) / 2
    told = []
    for mean in _features([(i, middle) for i in trained], last):
        spread = float(mean @ covariance @ mean) + variance / ahead
        told.append((float(mean @ weights), spread))
    return told


def _features(pairs: Sequence[tuple[float, float]], last: int) -> Vector:
    return np.array([[1.0, i / last, (j - i) / last] for i, j in pairs])
