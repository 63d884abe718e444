"""A meter of constant power, for tests, for documentation, and for a rated power."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from greentrain.energy.meter import Reading, Source
from greentrain.errors import ConfigurationError
from greentrain.units import is_number


class ConstantMeter:
    """Count a constant power over time.

    Args:
        power_w: Watts, of one source ``"constant"`` or by source name.
        clock: Returns seconds; a fake one makes every joule exact.

    Raises:
        ConfigurationError: If a power is negative or not finite.

    Example:
        >>> seconds = [0.0]
        >>> meter = ConstantMeter(100.0, clock=lambda: seconds[0])
        >>> meter.start()
        >>> seconds[0] = 36.0
        >>> meter.read().total_j  # 100 W for 36 s is 1 Wh
        3600.0
    """

    def __init__(
        self,
        power_w: float | Mapping[str, float] = 100.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        powers = dict(power_w) if isinstance(power_w, Mapping) else {"constant": power_w}
        for name, value in powers.items():
            if not (is_number(value) and math.isfinite(value) and value >= 0):
                raise ConfigurationError(
                    f"power_w of source {name!r} is {value!r}; it must be in watts, finite, "
                    "0 or more"
                )
        self._power_w = powers
        self._clock = clock
        self._started_s: float | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """One source of method ``"given"`` for each power."""
        return tuple(
            Source(
                name=name,
                method="given",
                relative_uncertainty=None,
                max_power_w=float(value),
                note=f"a constant {value:g} W, as configured",
                lag_s=0.0,
            )
            for name, value in self._power_w.items()
        )

    def start(self) -> None:
        """Begin at zero; harmless while it runs."""
        if self._started_s is None:
            self._started_s = self._clock()

    def read(self) -> Reading:
        """Return power times the seconds since the start."""
        elapsed_s = 0.0 if self._started_s is None else self._clock() - self._started_s
        energy_j = {name: value * elapsed_s for name, value in self._power_w.items()}
        return Reading(duration_s=elapsed_s, energy_j=energy_j)

    def close(self) -> None:
        """Stop; the next ``start`` begins at zero."""
        self._started_s = None
