"""What a run will have drawn at its end, with a band."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.energy._student import half_width
from greentrain.errors import ConfigurationError

# What is supposed of the epochs before any two of them are known. The three figures together give
# a band of +/- 19 % of what is left after one epoch, the greatest of the errors after one epoch
# (4.9 to 19.1 %) that Anthony et al. 2020 (Carbontracker, arXiv:2007.03051) report.
_PRIOR_DEGREES = 3.0
_PRIOR_SHARE = 0.06 / math.sqrt(2.0)
_PRIOR_CORRELATION = 1.0 / 3.0

_PRIOR_WEIGHT = 4.0  # epochs that the supposed correlation weighs as much as
_MOST_CORRELATED = 0.9
_WARM_UP_UNTIL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run is expected to have drawn at its end.

    Args:
        mean_j: The expected joules, those already spent included.
        low_j: Lower end of the band of 95 %; never below what is spent.
        high_j: Upper end of it.

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


def predict_total(epochs_j: Sequence[float], spent_j: float, epochs_left: float) -> Forecast | None:
    """Predict the energy of a whole run from the epochs that are done.

    What is left is the number of epochs left times their mean energy. With three epochs or more the
    first is left out, because it warms up caches and compiles. The band is that of a sum of ``n``
    future draws when ``k`` are known: Student's t with variance ``s^2 (n + n^2 / k)``, with ``s^2``
    pooled with a prior (normal draws with a conjugate prior of the variance; Gelman et al. 2013,
    Bayesian Data Analysis, section 3.3). Neighbouring epochs resemble each other, so the variance
    is multiplied by ``(1 + r) / (1 - r)`` for a correlation ``r``, also pooled with a prior.

    The band supposes that the epochs to come are like those that were. It knows nothing of a drift
    through the whole run, of another program that starts, or of an early stop; after one epoch it
    holds where that epoch was at most a fifth dearer than the others.

    Args:
        epochs_j: Joules of each epoch that is done, in their order.
        spent_j: Joules spent up to now; at least what those epochs drew.
        epochs_left: Epochs still to come, a fraction where one is open or the last is cut short.

    Returns:
        The forecast; ``None`` while no epoch is done and one is left.

    Raises:
        ConfigurationError: If a figure is negative or not finite.

    Example:
        >>> forecast = predict_total([1000.0], 1000.0, 1.0)
        >>> forecast.mean_j, round(forecast.low_j), round(forecast.high_j)
        (2000.0, 1730, 2270)
        >>> predict_total([1000.0] * 20, 20000.0, 0.0)
        Forecast(mean_j=20000.0, low_j=20000.0, high_j=20000.0)
    """
    for name, value in _named(epochs_j, spent_j, epochs_left):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigurationError(f"{name} is {value!r}; it is finite, 0 or more")
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
    reach_j = half_width(degrees) * math.sqrt(squares / degrees * spread)
    total_j = spent_j + epochs_left * mean_j
    return Forecast(mean_j=total_j, low_j=max(spent_j, total_j - reach_j), high_j=total_j + reach_j)


def _correlation(apart: Sequence[float]) -> float:
    """Estimate how much neighbouring epochs resemble each other, from 0 to 0.9.

    The usual estimate ``r`` from ``k`` values is low by about ``(1 + 4 r) / k`` (Marriott and Pope
    1954, Biometrika 41), which is undone before it is pooled with the prior.
    """
    count, squares = len(apart), math.fsum(x * x for x in apart)
    if count < 5 or squares == 0:
        return _PRIOR_CORRELATION
    products = math.fsum(x * y for x, y in itertools.pairwise(apart))
    seen = min((count * products / squares + 1.0) / (count - 4.0), _MOST_CORRELATED)
    weight = count - 1.0
    pooled = (_PRIOR_WEIGHT * _PRIOR_CORRELATION + weight * seen) / (_PRIOR_WEIGHT + weight)
    return max(0.0, pooled)


def _named(
    epochs_j: Sequence[float], spent_j: float, epochs_left: float
) -> list[tuple[str, float]]:
    each = [(f"epochs_j[{index}]", energy) for index, energy in enumerate(epochs_j)]
    return [*each, ("spent_j", spent_j), ("epochs_left", epochs_left)]
