"""Convert what a card reports to joules: a counter, power over time, and a check of the counter."""

from __future__ import annotations

from collections.abc import Callable

# No card or module uses more power. A counter that fell to a higher value has not restarted at 0.
_MAX_POWER_W = 5000.0
# Counter and power are compared over this long, of which a counter's tick is 2 %. Some counters
# stop or lag (for AMD's see ROCm/amdsmi#38).
_CHECK_S = 5.0
_CHECK_MAX_GAP_S = 0.5
_CHECK_MAX_RATIO = 1.5
_CHECK_MIN_J = 25.0
# The longest time between two ticks of a counter.
_TICK_S = 0.1
# After so long, a tick is a tenth of what was counted: the counter alone is more exact.
_SHORT_S = 1.0


class EnergyCounter:
    """Count joules from a counter in millijoules, which may restart.

    Args:
        read_mj: Returns the counter in mJ.
        now_s: The present time in seconds.
    """

    def __init__(self, read_mj: Callable[[], float], now_s: float) -> None:
        self._read_mj = read_mj
        self._last_mj, self._last_s = read_mj(), now_s
        self._total_mj = 0.0
        self.restarts = 0

    @property
    def energy_j(self) -> float:
        """Joules until the last update."""
        return self._total_mj / 1e3

    def update(self, now_s: float) -> None:
        """Read the counter; after a restart the joules since the restart are counted."""
        value_mj = self._read_mj()
        if value_mj >= self._last_mj:
            self._total_mj += value_mj - self._last_mj
        else:
            self.restarts += 1
            # The second that is added allows for one tick of the counter.
            if value_mj <= 1e3 * _MAX_POWER_W * (now_s - self._last_s + 1.0):
                self._total_mj += value_mj
        self._last_mj, self._last_s = value_mj, now_s


class TickSpreader:
    """Spread a counter's ticks over the time in which their joules were used.

    A counter does not change between two ticks. So it shows 0 J for a window that is shorter than a
    tick, or the joules of a whole tick. Within a second of the last reading, joules are therefore
    the present power multiplied by the time. They stay within one tick of the counter, in both
    directions. After a second or more, they are those of the counter: none is lost or doubled.

    Joules that arrive faster than the power limit allows are kept for the next reading. If they are
    more than two ticks at that limit, the card exceeds it, and they are passed on.

    Args:
        counter: The counter.
        read_w: Returns the power in W, or ``None`` if it cannot be read. Then the counter's mean
            power over a second is used.
        now_s: The present time in seconds.

    Attributes:
        energy_j: Joules until the last update; they never fall.
        exceeded: ``True`` once joules beyond the limit were passed on.
    """

    def __init__(
        self, counter: EnergyCounter, read_w: Callable[[], float | None], now_s: float
    ) -> None:
        self._counter = counter
        self._read_w = read_w
        self._last_s = self._mean_from_s = now_s
        self._mean_from_j = self._mean_w = 0.0
        self.energy_j = 0.0
        self.exceeded = False

    def update(self, now_s: float, limit_w: float | None) -> None:
        """Read the counter.

        Args:
            now_s: The present time in seconds.
            limit_w: The power that the card cannot exceed; ``None`` if unknown.
        """
        self._counter.update(now_s)
        seconds, counted_j = now_s - self._last_s, self._counter.energy_j
        joules = counted_j
        if seconds < _SHORT_S:
            read_w = self._read_w()
            power_w = self._mean_w if read_w is None else read_w
            reach_j = _TICK_S * max(power_w, self._mean_w)
            joules = self.energy_j + power_w * seconds
            joules = min(max(joules, counted_j - reach_j), counted_j + reach_j)
        if limit_w is not None:
            highest_j = self.energy_j + limit_w * seconds
            exceeds = counted_j - highest_j > 2.0 * _TICK_S * limit_w
            joules = counted_j if exceeds else min(joules, highest_j)
            self.exceeded |= exceeds
        self.energy_j = max(self.energy_j, joules)
        self._last_s = now_s
        if (mean_s := now_s - self._mean_from_s) >= _SHORT_S:
            self._mean_w = (counted_j - self._mean_from_j) / mean_s
            self._mean_from_s, self._mean_from_j = now_s, counted_j


class PowerIntegrator:
    """Integrate power readings to joules by the trapezoidal rule.

    Args:
        read_w: Returns the power in W.
        now_s: The present time in seconds.

    Attributes:
        energy_j: Joules until the last sample.
        widest_gap_s: The most seconds between two samples.
        highest_w: The highest sample in W.
    """

    def __init__(self, read_w: Callable[[], float], now_s: float) -> None:
        self._read_w = read_w
        self._last_w, self._last_s = read_w(), now_s
        self.energy_j = 0.0
        self.widest_gap_s = 0.0
        self.highest_w = self._last_w

    def update(self, now_s: float) -> None:
        """Take one sample."""
        power_w, gap_s = self._read_w(), now_s - self._last_s
        self.energy_j += 0.5 * (power_w + self._last_w) * gap_s
        self.widest_gap_s = max(self.widest_gap_s, gap_s)
        self.highest_w = max(self.highest_w, power_w)
        self._last_w, self._last_s = power_w, now_s


class CounterCheck:
    """Compare a counter with the integrated power over some seconds.

    Args:
        counter: The counter.
        read_w: Returns the power in W.
        now_s: The present time in seconds.

    Attributes:
        seconds: Seconds compared so far.
        counted_j: Joules by the counter over that time.
        integrated_j: Joules by the power over that time.
    """

    def __init__(self, counter: EnergyCounter, read_w: Callable[[], float], now_s: float) -> None:
        self._counter = counter
        self._read_w = read_w
        self._begin(now_s)

    @property
    def agree(self) -> bool:
        """``True`` if the two differ by no more than ticks and sensors may."""
        low_j, high_j = sorted((self.counted_j, self.integrated_j))
        return high_j - low_j < _CHECK_MIN_J or high_j <= _CHECK_MAX_RATIO * low_j

    def update(self, now_s: float) -> bool:
        """Take one sample; return ``True`` once the comparison is done."""
        self._power.update(now_s)
        self.seconds = now_s - self._began_s
        starved = self._power.widest_gap_s > _CHECK_MAX_GAP_S
        if self.seconds < _CHECK_S and not starved:
            return False
        self._counter.update(now_s)
        if starved or self._counter.restarts > self._restarts:
            self._begin(now_s)  # too few samples or joules to blame the counter
            return False
        self.counted_j = self._counter.energy_j - self._began_j
        self.integrated_j = self._power.energy_j
        return True

    def _begin(self, now_s: float) -> None:
        self._counter.update(now_s)
        self._began_s, self._began_j = now_s, self._counter.energy_j
        self._restarts = self._counter.restarts
        self._power = PowerIntegrator(self._read_w, now_s)
        self.seconds = self.counted_j = self.integrated_j = 0.0
