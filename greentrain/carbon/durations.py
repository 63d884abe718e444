"""Read a duration, such as that of the work of a schedule."""

from __future__ import annotations

import re
from datetime import timedelta

from greentrain.errors import ConfigurationError
from greentrain.texts import short_repr

SECONDS_PER_UNIT = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds per unit of duration, for each unit that can be read."""

_DURATION = re.compile(r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-z]+)\s*")
_LONGEST = 100


def parse_duration(text: str) -> timedelta:
    """Read a duration such as ``"8 h"``, ``"90min"`` or ``"1.5 d"``; it is above 0.

    Raises:
        ConfigurationError: If the text is none.

    Example:
        >>> parse_duration("8h"), parse_duration("90 min")
        (datetime.timedelta(seconds=28800), datetime.timedelta(seconds=5400))
    """
    found = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    unit_s = SECONDS_PER_UNIT.get(found[2] if found else "")
    try:
        seconds = float(found[1]) * unit_s if found and unit_s else 0.0
        duration = timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        duration = timedelta(0)
    if duration <= timedelta(0):
        raise ConfigurationError(
            f"{short_repr(text)} is no duration above 0; write a number and a unit of "
            f"{', '.join(SECONDS_PER_UNIT)}, such as '8 h'"
        )
    return duration
