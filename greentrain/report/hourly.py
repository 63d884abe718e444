"""Energy and emissions by the hour, for matching with the certificates of a contract."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from greentrain.report.document import HourFigures
from greentrain.report.row_helpers import MeasuredWindow, total

_HOUR_US = 3_600_000_000


def hourly(windows: Iterable[MeasuredWindow]) -> list[HourFigures]:
    """Split the energy and the grams of windows over the hours in which they were used.

    The power of a window is taken as constant over its own seconds, so each hour gets the share of
    those seconds that lie in it. The hours sum to the windows.

    Args:
        windows: Windows with ``times``, see :func:`greentrain.report.times.with_times`.

    Returns:
        Each hour in which anything was measured, by the time of its beginning in UTC. A figure
        that no window of the hour has is ``None``.
    """
    joules: dict[int, list[float | None]] = defaultdict(list)
    grams: dict[int, list[float | None]] = defaultdict(list)
    for window in windows:
        energy_j, emissions_g = window["energy_j"], window["emissions_g"]
        for hour, share in _shares(window):
            joules[hour].append(None if energy_j is None else share * energy_j)
            grams[hour].append(None if emissions_g is None else share * emissions_g)
    return [
        {
            "hour_utc": datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "energy_j": total(joules[hour]),
            "carbon_g": total(grams[hour]),
        }
        for hour in sorted(joules)
    ]


def _shares(window: MeasuredWindow) -> Iterator[tuple[int, float]]:
    """Yield hours since 1970, and the share of the window's own time that lies in each."""
    spans = window["times"]
    first, last = spans[0][0] // _HOUR_US, max(spans[-1][1] - 1, spans[0][0]) // _HOUR_US
    if first == last:
        yield first, 1.0
        return
    lengths: dict[int, int] = defaultdict(int)
    for start, end in spans:
        while start < end:
            hour = start // _HOUR_US
            until = min(end, (hour + 1) * _HOUR_US)
            lengths[hour] += until - start
            start = until
    whole_us = math.fsum(lengths.values())
    for hour, length_us in lengths.items():
        yield hour, length_us / whole_us
