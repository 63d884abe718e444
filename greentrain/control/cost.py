"""Cost model: predict the joules of an update as a fixed part plus steps times joules per step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from greentrain.control.action import NOTHING, Estimate
from greentrain.control.regression import posterior
from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError

_SURE_SD = 2.0
_MARGIN = 0.05
_PRIOR_NOISE = 0.1
_PRIOR_NOISE_WEIGHT = 2.0
_OTHER_MODES = 0.3
_FORGETTING = 0.7
"""Weight of an update relative to the next one: machines get warm, and their load changes."""
_REMEMBERED = 64
"""Updates that are kept; the noise is estimated from all of them."""
_LEAST_J = 1e-9
"""Joules below which a measurement is ignored."""
_Observed = tuple[np.ndarray, np.ndarray, np.ndarray]


class CostModel:
    """Predict the joules of an update from its steps.

    The two weights (joules of every update, joules per step) have a prior from one measured
    calibration. They are learned by weighted Bayesian regression. An observation of the same update
    mode has full weight. One of another mode has less, because the steps are alike and the data
    pipelines are not. Old observations fade. The noise is relative, and is itself estimated.
    """

    def __init__(self) -> None:
        self._prior: tuple[float, float] | None = None
        self._observed: list[tuple[UpdateMode, int, float]] = []
        self._learned: dict[UpdateMode, tuple[float, _Observed]] = {}

    @property
    def calibrated(self) -> bool:
        """True once the joules per step are measured."""
        return self._prior is not None

    def calibrate(self, *, fixed_j: float, step_j: float) -> None:
        """Set the prior from a calibration: joules of a fit without its steps, and joules per step.

        Raises:
            ConfigurationError: If a value is negative or not finite.
        """
        for name, value in (("fixed_j", fixed_j), ("step_j", step_j)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"{name} is {value!r}; set it to joules, 0 or more")
        self._prior = (fixed_j, step_j)

    def observe(self, mode: UpdateMode, steps: int, actual_j: float) -> None:
        """Learn from the measured joules of an update."""
        if steps > 0 and actual_j > _LEAST_J:
            self._learned.clear()
            self._observed.append((mode, steps, actual_j))
            del self._observed[:-_REMEMBERED]

    def state_dict(self) -> dict[str, Any]:
        """Return the prior and the observations as plain values."""
        observed = [[str(mode), steps, actual_j] for mode, steps, actual_j in self._observed]
        return {"prior": self._prior and list(self._prior), "observed": observed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from :meth:`state_dict`."""
        self._prior = state["prior"] and (float(state["prior"][0]), float(state["prior"][1]))
        self._learned.clear()
        self._observed = [(UpdateMode(mode), *rest) for mode, *rest in state["observed"]]

    def predict(self, mode: UpdateMode, steps: int) -> Estimate:
        """Predict the joules of an update.

        Returns:
            The mean, its standard deviation and the upper bound to reserve. The bound is the mean
            plus two standard deviations, and at least 5 % above the mean.

        Raises:
            ConfigurationError: If it is not calibrated.
        """
        if mode is UpdateMode.SKIP:
            return NOTHING
        if self._prior is None:
            raise ConfigurationError(
                "the cost model has no measured joules per step; calibrate it first"
            )
        fixed_j, step_j = self._prior
        prior = np.array([fixed_j, step_j])
        # Scaled to this update, so that the constants have no unit.
        scale_j = max(fixed_j + steps * step_j, 1e-12)
        prior_sd = np.array([0.5 * max(fixed_j, 0.02 * scale_j), 0.3 * max(step_j, 1e-12)])
        if mode not in self._learned:
            noise = self._relative_noise()
            self._learned[mode] = noise, self._weighted(mode, noise)
        noise, (rows, targets, sds) = self._learned[mode]
        weights, covariance = posterior(prior, prior_sd, rows, targets, sds)
        x = np.array([1.0, float(steps)])
        mean = max(float(x @ weights), 0.0)
        sd = math.sqrt(float(x @ covariance @ x) + (noise * mean) ** 2)
        upper = max(mean + _SURE_SD * sd, mean * (1 + _MARGIN))
        return Estimate(mean=mean, sd=sd, upper=upper)

    def _weighted(self, mode: UpdateMode, noise: float) -> _Observed:
        rows, targets, sds = [], [], []
        for age, (other, steps, actual_j) in enumerate(reversed(self._observed)):
            weight = _FORGETTING**age * (1.0 if other is mode else _OTHER_MODES)
            rows.append([1.0, float(steps)])
            targets.append(actual_j)
            sds.append(noise * actual_j / math.sqrt(weight))
        return np.array(rows).reshape(-1, 2), np.array(targets), np.array(sds)

    def _relative_noise(self) -> float:
        # Residuals of a plain least-squares line, pooled with a prior guess.
        rows, targets, _ = self._weighted(UpdateMode.SKIP, _PRIOR_NOISE)
        squares = _PRIOR_NOISE_WEIGHT * _PRIOR_NOISE**2
        if len(targets) > 2:
            shares = rows / targets[:, None]
            line, *_ = np.linalg.lstsq(shares, np.ones(len(targets)), rcond=None)
            squares += float(np.sum((shares @ line - 1.0) ** 2))
            return math.sqrt(squares / (_PRIOR_NOISE_WEIGHT + len(targets) - 2))
        return _PRIOR_NOISE
