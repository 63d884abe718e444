"""Check the argument ``start_by``, and remember what a stream's waits are expected to cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from greentrain.carbon import CarbonAccount, IntensityProvider, StaticIntensity
from greentrain.carbon.durations import parse_duration
from greentrain.energy import Reading
from greentrain.errors import ConfigurationError
from greentrain.texts import short_repr
from greentrain.units import utc_now

LONGEST = timedelta(days=7)
"""Longest wait: no forecast reaches further."""
IN_SLICES = " in slices"
"""End of a text for :attr:`StartBy.slices`, as in ``"24 h in slices"``."""
ASSUMED_IDLE = 0.3
"""Power while waiting, as a share of that of updates, before it is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBy:
    """The longest wait of a stream's updates for cleaner electricity.

    Args:
        within: Longest wait after the arrival of an experience, such as ``"24 h"``.
        slices: Whether an update may also pause between two of its steps.
        pause_cost: Time at full power. A pause has to save the grams of 2.5 times that, beyond
            those of waiting.
        recheck: Time after which the forecast is read again while an update waits.
        clock: Returns the present time, aware.
        sleep: Waits for some seconds.

    Raises:
        ConfigurationError: If a duration cannot be read, ``within`` is above seven days, or
            ``slices`` is no bool.
    """

    within: str = "24 h"
    slices: bool = False
    pause_cost: str = "10 min"
    recheck: str = "15 min"
    clock: Callable[[], datetime] = utc_now
    sleep: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        if not isinstance(self.slices, bool):
            raise ConfigurationError(
                f"StartBy(slices={short_repr(self.slices)}) is not allowed; give True or False"
            )
        for name in ("within", "pause_cost", "recheck"):
            if not isinstance(text := getattr(self, name), str):
                raise ConfigurationError(
                    f"StartBy({name}={short_repr(text)}) is no text; write a number and a unit, "
                    "such as '24 h'"
                )
        if self.longest > LONGEST:
            raise ConfigurationError(
                f"start_by is {self.within!r}; forecasts reach a few days, so give at most "
                f"{LONGEST.days} d"
            )
        parse_duration(self.recheck), parse_duration(self.pause_cost)

    def __str__(self) -> str:
        """Return the text that gives the same limit."""
        return self.within + (IN_SLICES if self.slices else "")

    @property
    def pause_time(self) -> timedelta:
        """Time at full power that decides whether a pause saves enough."""
        return parse_duration(self.pause_cost)

    @property
    def longest(self) -> timedelta:
        """The longest wait."""
        return parse_duration(self.within)

    @property
    def recheck_s(self) -> float:
        """Seconds between two readings of the forecast."""
        return parse_duration(self.recheck).total_seconds()

    def now(self) -> datetime:
        """Return the present time in UTC, so that a day has 24 hours when the clocks change.

        Raises:
            ConfigurationError: If the clock gives no aware time.
        """
        found = self.clock()
        if not isinstance(found, datetime) or found.tzinfo is None:
            raise ConfigurationError(
                f"StartBy(clock=...) returned {found!r}; it must return a datetime with a time zone"
            )
        return found.astimezone(UTC)


def check_start_by(
    start_by: str | StartBy | None, carbon: CarbonAccount, *, shadow: bool
) -> StartBy | None:
    """Return the limit of waiting; ``None`` if updates start at once.

    Args:
        start_by: As given to a stream.
        carbon: The stream's conversion of joules to grams, which has the provider.
        shadow: Whether the stream is in shadow mode.

    Raises:
        ConfigurationError: If it cannot be read, or nothing can be forecast for the stream.
    """
    if start_by is None:
        return None
    if not isinstance(start_by, (str, StartBy)):
        raise ConfigurationError(
            f"start_by is {start_by!r}; it must be a duration such as '24 h' or "
            "'24 h in slices', or a StartBy"
        )
    if shadow:
        raise ConfigurationError(
            f"start_by is {start_by!r} and shadow is True; in shadow mode your own job trains, so "
            "no update can wait: omit one of them"
        )
    found = start_by if isinstance(start_by, StartBy) else _read(start_by)
    provider = carbon.provider
    _check_forecasts(provider, found.within)
    return found


def _read(text: str) -> StartBy:
    words = " ".join(text.lower().split())
    within = words.removesuffix(IN_SLICES).strip()
    slices = words.endswith(IN_SLICES)
    try:
        parse_duration(within)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"start_by is {short_repr(text)}: {error}, or '8 h{IN_SLICES}'"
        ) from None
    return StartBy(within=within, slices=slices)


def _check_forecasts(provider: IntensityProvider | None, within: str) -> None:
    if provider is not None and not isinstance(provider, StaticIntensity):
        if callable(getattr(provider, "forecast", None)):
            return
        lack = f"{type(provider).__name__} has no method forecast"
    elif provider is not None:
        zone = provider.provenance.zone
        lack = f"the zone {zone!r} has one value for the whole year, so no hour is cleaner"
    else:
        lack = "the stream has no carbon intensity"
    raise ConfigurationError(
        f"start_by is {within!r} and {lack}; give a provider with forecasts, such as "
        "carbon=CarbonConfig(intensity='electricitymaps:DE'), or omit start_by"
    )


class WaitHistory:
    """Power of a stream's updates and waits, and the time between its experiences.

    Attributes:
        update: Seconds and joules of the last update; ``None`` before the first.
    """

    def __init__(self) -> None:
        self.update: tuple[float, float] | None = None
        self._idle: tuple[float, float] | None = None
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._arrivals = 0

    @property
    def power_w(self) -> float | None:
        """Mean power of the last update; ``None`` if it is unknown."""
        return None if self.update is None else self.update[1] / self.update[0]

    @property
    def idle_w(self) -> float:
        """Power while waiting: that of the last wait, or a share of the updates' power."""
        if self._idle is not None:
            return self._idle[1] / self._idle[0]
        return ASSUMED_IDLE * (self.power_w or 0.0)

    @property
    def between(self) -> timedelta | None:
        """Mean time between two experiences; ``None`` before the second."""
        if self._arrivals < 2 or self._first is None or self._last is None:
            return None
        return (self._last - self._first) / (self._arrivals - 1)

    def arrived(self, moment: datetime) -> None:
        """Count an experience that arrived; the same one again if the moment is the last one."""
        if self._last is None or moment > self._last:
            self._first = self._first or moment
            self._last, self._arrivals = moment, self._arrivals + 1

    def learn_update(self, used: Reading) -> None:
        """Learn from an update, if all of its energy is known."""
        if used.complete and used.duration_s > 0 and used.total_j:
            self.update = used.duration_s, used.total_j

    def learn_wait(self, seconds: float, used: Reading) -> None:
        """Learn from a wait of some seconds, if all of its energy is known."""
        if used.complete and seconds > 0 and used.total_j is not None:
            self._idle = seconds, used.total_j

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        moments = [None if one is None else one.isoformat() for one in (self._first, self._last)]
        return {
            "update": self.update,
            "idle": self._idle,
            "moments": moments,
            "arrivals": self._arrivals,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the values of a checkpoint."""
        pairs = [None if state[name] is None else tuple(state[name]) for name in ("update", "idle")]
        self.update, self._idle = pairs
        self._first, self._last = (
            None if one is None else datetime.fromisoformat(one) for one in state["moments"]
        )
        self._arrivals = int(state["arrivals"])
