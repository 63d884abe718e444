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


def start_meter(given: Meter | None, find: Callable[[], Meter] | None = None) -> Meter:
    """Start a meter, and return it.

    If it cannot be started, one warning says so, and everything is unknown.

    Args:
        given: The meter; ``None`` to find one.
        find: Function that finds and starts a meter; by default the best one of this machine.

    Raises:
        ConfigurationError: If the meter is configured wrongly, or needs a device that is missing.
    """
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
