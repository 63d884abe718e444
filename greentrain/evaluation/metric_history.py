"""How the metric of a stream has gone, turned so that more is always better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from greentrain.evaluation.measured import Measured, difference, worse


class MetricHistory:
    """Remember what updates reached.

    Args:
        more_is_better: Whether a larger metric is a better one.

    Attributes:
        last: What the last update reached, oriented; ``None`` before the first.
        best: The best that any update has reached, oriented; ``None`` before the first.

    Example:
        >>> loss = MetricHistory(more_is_better=False)
        >>> loss.take(0.5), loss.take(0.75)
        (None, None)
        >>> loss.last, loss.best
        (-0.75, -0.5)
    """

    def __init__(self, *, more_is_better: bool) -> None:
        self._sign = 1.0 if more_is_better else -1.0
        self.last: float | None = None
        self.best: float | None = None

    def oriented(self, metric: float | None) -> float | None:
        """Turn a metric so that more is better; ``None`` if it is unknown or not finite."""
        return self._sign * metric if metric is not None and math.isfinite(metric) else None

    def ceiling(self) -> float | None:
        """Return the best that can be reached: 1 for nearly every metric, 0 for every loss.

        ``None`` where what was reached shows that neither holds.
        """
        ceiling = 1.0 if self._sign > 0 else 0.0
        return None if self.best is None or self.best > ceiling else ceiling

    def gain(self, before: Measured, after: Measured) -> tuple[float, float]:
        """Return by how much the metric got better, and the standard error; may be NaN.

        The error is that of the paired blocks, and on top what one sample may change: that two
        models agree on 32 samples says little of how they do on others.
        """
        gain, error = difference(before, after, sign=self._sign)
        return gain, math.hypot(error, before.resolution)

    def without(self, metric: float, gain: float | None) -> float | None:
        """Return what a metric was before a gain; ``None`` where that is unknown."""
        return None if gain is None else metric - self._sign * gain

    def worse(self, before: Measured, after: Measured) -> bool:
        """Tell whether the metric got worse by more than one standard error."""
        return worse(before, after, sign=self._sign)

    def take(self, metric: float) -> None:
        """Take up what an update that is kept has reached."""
        self.last = self._sign * metric
        self.best = self.last if self.best is None else max(self.best, self.last)

    def state_dict(self) -> dict[str, Any]:
        """Return what was reached, as plain values."""
        return {"last": self.last, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.last, self.best = state["last"], state["best"]
