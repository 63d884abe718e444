"""Forecast the energy of a whole run, with an interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.energy._t_distribution import t_half_width
from greentrain.errors import ConfigurationError

# Prior for the epochs, used before two of them are known. The three figures together give an
# interval of +/- 19 % of the remaining energy after one epoch. That is the largest error after one
# epoch (4.9 to 19.1 %) that Anthony et al. 2020 (Carbontracker, arXiv:2007.03051) report.
_PRIOR_DEGREES = 3.0
_PRIOR_SHARE = 0.06 / math.sqrt(2.0)
_PRIOR_CORRELATION = 1.0 / 3.0

_PRIOR_WEIGHT = 4.0  # weight of the prior correlation, in epochs
_MOST_CORRELATED = 0.9
_WARM_UP_UNTIL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Expected energy of a run at its end.

    Args:
        mean_j: The expected joules, including those already spent.
        low_j: Lower end of the interval of 95 %; never below the joules spent.
        high_j: Upper end of the interval.

    Raises:
        ConfigurationError: If a figure is not finite, or they are not in order.
    """

    mean_j: float
    low_j: float
    high_j: float

    def __post_init__(self) -> None:
        if not (0 <= self.low_j <= self.mean_j <= self.high_j < math.inf):
            raise ConfigurationError(
                f"a forecast has low_j={self.low_j!r}, mean_j={self.mean_j!r} and "
                f"high_j={self.high_j!r}; they are finite, 0 or more, and in this order"
            )

    def times(self, factor: float) -> Forecast:
        """Return a share or a multiple of the energy.

        Example:
            >>> Forecast(mean_j=8.0, low_j=4.0, high_j=12.0).times(0.25)
            Forecast(mean_j=2.0, low_j=1.0, high_j=3.0)
        """
        return Forecast(
            mean_j=factor * self.mean_j, low_j=factor * self.low_j, high_j=factor * self.high_j
        )


def predict_total(epochs_j: Sequence[float], spent_j: float, epochs_left: float) -> Forecast | None:
    """Predict the energy of a whole run from the finished epochs.

    The remaining energy is the number of epochs left times their mean energy. With three epochs or
    more the first is left out, because it warms up caches and compiles. The interval is that of a
    sum of ``n`` future samples when ``k`` are known: Student's t with variance
    ``s^2 (n + n^2 / k)``. ``s^2`` is pooled with a prior (normal samples with a conjugate prior of
    the variance; Gelman et al. 2013, Bayesian Data Analysis, section 3.3). Neighbouring epochs
    resemble each other, so the variance is multiplied by ``(1 + r) / (1 - r)`` for a correlation
    ``r``, also pooled with a prior.

    The interval assumes that later epochs are like the finished ones. It ignores a drift through
    the whole run, another program that starts, and an early stop. After one epoch it holds if that
    epoch used at most a fifth more than the others.

    Args:
        epochs_j: Joules of each finished epoch, in order.
        spent_j: Joules spent up to now; at least those of the finished epochs.
        epochs_left: Remaining epochs, a fraction if one is open or the last is cut short.

    Returns:
        The forecast; ``None`` while no epoch is finished and one is left.

    Raises:
        ConfigurationError: If a figure is negative or not finite.

    Example:
        >>> forecast = predict_total([1000.0], 1000.0, 1.0)
        >>> forecast.mean_j, round(forecast.low_j), round(forecast.high_j)
        (2000.0, 1730, 2270)
        >>> predict_total([1000.0] * 20, 20000.0, 0.0)
        Forecast(mean_j=20000.0, low_j=20000.0, high_j=20000.0)
    """
    epochs = {f"epochs_j[{index}]": energy_j for index, energy_j in enumerate(epochs_j)}
    for name, value in {**epochs, "spent_j": spent_j, "epochs_left": epochs_left}.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigurationError(f"{name} is {value!r}; it must be finite, 0 or more")
    if epochs_left == 0:
        return Forecast(mean_j=spent_j, low_j=spent_j, high_j=spent_j)
    if not epochs_j:
        return None
    known = epochs_j[1:] if len(epochs_j) >= _WARM_UP_UNTIL else epochs_j
    mean_j = math.fsum(known) / len(known)
    apart = [energy - mean_j for energy in known]
    degrees = _PRIOR_DEGREES + len(known) - 1
    squares = _PRIOR_DEGREES * (_PRIOR_SHARE * mean_j) ** 2 + math.fsum(x * x for x in apart)
    correlation = _correlation(apart)
    inflation = (1.0 + correlation) / (1.0 - correlation)
    spread = inflation * (epochs_left + epochs_left**2 / len(known))
    half_j = t_half_width(degrees) * math.sqrt(squares / degrees * spread)
    total_j = spent_j + epochs_left * mean_j
    return Forecast(mean_j=total_j, low_j=max(spent_j, total_j - half_j), high_j=total_j + half_j)


def _correlation(apart: Sequence[float]) -> float:
    """Estimate the correlation of neighbouring epochs, from 0 to 0.9.

    The usual estimate ``r`` from ``k`` values is low by about ``(1 + 4 r) / k`` (Marriott and Pope
    1954, Biometrika 41). This is corrected before it is pooled with the prior.
    """
    count, squares = len(apart), math.fsum(x * x for x in apart)
    if count < 5 or squares == 0:
        return _PRIOR_CORRELATION
    products = math.fsum(x * y for x, y in itertools.pairwise(apart))
    seen = min((count * products / squares + 1.0) / (count - 4.0), _MOST_CORRELATED)
    weight = count - 1.0
    pooled = (_PRIOR_WEIGHT * _PRIOR_CORRELATION + weight * seen) / (_PRIOR_WEIGHT + weight)
    return max(0.0, pooled)
