"""Carbon intensity: grams per kilowatt-hour by time and zone, with its provenance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from greentrain.errors import ConfigurationError
from greentrain.units import in_utc

Signal = Literal["average", "marginal"]
Basis = Literal["life-cycle", "direct"]
Kind = Literal["static", "measured", "estimated", "forecast"]

MOST_HOURS = 31 * 24
"""Longest time whose intensity is split over its hours, which bounds the size of a row."""
MOST_G_PER_KWH = 10_000.0
"""Highest intensity that is accepted: eight times that of a coal plant. More is a wrong unit."""
_HOUR = timedelta(hours=1)
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Origin of an intensity.

    Args:
        source: Publisher of the data.
        zone: Zone of the intensity.
        data_year: The year of the data; ``None`` for a time series with its own times.
        signal: ``"average"`` for reports; ``"marginal"`` may steer decisions only.
        basis: ``"life-cycle"`` includes building and fuelling plants; ``"direct"`` does not.
        kind: ``"static"`` for one value of a whole year, or else ``"measured"``, ``"estimated"`` or
            ``"forecast"``; ``None`` if the publisher does not say it.
        issued_utc: Time of the forecast's or the data's publication, ISO 8601; ``None`` if unknown.
        licence: Licence of the data; ``None`` if unknown.
        sha256: SHA-256 of the file or of the answer that the values were read from.
        fallback_of: The source that should have given the value and did not.
    """

    source: str
    zone: str
    data_year: int | None
    signal: Signal = "average"
    basis: Basis = "life-cycle"
    kind: Kind | None = None
    issued_utc: str | None = None
    licence: str | None = None
    sha256: str | None = None
    fallback_of: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, without the last five where they are unknown."""
        optional = ("kind", "issued_utc", "licence", "sha256", "fallback_of")
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None or name not in optional
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The intensity over a half-open interval of time.

    Args:
        start: Its first moment, aware; held in UTC.
        end: The first moment after it, aware; held in UTC.
        g_per_kwh: Grams of CO2 equivalent per kilowatt-hour.
        low_g_per_kwh: Lower bound, if there is one.
        high_g_per_kwh: Upper bound, if there is one.
        provenance: Origin of this value; ``None`` if it is that of its provider.

    Raises:
        ConfigurationError: If a time is naive, the interval is empty, a value is not an intensity,
            or it is not between its bounds.
    """

    start: datetime
    end: datetime
    g_per_kwh: float
    low_g_per_kwh: float | None = None
    high_g_per_kwh: float | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ConfigurationError("an interval of intensity has a naive time; give it a zone")
        # Python subtracts and compares times of one zone without its changes of daylight saving.
        object.__setattr__(self, "start", in_utc(self.start))
        object.__setattr__(self, "end", in_utc(self.end))
        if self.end <= self.start:
            raise ConfigurationError(
                f"an interval of intensity ends at {self.end}, not after its start {self.start}"
            )
        for value in (self.g_per_kwh, self.low_g_per_kwh, self.high_g_per_kwh):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(
                    f"an intensity is {value!r}; it must be in g/kWh, 0 or more"
                )
            if value is not None and value > MOST_G_PER_KWH:
                raise ConfigurationError(
                    f"an intensity is {value:g} g/kWh, more than any plant emits; give it in g/kWh "
                    "(1 kg/MWh is 1 g/kWh)"
                )
        low = self.g_per_kwh if self.low_g_per_kwh is None else self.low_g_per_kwh
        high = self.g_per_kwh if self.high_g_per_kwh is None else self.high_g_per_kwh
        rounding = _ROUNDING * (1.0 + self.g_per_kwh)
        if low > self.g_per_kwh + rounding or high < self.g_per_kwh - rounding:
            raise ConfigurationError(
                f"an intensity of {self.g_per_kwh:g} g/kWh is not between its bounds {low:g} and "
                f"{high:g}; give low_g_per_kwh up to it, and high_g_per_kwh from it on"
            )


@runtime_checkable
class IntensityProvider(Protocol):
    """Provide the intensity of one zone.

    Conversions to grams call :meth:`history` after a window ends. Budgets of carbon and plans call
    :meth:`forecast` before work starts. Both raise :class:`greentrain.errors.IntensityError` if
    nothing can be read, and return no interval for times without a value.
    """

    @property
    def provenance(self) -> Provenance:
        """Origin of the values; one with its own :attr:`Interval.provenance` differs from it."""
        ...

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the known intervals that overlap ``[start, end)``, by time."""
        ...

    def forecast(self, as_of: datetime, horizon: timedelta) -> Sequence[Interval]:
        """Return the intervals predicted for ``[as_of, as_of + horizon)``, by time.

        Only values that were published at ``as_of`` are used; there is none if none was.
        """
        ...


def check_provider(provider: object) -> None:
    """Call a provider's ``check`` if it has one, such as that of a service with a key.

    Raises:
        ConfigurationError: If the provider cannot be used, such as without a key.
    """
    check = getattr(provider, "check", None)
    if callable(check):
        check()


def utc_span(start: datetime, end: datetime, what: str = "a history") -> tuple[datetime, datetime]:
    """Return two aware times in UTC.

    Args:
        start: The first moment.
        end: The first moment after.
        what: Name of the request in the error.

    Raises:
        ConfigurationError: If a time has no zone.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ConfigurationError(
            f"{what} of intensity got a naive time; give it a zone, as in 2026-12-01T08:00+01:00"
        )
    return start.astimezone(UTC), end.astimezone(UTC)


def overlapping(intervals: Iterable[Interval], start: datetime, end: datetime) -> list[Interval]:
    """Return the intervals that overlap ``[start, end)``, by time."""
    found = [
        one for one in intervals if one.end > start and (one.start < end or one.start <= start)
    ]
    return sorted(found, key=lambda one: one.start)


def gaps(
    intervals: Iterable[Interval], start: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """Return the parts of ``[start, end)`` that no interval covers, by time."""
    found, place = [], start
    for one in overlapping(intervals, start, end):
        if one.start > place:
            found.append((place, one.start))
        place = max(place, one.end)
    return [*found, (place, end)] if place < end else found


def without_overlaps(intervals: Iterable[Interval]) -> list[Interval]:
    """Return intervals by time, each shortened to the start of the next one."""
    ordered = sorted(intervals, key=lambda one: one.start)
    ends = [*(one.start for one in ordered[1:]), None]
    return [
        one if end is None or one.end <= end else replace(one, end=end)
        for one, end in zip(ordered, ends, strict=True)
        if end is None or end > one.start
    ]


def mean_intensity(provider: IntensityProvider, start: datetime, end: datetime) -> float | None:
    """Return the mean intensity over ``[start, end)``, weighted by time.

    Args:
        provider: Provider of the intensity.
        start: First moment, aware.
        end: First moment after; the same as ``start``, or before it if the clock was set back,
            for a single moment.

    Returns:
        Grams per kilowatt-hour; ``None`` unless all of the time is covered.

    Example:
        >>> from datetime import UTC
        >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        >>> class Fixed:
        ...     def history(self, start, end):
        ...         return [Interval(start=noon, end=noon.replace(hour=14), g_per_kwh=100.0)]
        >>> mean_intensity(Fixed(), noon, noon.replace(hour=13))
        100.0
        >>> mean_intensity(Fixed(), noon, noon.replace(hour=15)) is None
        True
    """
    start, end = _in_order(start, end)
    return _mean(provider.history(start, end), start, end)


def mean_of(intervals: Sequence[Interval], start: datetime, end: datetime) -> float | None:
    """Return the mean of intervals over ``[start, end)``; ``None`` unless they cover all of it."""
    return _mean(intervals, *_in_order(start, end))


def mean_by_hour(
    intervals: Sequence[Interval], start: datetime, end: datetime
) -> tuple[float | None, tuple[float, ...]]:
    """Return the mean intensity over ``[start, end)``, and that in each UTC hour of it.

    Args:
        intervals: The known intervals of that time.
        start: As for :func:`mean_intensity`.
        end: As for :func:`mean_intensity`.

    Returns:
        The mean, and the means from the hour of ``start`` on: each over the part of its hour that
        is in the interval. There are none if all are the same, the mean is unknown, or there are
        more than :data:`MOST_HOURS`.
    """
    start, end = _in_order(start, end)
    mean = _mean(intervals, start, end)
    first = start.replace(minute=0, second=0, microsecond=0)
    count = math.ceil((end - first) / _HOUR)
    if mean is None or not 1 < count <= MOST_HOURS or len({i.g_per_kwh for i in intervals}) == 1:
        return mean, ()
    found, place = [], 0
    ordered = sorted(intervals, key=lambda one: one.start)
    for number in range(count):
        since, until = max(start, first + number * _HOUR), min(end, first + (number + 1) * _HOUR)
        while place < len(ordered) and ordered[place].end <= since:
            place += 1
        last = place
        while last < len(ordered) and ordered[last].start < until:
            last += 1
        of_hour = _mean(ordered[place:last], since, until)
        if of_hour is None:
            return mean, ()
        found.append(of_hour)
    return mean, tuple(found)


def _in_order(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    start, end = start.astimezone(UTC), end.astimezone(UTC)  # see Interval
    return start, max(start, end)


def _mean(intervals: Sequence[Interval], start: datetime, end: datetime) -> float | None:
    if start == end:
        at = [one.g_per_kwh for one in intervals if one.start <= start < one.end]
        return at[0] if at else None
    total_s = (end - start).total_seconds()
    shares = [
        (max(0.0, (min(one.end, end) - max(one.start, start)).total_seconds()) / total_s, one)
        for one in intervals
    ]
    if not math.isclose(math.fsum(share for share, _ in shares), 1.0, rel_tol=1e-9):
        return None
    return math.fsum(share * one.g_per_kwh for share, one in shares)
