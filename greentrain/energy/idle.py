"""Measure a machine's power while this program is idle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from greentrain.energy.meter import Meter, Reading
from greentrain.errors import ConfigurationError
from greentrain.units import is_number


def idle_power(
    meter: Meter, seconds: float, *, wait: Callable[[float], object] = time.sleep
) -> Reading:
    """Measure for some seconds while this program is idle.

    Compare a run's mean power with the reading's ``power_w``. It is recorded next to the run's
    joules and never subtracted. An idle machine's power is used for the run too, and a waiting card
    uses more than one that was never used.

    The energy of other programs is included. A meter that lags, such as :class:`WallMeter`, needs
    several of its sampling intervals; over too few of them ``power_w`` is ``None``.

    Args:
        meter: A started meter.
        seconds: Seconds to measure. Cards take tens of seconds to become idle after work.
        wait: Waits for so many seconds; tests with a fake clock pass their own.

    Returns:
        Seconds and joules by source over that time.

    Raises:
        ConfigurationError: If ``seconds`` is not positive and finite.

    Example:
        >>> from greentrain.energy.constant import ConstantMeter
        >>> now = [0.0]
        >>> meter = ConstantMeter({"gpu:0": 70.0, "cpu": 30.0}, clock=lambda: now[0])
        >>> meter.start()
        >>> def wait(seconds):
        ...     now[0] += seconds
        >>> idle = idle_power(meter, 60.0, wait=wait)
        >>> idle.power_w, source_power_w(idle)
        (100.0, {'gpu:0': 70.0, 'cpu': 30.0})
    """
    if not (is_number(seconds) and math.isfinite(seconds) and seconds > 0):
        raise ConfigurationError(
            f"seconds is {seconds!r}; it must be a time to measure for, above 0"
        )
    before = meter.read()
    wait(seconds)
    return meter.read() - before


def source_power_w(reading: Reading) -> dict[str, float | None]:
    """Return the mean watts of each source of a window; ``None`` for an unknown source.

    Args:
        reading: Seconds and joules by source.
    """
    duration_s = reading.duration_s
    return {
        name: None if joules is None or duration_s <= 0 else joules / duration_s
        for name, joules in reading.energy_j.items()
    }
