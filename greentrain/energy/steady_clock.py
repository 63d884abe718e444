"""A clock for windows, which goes on evenly while the system's clock is set."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from greentrain.units import utc_now


def steady_clock(
    wall: Callable[[], datetime] | None = None, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], datetime]:
    """Return a clock in UTC that goes on evenly while the system's clock is set.

    Args:
        wall: Returns the time from which the clock goes on; by default ``utc_now``.
        monotonic: Returns seconds that never go back.

    Example:
        >>> seconds = [5.0]
        >>> noon = datetime.fromisoformat("2026-01-01T12:00:00+00:00")
        >>> now = steady_clock(lambda: noon, lambda: seconds[0])
        >>> seconds[0] = 65.0
        >>> now().isoformat()
        '2026-01-01T12:01:00+00:00'
    """
    began, began_s = (wall or utc_now)(), monotonic()
    return lambda: began + timedelta(seconds=monotonic() - began_s)
