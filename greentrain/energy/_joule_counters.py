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


class PowerIntegrator:
    """Integrate power readings to joules by the trapezoidal rule.

    Args:
        read_w: Returns the power in W.
        now_s: The present time in seconds.
    """

    def __init__(self, read_w: Callable[[], float], now_s: float) -> None:
        self._read_w = read_w
        self._last_w, self._last_s = read_w(), now_s
        self.energy_j = 0.0
        self.widest_gap_s = 0.0

    def update(self, now_s: float) -> None:
        """Take one sample."""
        power_w, gap_s = self._read_w(), now_s - self._last_s
        self.energy_j += 0.5 * (power_w + self._last_w) * gap_s
        self.widest_gap_s = max(self.widest_gap_s, gap_s)
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
