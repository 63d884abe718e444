"""Expect a day's forecast to err as on past days whose forecast had a similar shape.

This is an analogue ensemble of whole days (Delle Monache et al. 2013,
doi:10.1175/MWR-D-12-00281.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ANALOGUES = 20
"""Most similar days whose errors are averaged."""
_PRIOR = 0.5
"""Weight of no error in the mean, as a share of :data:`ANALOGUES` days."""


def analogue_errors(forecast: Floats, errors: Floats, analogues: int = ANALOGUES) -> Floats:
    """Return the expected errors of each day, from the days before it.

    The shape of a day is its forecast less its mean, at length one. The nearest shapes count.

    Args:
        forecast: The forecast by day and hour, of shape ``(days, 24)``; NaN where unknown.
        errors: Actual less forecast, of the same shape. Only days without a NaN are analogues.
        analogues: Number of days.

    Returns:
        Errors of the same shape; zeros for a day without an earlier one.

    Example:
        >>> import numpy as np
        >>> rising, falling = np.arange(24.0), np.arange(24.0)[::-1]
        >>> forecast = np.array([rising, falling, 2 * rising])
        >>> errors = np.array([np.full(24, 6.0), np.full(24, -6.0), np.full(24, np.nan)])
        >>> analogue_errors(forecast, errors, analogues=1)[:, 0]  # 6 and half a day of 0
        array([0., 4., 4.])
    """
    import numpy as np

    known = np.isfinite(forecast)
    counts = np.maximum(known.sum(1, keepdims=True), 1)
    means = np.where(known, forecast, 0.0).sum(1, keepdims=True) / counts
    shapes = np.where(known, forecast - means, 0.0)
    shapes = shapes / np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-9)
    usable = np.flatnonzero(np.isfinite(errors).all(1))
    found = np.zeros(forecast.shape)
    for day in range(1, len(forecast)):
        earlier = usable[usable < day]
        distances = ((shapes[earlier] - shapes[day]) ** 2).sum(1)
        nearest = earlier[distances.argsort(kind="stable")[:analogues]]
        found[day] = errors[nearest].sum(0) / (len(nearest) + _PRIOR * analogues)
    return found
