"""Get a forecast of the carbon intensity from any provider, without stopping a training."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from greentrain.callbacks.messages import warn
from greentrain.callbacks.pause_rule import persisted
from greentrain.carbon import IntensityProvider

_DAY = timedelta(days=1)


class IntensityForecast:
    """The forecast of a provider, or its last day again if it has none.

    A provider that fails is reported once, and gives no forecast.

    Args:
        provider: Has ``history(start, end)``, and perhaps ``forecast(as_of, horizon)``.
    """

    def __init__(self, provider: IntensityProvider) -> None:
        self.provider = provider
        self._warned = False

    def at(self, now: datetime, end: datetime) -> Sequence[Any]:
        """Return the intervals expected from now to an end; empty if they are unknown."""
        horizon = max(end - now, timedelta(0))
        ask = getattr(self.provider, "forecast", None)
        if callable(ask):
            try:
                if found := list(ask(now, horizon)):
                    return found
                self._warn("it returned no forecast")
            except Exception as error:  # a failing provider never stops training
                self._warn(str(error))
        try:
            return persisted(self.provider.history(now - _DAY, now), now, horizon)
        except Exception as error:
            self._warn(str(error))
            return []

    def _warn(self, detail: str) -> None:
        if not self._warned:
            self._warned = True
            warn(f"CarbonAwarePause: {type(self.provider).__name__} gave no forecast: {detail}")
