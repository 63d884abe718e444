"""Energy and emissions by the hour, for matching with the certificates of a contract."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from greentrain.report.document import HourFigures
from greentrain.report.row_helpers import MeasuredWindow, number, parse
from greentrain.report.sums import Sum
from greentrain.report.times import started_us

_HOUR_US = 3_600_000_000


class Hours:
    """The energy and the grams of windows, split over the hours in which they were used.

    The power of a window is taken as constant over its own seconds, so each hour gets the share of
    those seconds that lie in it. Grams are shared by these seconds times the intensity of the hour.
    The hours sum to the windows.
    """

    def __init__(self) -> None:
        self._sums: dict[int, tuple[Sum, Sum]] = defaultdict(lambda: (Sum(), Sum()))

    def add_all(self, windows: Iterable[MeasuredWindow]) -> None:
        """Add windows with ``times``, see :func:`greentrain.report.times.with_times`."""
        parts: dict[int, tuple[list[float | None], list[float | None]]] = {}
        for window in windows:
            energy_j, grams = window["energy_j"], window["emissions_g"]
            hour, last = _hours(window)
            if hour == last:  # as most are
                of_hour = parts.get(hour) or parts.setdefault(hour, ([], []))
                of_hour[0].append(energy_j)
                of_hour[1].append(grams)
                continue
            shares = _shares(window)
            of_grams = _by_intensity(shares, window)
            for hour, share in shares.items():
                of_hour = parts.get(hour) or parts.setdefault(hour, ([], []))
                of_hour[0].append(None if energy_j is None else share * energy_j)
                of_hour[1].append(None if grams is None else of_grams[hour] * grams)
        for hour, (joules, emissions) in parts.items():
            self._sums[hour][0].add_all(joules)
            self._sums[hour][1].add_all(emissions)

    def join(self, other: Hours) -> None:
        """Add all windows of others."""
        for hour, (joules, grams) in other._sums.items():
            self._sums[hour][0].join(joules)
            self._sums[hour][1].join(grams)

    def compress(self) -> None:
        """Keep as little as possible in memory."""
        for joules, grams in self._sums.values():
            joules.compress()
            grams.compress()

    def figures(self) -> list[HourFigures]:
        """Return each hour in which anything was measured, by its beginning in UTC.

        A figure that no window of the hour has is ``None``.
        """
        return [
            {
                "hour_utc": datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "energy_j": joules.total,
                "carbon_g": grams.total,
            }
            for hour, (joules, grams) in sorted(self._sums.items())
        ]


def _hours(window: MeasuredWindow) -> tuple[int, int]:
    """Return the first and the last hour of a window, in hours since 1970."""
    start, end = window["times"][0][0], window["times"][-1][1]
    return start // _HOUR_US, max(end - 1, start) // _HOUR_US


def _shares(window: MeasuredWindow) -> dict[int, float]:
    """Return the share of the window's own time in each hour, by hours since 1970."""
    spans = window["times"]
    lengths: dict[int, int] = defaultdict(int)
    for start, end in spans:
        while start < end:
            hour = start // _HOUR_US
            until = min(end, (hour + 1) * _HOUR_US)
            lengths[hour] += until - start
            start = until
    whole_us = math.fsum(lengths.values())
    return {hour: length_us / whole_us for hour, length_us in lengths.items()}


def _by_intensity(shares: dict[int, float], window: MeasuredWindow) -> dict[int, float]:
    """Return the share of the window's grams in each hour: as those of time if nothing is known."""
    if len(shares) == 1 or not window["intensity_by_hour"]:
        return shares
    listed = [number(one) for one in parse(window["intensity_by_hour"], [])]
    first = started_us(window) // _HOUR_US
    weights: dict[int, float] = {}
    for hour, share in shares.items():
        place = min(hour - first, len(listed) - 1)  # of two clocks, one may be a moment ahead
        one = listed[place] if place >= 0 else None
        if one is None or one < 0:
            return shares
        weights[hour] = share * one
    whole = math.fsum(weights.values())
    if not 0 < whole < math.inf:
        return shares
    return {hour: weight / whole for hour, weight in weights.items()}
