"""Start and close meters so that a faulty one never stops the work that it measures."""

from __future__ import annotations

import time
from collections.abc import Callable

from greentrain.energy.detect import detect
from greentrain.energy.meter import NOTHING, Meter, Reading, Source
from greentrain.errors import ConfigurationError
from greentrain.texts import get_logger

_log = get_logger(__name__)


class UnknownMeter:
    """A meter without joules.

    Args:
        *names: Sources to report as unknown, with the seconds since the meter's creation. Without
            one, another process measures them, and readings are empty.
    """

    sources: tuple[Source, ...] = ()

    def __init__(self, *names: str) -> None:
        self._names = names
        self._started_s = time.monotonic()

    def start(self) -> None:
        """Do nothing."""

    def read(self) -> Reading:
        """Return a reading without known joules."""
        if not self._names:
            return NOTHING
        elapsed_s = time.monotonic() - self._started_s
        return Reading(duration_s=elapsed_s, energy_j=dict.fromkeys(self._names))

    def close(self) -> None:
        """Do nothing."""


def check_meter(given: object, argument: str) -> None:
    """Refuse anything but a meter, before anything is measured or capped with it.

    Args:
        given: The argument; ``None`` is allowed.
        argument: Its name for the error, such as ``"EnergyMonitor(meter=...)"``.

    Raises:
        ConfigurationError: If it is no meter: a text, a class, or an object without the methods
            ``start``, ``read`` and ``close``.
    """
    has_all = all(callable(getattr(given, name, None)) for name in ("start", "read", "close"))
    if given is None or (has_all and not isinstance(given, type)):
        return
    hint = ""
    if isinstance(given, str):
        hint = f". Is {given!r} a zone? Write zone={given!r}"
    elif isinstance(given, type):
        hint = f". It is a class: write {given.__name__}(...)"
    raise ConfigurationError(
        f"{argument} is {given!r}, and that is no meter; give one of greentrain.energy, such as "
        f"ConstantMeter(100.0), or omit it for the best meter of this machine{hint}"
    )


def start_meter(given: Meter | None, find: Callable[[], Meter] | None = None) -> Meter:
    """Start a meter, and return it.

    If it cannot be started, one warning says so, and everything is unknown.

    Args:
        given: The meter; ``None`` to find one.
        find: Function that finds and starts a meter; by default the best one of this machine.

    Raises:
        ConfigurationError: If the meter is none, is configured wrongly, or needs a device that is
            missing.
    """
    check_meter(given, "meter")
    try:
        if given is None:
            return (find or detect)()
        given.start()
        return given
    except ConfigurationError:
        raise
    except Exception as error:
        _log.warning("energy is not measured, because the meter cannot be started: %s", error)
        return UnknownMeter("unknown")


def close_meter(meter: Meter) -> None:
    """Close a meter; log a warning if that fails."""
    try:
        meter.close()
    except Exception as error:
        _log.warning("the meter could not be closed: %s", error)
