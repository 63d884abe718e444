"""Get a forecast of the carbon intensity from any provider, without stopping a training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from greentrain.callbacks.messages import inform, warn
from greentrain.callbacks.pause_rule import persisted
from greentrain.carbon import IntensityProvider

_DAY = timedelta(days=1)
LONGEST = timedelta(days=7)
"""Longest forecast that is requested."""


class IntensityForecast:
    """The forecast of a provider, or its last day again if it has none.

    That a provider has no forecast is logged once. One that fails, or returns something else than
    intervals, is a warning once, and gives no forecast.

    Args:
        provider: Has ``history(start, end)``, and perhaps ``forecast(as_of, horizon)``.
    """

    def __init__(self, provider: IntensityProvider) -> None:
        self.provider = provider
        self._reported: set[bool] = set()

    def at(self, now: datetime, end: datetime) -> Sequence[Any]:
        """Return the intervals expected from now to an end; empty if they are unknown.

        At most :data:`LONGEST` is requested, because no forecast reaches further.
        """
        horizon = min(max(end - now, timedelta(0)), LONGEST)
        ask = getattr(self.provider, "forecast", None)
        failed = False
        if callable(ask):
            try:
                if found := _checked(ask(now, horizon)):
                    return found
            except Exception as error:  # a failing provider never stops training
                failed = True
                self._report(failed, f"gave no forecast: {error}")
        try:
            found = persisted(_checked(self.provider.history(now - _DAY, now)), now, horizon)
        except Exception as error:
            self._report(True, f"gave no forecast: {error}")
            return []
        if not failed:
            again = "has no forecast, so its last day is expected again"
            self._report(not found, again if found else "gave no forecast and no last day")
        return found

    def _report(self, failed: bool, detail: str) -> None:
        if failed not in self._reported:
            self._reported.add(failed)
            say = warn if failed else inform
            say(f"CarbonAwarePause: {type(self.provider).__name__} {detail}")


def _checked(intervals: Iterable[Any]) -> list[Any]:
    """Return intervals whose times can be compared; values that are no number are unknown later.

    Raises:
        TypeError: If one is no interval, or has a time without a zone.
    """
    found = list(intervals)
    for one in found:
        for name in ("start", "end"):
            moment = getattr(one, name, None)
            if not isinstance(moment, datetime):
                raise TypeError(f"an interval has no time {name!r}; return an Interval")
            if moment.tzinfo is None:
                raise TypeError(f"the {name} of an interval has no time zone; add one")
        if not hasattr(one, "g_per_kwh"):
            raise TypeError("an interval has no g_per_kwh; return an Interval")
    return found
