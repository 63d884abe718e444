"""Forecast of the options at experiences to come: the reason to save joules for them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from greentrain.control.action import Option
from greentrain.control.staleness import staleness_cases, staleness_of
from greentrain.control.state import State
from greentrain.control.update_modes import UPDATE_MODES, UpdateMode
from greentrain.control.utility import UtilityModel

POINTS = 4
"""Experiences to come that are modelled, at most; each represents the ones around it."""
CLOSING = 2.4
"""Share of the remaining gain that a warm start closes: ``1 - exp(-2.4 * step_fraction)``.

Measured on the trainings that the prior weights of the utility model come from.
"""
_Kind = tuple[UpdateMode, str]
"""An update mode, and the name of an offered method; empty without one."""
_WARM: _Kind = (UpdateMode.WARM_START, "")
Table = tuple[tuple[float, float], ...]
"""The (joules, gain) of every option at one experience, ``SKIP`` included."""
Prospect = tuple[Sequence[Option], float]
"""Options of another stream, and the number of experiences to come that they represent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionForecast:
    """Options that are expected at the experiences to come.

    Args:
        tables: Their joules and gains, in units of a gain that comes now.
        weights: Number of experiences that each table represents.
    """

    tables: tuple[Table, ...] = ()
    weights: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {"tables": self.tables, "weights": self.weights}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OptionForecast:
        """Rebuild it from :meth:`as_dict`, also from JSON."""
        tables = (((cost, gain) for cost, gain in table) for table in values.get("tables", ()))
        return cls(tables=tuple(map(tuple, tables)), weights=tuple(values.get("weights", ())))


NO_FORECAST = OptionForecast()


def forecast_options(
    options: Sequence[Option],
    state: State,
    utility: UtilityModel,
    stale: Sequence[float],
    left_j: float,
    others: Sequence[Prospect] = (),
) -> OptionForecast:
    """Forecast the options at experiences to come, of all streams of a budget.

    For this stream, each experience brings the mean number of samples so far. The model stays as
    good as it is, and the staleness is as it was before, or as a prior expects. A gain counts for
    as many experiences as it lasts. If each update closes a share ``r`` of the remaining gain, one
    gain is worth ``1 + (1 - r) + (1 - r)**2 + ...`` over the experiences that remain. So cheap
    updates happen early, while there is little data.

    Other streams are expected to have their recent options again. One price is then solved over all
    streams, so joules go where they gain most: it is the dual price of one knapsack, see
    :class:`~greentrain.control.policies.priced.PricedPolicy`. The gains of all streams must have
    the same unit.

    Args:
        options: The options now.
        state: The state now; ``remaining`` counts the experiences of all streams of the budget.
        utility: Predicts gains.
        stale: Staleness at the experiences so far.
        left_j: Joules left for this experience and the later ones.
        others: Options of the other streams.

    Returns:
        The forecast, this stream's tables first; empty without a model and at the last experience.
    """
    ahead = state.remaining - 1
    if not state.has_model or ahead < 1:
        return NO_FORECAST
    if not others:
        return _own(options, state, utility, stale, left_j)
    ours = max(0.0, ahead - math.fsum(weight for _, weight in others))
    # A whole number of this stream's experiences, at least one.
    own = dataclasses.replace(state, num_experiences=state.position + 1 + max(1, round(ours)))
    even_j = left_j / state.remaining
    found = _own(options, own, utility, stale, even_j * own.remaining)
    scale = ours / math.fsum(found.weights)
    theirs = tuple(
        tuple((option.cost_j.mean, option_value(option, even_j)) for option in offered)
        for offered, _ in others
    )
    return OptionForecast(
        tables=(*found.tables, *theirs),
        weights=(*(scale * each for each in found.weights), *(weight for _, weight in others)),
    )


def option_value(option: Option, even_j: float) -> float:
    """Return the gain that an option counts with, in units of the metric.

    Args:
        option: The option.
        even_j: Joules left per experience.
    """
    discount = risk_discount(option.cost_j.mean, even_j, method=option.action.method)
    return kept_gain(option.gain.mean, option.gain.sd, discount)


def risk_discount(cost_j: float, even_j: float, *, method: str = "") -> float:
    """Return the standard deviations to subtract from a gain, by the cost of the update.

    An update that uses the joules of several experiences has to be safe. The discount is 0 up to
    an even share of what is left, 1 from three even shares, and linear in between. It is 1 for an
    offered method: a gain that was never measured is uncertain, and :func:`kept_gain` grows with
    the uncertainty.

    Args:
        cost_j: Joules of the update.
        even_j: Joules left per experience.
        method: Name of the offered method; empty for none.

    Example:
        >>> [risk_discount(cost_j, 10.0) for cost_j in (5.0, 20.0, 40.0)]
        [0.0, 0.5, 1.0]
    """
    if method:
        return 1.0
    shares = cost_j / even_j if even_j > 0 else math.inf
    return min(1.0, max(0.0, (shares - 1.0) / 2.0))


def kept_gain(mean: float, sd: float, discount: float = 0.0) -> float:
    """Return the expected gain of an update that is not kept if it turns out worse.

    It is the mean of the positive part of a normal distribution, ``m * P(z) + sd * p(z)`` with
    ``z = m / sd``: the "expected improvement" of Bayesian optimisation (Jones et al. 1998).

    Args:
        mean: Predicted gain.
        sd: Its standard deviation.
        discount: Standard deviations to subtract from the mean: see :func:`risk_discount`.

    Example:
        >>> [round(kept_gain(mean, 0.01), 4) for mean in (-0.01, 0.0, 0.01)]
        [0.0008, 0.004, 0.0108]
    """
    mean -= discount * sd
    if sd <= 0:
        return max(0.0, mean)
    z = mean / sd
    density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return 0.5 * mean * math.erfc(-z / math.sqrt(2)) + sd * density


def _own(
    options: Sequence[Option],
    state: State,
    utility: UtilityModel,
    stale: Sequence[float],
    left_j: float,
) -> OptionForecast:
    lines = _lines(options)
    n_all = state.n_new + state.n_stored
    n_each = max(1.0, n_all / (state.position + 1))
    present = staleness_of(state, stale)
    cases = staleness_cases(stale if present is None else [*stale, present], state.unit)
    even_j = left_j / state.remaining
    rate = _rate(options, lines, even_j)
    tables, weights = [], []
    for first, last in _spans(state.remaining - 1):
        middle = (first + last) / 2
        then = dataclasses.replace(
            state,
            n_new=round(n_each),
            n_stored=round(n_all + (middle - 1) * n_each),
            copies=None,
            last_share=_later(state.last_share, n_all / (n_each + n_all + (middle - 1) * n_each)),
        )
        share = n_each / (n_each + then.n_stored)
        lasting = _lasting(rate, state.remaining - middle) / _lasting(rate, state.remaining)
        growth = {
            "none": 0.0,
            "new": n_each / max(1, state.n_new),
            "mixed": n_each / max(1, state.n_new),
            "all": (n_each + then.n_stored) / max(1, n_all),
        }
        costs_j = [
            lines[_kind(option)][0]
            + lines[_kind(option)][1]
            * option.candidate.steps
            * growth[UPDATE_MODES[option.action.mode].data]
            if option.candidate.steps
            else 0.0
            for option in options
        ]
        means, sds = utility.gains(
            [option.action for option in options], then, [stale_by * share for stale_by, _ in cases]
        )
        discounts = np.array(
            [
                risk_discount(cost_j, even_j, method=option.action.method)
                for cost_j, option in zip(costs_j, options, strict=True)
            ]
        )
        values = lasting * _kept_gains(means, sds, discounts)
        for row, (_, weight) in zip(values.tolist(), cases, strict=True):
            tables.append(tuple(zip(costs_j, row, strict=True)))
            weights.append(weight * (last - first + 1))
    return OptionForecast(tables=tuple(tables), weights=tuple(weights))


def _later(share: float | None, factor: float) -> float | None:
    return None if share is None else share * factor


_kept_gains = np.vectorize(kept_gain, otypes=[np.float64])


def _rate(
    options: Sequence[Option], lines: dict[_Kind, tuple[float, float]], share_j: float
) -> float:
    """Return the share of the remaining gain that a warm start of an even share closes."""
    for option in options:
        if _kind(option) == _WARM and option.candidate.steps:
            fixed_j, step_j = lines[_WARM]
            usual_j = step_j * option.candidate.steps / option.action.step_fraction
            step_fraction = max(0.0, share_j - fixed_j) / usual_j if usual_j > 0 else 1.0
            return 1.0 - math.exp(-CLOSING * step_fraction)
    return 1.0


def _lasting(rate: float, remaining: float) -> float:
    """Return the experiences that a gain counts for if each update closes a share of the rest."""
    kept = 1.0 - rate
    return remaining if rate < 1e-6 else (1.0 - kept**remaining) / rate


def _spans(ahead: int) -> list[tuple[int, int]]:
    """Cut 1 .. ahead into at most ``POINTS`` spans of about the same length."""
    points = min(POINTS, ahead)
    edges = [round(point * ahead / points) for point in range(points + 1)]
    return [(edges[point] + 1, edges[point + 1]) for point in range(points)]


def _kind(option: Option) -> _Kind:
    return option.action.mode, option.action.method


def _lines(options: Sequence[Option]) -> dict[_Kind, tuple[float, float]]:
    """Return joules without steps, and per step, of each kind; predictions are about linear."""
    lines: dict[_Kind, tuple[float, float]] = {}
    for kind in {_kind(option) for option in options}:
        points = sorted(
            (option.candidate.steps, option.cost_j.mean)
            for option in options
            if _kind(option) == kind
        )
        (few, low_j), (many, high_j) = points[0], points[-1]
        slope_j = (high_j - low_j) / (many - few) if many > few else 0.0
        lines[kind] = (max(0.0, low_j - slope_j * few), slope_j)
    return lines
