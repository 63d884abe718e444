"""Predict the energy of a training from a few measured steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from greentrain.energy.run_forecast import Forecast, predict_total
from greentrain.errors import ConfigurationError

DRIFT = 0.19
"""Half of the interval of 95 % for a drift of the load, as a share of the energy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepForecast:
    """Energy of a few measured steps, and of a fit around its steps.

    Args:
        parts_j: Joules of each part of the measured steps, in order.
        part_steps: Steps of each part.
        fixed_j: Joules of a fit that do not depend on its steps: start, validation and end.

    Raises:
        ConfigurationError: If no energy was measured, or a figure is negative or not finite.
    """

    parts_j: tuple[float, ...]
    part_steps: int
    fixed_j: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(each) and each >= 0 for each in (*self.parts_j, self.fixed_j)):
            raise ConfigurationError(
                f"parts_j is {self.parts_j!r} and fixed_j is {self.fixed_j!r}; joules are finite, "
                "0 or more"
            )
        if self.part_steps < 1 or not sum(self.parts_j) > 0:
            raise ConfigurationError(
                "the meter measured no energy in the steps of the estimate; measure longer with "
                "more seconds, or see with 'greentrain doctor' what this machine can measure"
            )

    def predict(self, steps: int, *, fits: int = 1) -> Forecast:
        """Predict the joules of fits, with an interval of 95 %.

        The steps are predicted by :func:`predict_total`, with parts in place of epochs. So the
        first part is left out, because it warms up. All parts were measured in the same seconds, so
        they do not show how the load drifts until the training and in it. An independent error of
        19 % is added for that: the root of the sum of squares. It is the largest error that
        Anthony et al. 2020 (Carbontracker, arXiv:2007.03051) report for a prediction from one
        epoch. The joules around the steps were measured once, so their interval is that after one
        epoch. The ends of both intervals are added.

        Args:
            steps: Steps of all fits together.
            fits: Number of fits.

        Raises:
            ConfigurationError: If a number is negative.

        Example:
            >>> measured = StepForecast(parts_j=(9.0, 5.0, 5.0, 5.0), part_steps=10, fixed_j=2.0)
            >>> measured.predict(100, fits=2).mean_j  # 0.5 J for each step, and 2 J for each fit
            54.0
            >>> steady = StepForecast(parts_j=(5.0,) * 4, part_steps=10).predict(10_000)
            >>> round(steady.low_j), steady.mean_j, round(steady.high_j)
            (3989, 5000.0, 6011)
        """
        of_steps = predict_total(self.parts_j, 0.0, steps / self.part_steps)
        around = predict_total([self.fixed_j], 0.0, fits)
        if of_steps is None or around is None:  # no part was measured, which was refused above
            raise ConfigurationError("no steps were measured")
        half_j = math.hypot(of_steps.high_j - of_steps.mean_j, DRIFT * of_steps.mean_j)
        return Forecast(
            mean_j=of_steps.mean_j + around.mean_j,
            low_j=max(0.0, of_steps.mean_j - half_j) + around.low_j,
            high_j=of_steps.mean_j + half_j + around.high_j,
        )
