"""What an update will gain: the change of the metric, learned for each update mode."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from greentrain.control.action import Action, Estimate, State, UpdateMode
from greentrain.control.regression import Vector, posterior

_EFFORT_EXPONENT = 0.3
_NOISE_SD = 0.02
_REMEMBERED = 1000
"""Updates of each mode that are remembered."""
_PRIOR_SD = np.array([0.2, 0.2, 0.2, 0.2])

PRIOR_WEIGHTS: dict[UpdateMode, tuple[float, float, float, float]] = {
    UpdateMode.FULL_RETRAIN: (1.0, 0.3, 0.4, 0.0),
    UpdateMode.WARM_START: (0.95, 0.15, 0.4, -0.2),
    UpdateMode.REPLAY: (0.85, 0.1, 0.3, -0.3),
}
"""Prior weights of (drop, shortfall, growth, drop x plasticity debt) in each update mode's gain.

Full retraining makes up for the drop; a warm start on all data comes within a few points of it (Ash
& Adams 2020 report 2 to 4 points, less with shrink-and-perturb); replay makes up for most of it in
far fewer steps (Prabhu et al. 2023). They are priors only: what updates gain here replaces them.
"""


class UtilityModel:
    """Predict the gain of an action by Bayesian ridge regression, one for each update mode.

    The features are what the new data cost the metric, how far the last update stayed below the
    best one, how much more data there are times what they can still teach, and the first times the
    plasticity debt (updates since the last full retraining, over ten). All are scaled by
    ``effort ** 0.3``: half of the steps give four fifths of the gain.
    """

    def __init__(self) -> None:
        self._rows: dict[UpdateMode, list[Vector]] = defaultdict(list)
        self._gains: dict[UpdateMode, list[float]] = defaultdict(list)

    def observe(self, action: Action, state: State, gain: float) -> None:
        """Learn from an update whose gain was measured."""
        if action.mode is not UpdateMode.SKIP and math.isfinite(gain):
            self._rows[action.mode].append(_features(action, state, state.drop))
            self._gains[action.mode].append(gain)
            del self._rows[action.mode][:-_REMEMBERED], self._gains[action.mode][:-_REMEMBERED]

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as plain values."""
        return {
            str(mode): [
                [*map(float, row), gain] for row, gain in zip(rows, self._gains[mode], strict=True)
            ]
            for mode, rows in self._rows.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._rows.clear()
        self._gains.clear()
        for mode, observed in state.items():
            self._rows[UpdateMode(mode)] = [np.array(row[:-1]) for row in observed]
            self._gains[UpdateMode(mode)] = [row[-1] for row in observed]

    def predict(self, action: Action, state: State, *, drop: float | None = None) -> Estimate:
        """Predict the gain of an action.

        Args:
            action: The action.
            state: What is known.
            drop: Imagine this drop in place of the state's, to look ahead.
        """
        if action.mode is UpdateMode.SKIP:
            return Estimate(mean=0.0, sd=0.0, upper=0.0)
        prior = np.array(PRIOR_WEIGHTS[action.mode])
        rows = np.array(self._rows[action.mode]).reshape(-1, len(prior))
        gains = np.array(self._gains[action.mode])
        weights, covariance = posterior(
            prior, _PRIOR_SD, rows, gains, np.full(len(gains), _NOISE_SD)
        )
        x = _features(action, state, state.drop if drop is None else drop)
        mean = float(x @ weights)
        sd = math.sqrt(float(x @ covariance @ x))
        return Estimate(mean=mean, sd=sd, upper=mean + 2 * sd)


def _features(action: Action, state: State, drop: float) -> Vector:
    debt = min(state.warm_starts, 10) / 10
    features = np.array([drop, state.shortfall, state.growth, drop * debt], dtype=np.float64)
    return features * float(action.effort**_EFFORT_EXPONENT)
