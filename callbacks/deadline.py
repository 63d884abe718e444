"""Read a wall-clock deadline."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from greentrain.errors import ConfigurationError

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def parse_deadline(deadline: str | datetime, now: datetime, name: str) -> datetime:
    """Return a deadline in UTC.

    Args:
        deadline: A time of day such as ``"06:00"``, whose next occurrence in the zone of ``now`` is
            meant; or a date and time with a zone, as text or ``datetime``.
        now: The present time, aware.
        name: Name of the argument, for errors.

    Raises:
        ConfigurationError: If it is in the past, has no zone, or is something else.

    Example:
        >>> noon = datetime(2026, 12, 1, 12, tzinfo=UTC)
        >>> parse_deadline("06:00", noon, "deadline").isoformat()
        '2026-12-02T06:00:00+00:00'
    """
    if isinstance(deadline, str) and (match := _TIME.fullmatch(deadline.strip())):
        of_day = time(int(match[1]), int(match[2]))
        today = _at(now.date(), of_day, now)
        return today if today > now else _at(now.date() + timedelta(days=1), of_day, now)
    if isinstance(deadline, str):
        try:
            deadline = datetime.fromisoformat(deadline.strip())
        except ValueError:
            raise ConfigurationError(f"{name}={deadline!r} is no time; {_ALLOWED}") from None
    if not isinstance(deadline, datetime):
        raise ConfigurationError(f"{name}={deadline!r} is no time; {_ALLOWED}")
    if deadline.tzinfo is None:
        raise ConfigurationError(
            f"{name}={str(deadline)!r} has no time zone; add it, such as "
            f"'{deadline.isoformat()}+00:00'"
        )
    try:
        # In UTC: Python compares times of one zone without its changes of daylight saving.
        found, present = deadline.astimezone(UTC), now.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError(
            f"{name}={str(deadline)!r} is outside of the years 1 to 9999 in UTC; give an earlier "
            "time"
        ) from None
    if found <= present:
        raise ConfigurationError(
            f"{name}={str(deadline)!r} is in the past; now it is "
            f"{now.isoformat(timespec='seconds')}"
        )
    return found


def is_time_of_day(deadline: object) -> bool:
    """Return whether a deadline is a time of day, which occurs again each day.

    Example:
        >>> is_time_of_day("06:00"), is_time_of_day("2026-12-01T06:00+01:00")
        (True, False)
    """
    return isinstance(deadline, str) and _TIME.fullmatch(deadline.strip()) is not None


_ALLOWED = "give a time of day such as '06:00', or a time such as '2026-12-01T06:00+01:00'"


def check_clock(now: object, name: str) -> datetime:
    """Return the time that a clock gave.

    Args:
        now: What the clock returned.
        name: Name of the callback, for errors.

    Raises:
        ConfigurationError: If it is no time with a zone.
    """
    if not isinstance(now, datetime) or now.tzinfo is None:
        raise ConfigurationError(
            f"{name}(clock=...) returned {now!r}; it must return a datetime with a time zone"
        )
    return now


def local_now() -> datetime:
    """Return the present time in the zone of this machine."""
    return datetime.now().astimezone()


def _at(day: date, of_day: time, now: datetime) -> datetime:
    """Return a local time in UTC; a day on which the clock changes has 23 or 25 hours."""
    moment = datetime.combine(day, of_day)
    is_local = now.utcoffset() == now.astimezone().utcoffset()
    aware = moment.astimezone() if is_local else moment.replace(tzinfo=now.tzinfo)
    return aware.astimezone(UTC)
