"""Student's t distribution, for the bands that are given beside a figure."""

from __future__ import annotations

import functools
import importlib

COVERAGE = 0.95
"""Share of cases that a band is meant to hold."""


@functools.lru_cache(maxsize=256)
def half_width(degrees: float) -> float:
    """Return how many standard errors a band of 95 % reaches to either side.

    Args:
        degrees: Degrees of freedom, more than 0.

    Example:
        >>> round(half_width(3.0), 3)
        3.182
    """
    # scikit-learn and torchmetrics bring scipy; importing it takes a third of a second.
    special = importlib.import_module("scipy.special")
    return float(special.stdtrit(degrees, 0.5 + 0.5 * COVERAGE))
