"""Correct a forecast of intensity by its own past errors, and bound it by them.

Days whose forecast had a similar shape give the errors to expect. What is left of the errors of the
last day and of the coming hours is taken as jointly normal, by hour of the day. Their covariance is
that of past days, shrunk towards an autoregressive one. The correction is the conditional mean of
the coming errors, given the last day's. Only errors that were known at the time of the forecast are
used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from greentrain.carbon.analogues import ANALOGUES, analogue_errors
from greentrain.carbon.intensity import IntensityProvider, Interval, overlapping, utc_span
from greentrain.carbon.planning import step_means
from greentrain.errors import IntensityError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

HOUR = timedelta(hours=1)
DAYS = 60
"""Past days whose errors the covariance comes from."""
READ_DAYS = 2 * DAYS
"""Past days that are read: each of the last :data:`DAYS` is compared with the days before it."""
LONGEST = timedelta(days=7)
"""Time after which a forecast is returned as it is; no published one reaches further."""
_DAY_H = 24
_PRIOR_DAYS = 10.0
"""Days that the autoregressive covariance counts as."""
_PERSISTENCE = 0.8
"""Correlation of the errors of two hours, in that covariance."""
_NUGGET = 1e-3
"""Share of the mean variance that is added to each hour's, so that matrices can be inverted."""
_TWO_SIDED = 1.645
"""Standard deviations that cover 90 % of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Coming errors of a forecast, hour by hour.

    Args:
        mean: Expected errors in g/kWh, of shape ``(hours,)``; to be added to the forecast.
        deviation: Their standard deviations, of the same shape.
        days: Number of past days that they come from.
    """

    mean: Floats
    deviation: Floats
    days: int


def coming_errors(errors: Floats, horizon: int) -> Correction:
    """Return the expected errors of the coming hours from the past ones.

    Args:
        errors: Actual less forecast, hour by hour up to the present, of shape ``(hours,)``; NaN
            where it is unknown.
        horizon: Number of coming hours.

    Returns:
        Zeros without a known error in the last day.
    """
    import numpy as np

    errors = np.asarray(errors, dtype=float)
    size, known = _DAY_H + horizon, np.isfinite(errors)
    mean, deviation = np.zeros(horizon), np.full(horizon, np.nan)
    if not known.any() or horizon < 1:
        return Correction(mean=mean, deviation=deviation, days=0)
    filled = np.where(known, errors, 0.0)
    # Each past day gives its own day before and hours after, at the same hours of the day.
    ends = range(len(errors) - _DAY_H, _DAY_H - 1, -_DAY_H)
    ends_in_time = [end for end in ends if end + horizon <= len(errors)]
    spans = (slice(end - _DAY_H, end + horizon) for end in ends_in_time)
    windows = np.array([filled[span] for span in spans if known[span].any()])
    windows = windows.reshape(-1, size)
    spread = float(np.sqrt(np.mean(errors[known] ** 2)))
    if not spread:
        return Correction(mean=mean, deviation=np.zeros(horizon), days=len(windows))
    covariance = _covariance(windows, size, spread)
    recent, seen = filled[-_DAY_H:], known[-_DAY_H:]
    before = np.zeros(size, dtype=bool)
    before[_DAY_H - len(seen) : _DAY_H] = seen
    after = np.arange(size) >= _DAY_H
    variance = np.diag(covariance)[after]
    if before.any():
        across = covariance[np.ix_(after, before)]
        weights = np.linalg.solve(covariance[np.ix_(before, before)], across.T).T
        mean = weights @ recent[seen]
        variance = variance - np.einsum("ij,ij->i", weights, across)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    return Correction(mean=mean, deviation=deviation, days=len(windows))


def _covariance(windows: Floats, size: int, spread: float) -> Floats:
    """Return the covariance of the days, shrunk towards an autoregressive one of their spread."""
    import numpy as np

    days, hours = len(windows), np.arange(size)
    squares = windows.T @ windows
    variance = np.diag(squares) / days if days else np.full(size, spread**2)
    deviation = np.sqrt((variance + variance.mean()) / 2)
    lags = np.abs(hours[:, None] - hours)
    prior = deviation[:, None] * deviation * _PERSISTENCE**lags
    shrunk: Floats = (squares + _PRIOR_DAYS * prior) / (days + _PRIOR_DAYS)
    shrunk[hours, hours] += _NUGGET * np.trace(shrunk) / size
    return shrunk


def expected_errors(forecast: Floats, errors: Floats, analogues: int = ANALOGUES) -> Correction:
    """Return the expected errors of the coming hours, from past forecasts and their errors.

    Days with a forecast of similar shape give the first part: see :func:`analogue_errors`. What
    they leave of the last days' errors gives the rest, by :func:`coming_errors`.

    Args:
        forecast: The forecast hour by hour, from the beginning of a past day to the end of the
            coming hours, of shape ``(hours,)``; NaN where unknown.
        errors: Actual less forecast of its past hours, up to the present; NaN where unknown.
        analogues: As for :func:`analogue_errors`.

    Returns:
        Expected errors and deviations of the hours after those of ``errors``.
    """
    import numpy as np

    past, hours = len(errors), len(forecast)
    days = -(-hours // _DAY_H)
    by_day = np.full((2, days * _DAY_H), np.nan)
    by_day[0, :hours], by_day[1, :past] = forecast, errors
    forecasts, known = by_day.reshape(2, days, _DAY_H)
    shifts = analogue_errors(forecasts, known, analogues).ravel()
    rest = coming_errors((errors - shifts[:past])[-DAYS * _DAY_H :], hours - past)
    if not rest.deviation.size or np.isnan(rest.deviation).all():
        return rest  # no error of the last days is known
    return replace(rest, mean=rest.mean + shifts[past:hours])


def past_errors(
    provider: IntensityProvider, as_of: datetime, days: int = DAYS
) -> tuple[Floats, bool]:
    """Return the errors of a provider's forecasts in the hours before a time.

    Each hour's forecast is the one that was in force when the hour began.

    Args:
        provider: The provider.
        as_of: End of the last hour, aware.
        days: Number of days.

    Returns:
        Errors of shape ``(24 * days,)``, NaN where unknown; and whether any is known.
    """
    import numpy as np

    errors = _past(provider, as_of, days)[1]
    return errors, bool(np.isfinite(errors).any())


def _past(provider: IntensityProvider, as_of: datetime, days: int) -> tuple[Floats, Floats]:
    """Return the forecasts of past hours and their errors, NaN where unknown."""
    import numpy as np

    end, _ = utc_span(as_of, as_of)
    start, count = end - days * _DAY_H * HOUR, days * _DAY_H
    unknown = np.full(count, np.nan)
    try:
        predicted: list[Interval] = []
        moment = start
        while moment < end:
            found = overlapping(
                provider.forecast(moment, min(_DAY_H * HOUR, end - moment)), moment, end
            )
            predicted += [replace(one, start=max(one.start, moment)) for one in found]
            # The next one is issued when this one ends, or an hour later.
            moment = max([moment + HOUR, *(one.end for one in found)])
        actual = [one for one in provider.history(start, end) if one.end <= end]
    except IntensityError:  # it keeps no past forecasts
        return unknown, unknown
    means = step_means(predicted, start, count, HOUR)
    return means, step_means(actual, start, count, HOUR) - means


def corrected_forecast(
    provider: IntensityProvider, as_of: datetime, horizon: timedelta, days: int = READ_DAYS
) -> list[Interval]:
    """Return a provider's forecast, corrected by its own past errors, with bounds of 90 %.

    The forecast is returned as it is if the provider keeps no past forecasts, and so is what lies
    beyond seven days.

    Args:
        provider: The provider.
        as_of: Time of the forecast, aware; nothing later is used.
        horizon: Length of the forecast.
        days: Number of past days whose errors are read.

    Raises:
        IntensityError: If the provider gives no forecast.
        ConfigurationError: If ``as_of`` is naive.
    """
    import numpy as np

    as_of, end = utc_span(as_of, as_of + horizon, "a forecast")
    forecast = list(provider.forecast(as_of, horizon))
    if not forecast:
        return []
    predicted, errors = _past(provider, as_of, days)
    if days > DAYS and not np.isfinite(errors).any():  # it may keep fewer days
        predicted, errors = _past(provider, as_of, DAYS)
    if not np.isfinite(errors).any():
        return forecast
    # Only hours that have a forecast: the covariance grows with the square of their number.
    reach = min(end, as_of + LONGEST, max(one.end for one in forecast))
    hours = max(0, math.ceil((reach - as_of) / HOUR))
    # From the first hour of a day on, in UTC.
    first = -int((as_of - as_of.replace(hour=0, minute=0, second=0, microsecond=0)) / HOUR) % _DAY_H
    coming = step_means(forecast, as_of, hours, HOUR)
    found = expected_errors(np.concatenate([predicted[first:], coming]), errors[first:])
    parts: list[Interval] = []
    for number in range(hours):
        start = as_of + number * HOUR
        shift, spread = float(found.mean[number]), _TWO_SIDED * float(found.deviation[number])
        for one in overlapping(forecast, start, start + HOUR):
            value = max(0.0, one.g_per_kwh + shift)
            origin = one.provenance or provider.provenance
            parts.append(
                Interval(
                    start=max(one.start, start),
                    end=min(one.end, start + HOUR),
                    g_per_kwh=value,
                    low_g_per_kwh=max(0.0, value - spread),
                    high_g_per_kwh=value + spread,
                    provenance=replace(
                        origin,
                        source=f"{origin.source}, corrected by its errors of {found.days} days",
                        kind="forecast",
                    ),
                )
            )
    beyond = as_of + hours * HOUR
    if beyond < end:
        later = overlapping(forecast, beyond, end)
        parts += [replace(one, start=max(one.start, beyond)) for one in later]
    return [one for one in parts if one.end > one.start]


def saving_spread(
    errors: Floats, chosen: Sequence[float], other: Sequence[float]
) -> tuple[float, float] | None:
    """Return the lowest and highest error of a difference of two plans, over past days.

    Args:
        errors: Past errors of the forecast, as of :func:`past_errors`.
        chosen: Share of the work in each coming hour, of one plan.
        other: That of the other plan.

    Returns:
        The bounds of 90 % of the past errors in g/kWh. Add them to the expected difference of the
        other plan less the chosen one. ``None`` with fewer than seven past days.
    """
    import numpy as np

    weights = np.asarray(other, dtype=float) - np.asarray(chosen, dtype=float)
    size = len(weights)
    ends = range(len(errors) - _DAY_H, -1, -_DAY_H)
    windows = [errors[end : end + size] for end in ends if end + size <= len(errors)]
    found = [float(one @ weights) for one in windows if np.isfinite(one).all()]
    if len(found) < 7:
        return None
    low, high = np.quantile(found, (0.05, 0.95))
    return float(low), float(high)


def hourly_shares(
    segments: Sequence[tuple[datetime, datetime]], start: datetime, hours: int, duration: timedelta
) -> list[float]:
    """Return the share of a work's energy in each hour from a start on, pauses' cost included."""
    start = start.astimezone(UTC)
    return [
        sum(
            max(timedelta(0), min(last, border + HOUR) - max(first, border)) / duration
            for first, last in segments
        )
        for border in (start + number * HOUR for number in range(hours))
    ]
