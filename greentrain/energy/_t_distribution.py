"""Student's t distribution, for intervals of 95 %."""

from __future__ import annotations

import functools
import importlib


@functools.lru_cache(maxsize=256)
def t_half_width(degrees: float) -> float:
    """Return the half width of a 95 % interval in standard errors.

    Args:
        degrees: Degrees of freedom, more than 0.

    Example:
        >>> round(t_half_width(3.0), 3)
        3.182
    """
    special = importlib.import_module("scipy.special")  # takes a third of a second
    return float(special.stdtrit(degrees, 0.975))
