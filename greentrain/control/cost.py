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
_OTHER_METHODS = 0.1
"""Weight of an update with another method, for a step whose cost is known by its operations."""
_STEP_SD, _STEP_SD_OF_METHOD = 0.3, 1.0
"""Prior standard deviation of the joules per step, as a share of them."""
_REMEMBERED = 64
"""Updates that are kept; the noise is estimated from all of them."""
_LEAST_J = 1e-9
"""Joules below which a measurement is ignored."""
_Kind = tuple[UpdateMode, str]
"""An update mode, and the name of an offered method; empty without one."""
_Observed = tuple[np.ndarray, np.ndarray, np.ndarray]


class CostModel:
    """Predict the joules of an update from its steps.

    The two weights (joules of every update, joules per step) have a prior from one measured
    calibration. They are learned by weighted Bayesian regression. An observation of the same update
    mode has full weight. One of another mode has less, because the steps are alike and the data
    pipelines are not. Old observations fade. The noise is relative, and is itself estimated.

    Steps of an offered method count as the plain steps with as many operations. Each method has a
    separate line over them, which starts as the plain one with a wider prior.
    """

    def __init__(self) -> None:
        self._prior: tuple[float, float] | None = None
        self._observed: list[tuple[_Kind, float, float]] = []
        self._learned: dict[_Kind, tuple[float, _Observed]] = {}

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

    def observe(self, mode: UpdateMode, steps: float, actual_j: float, *, method: str = "") -> None:
        """Learn from the measured joules of an update.

        Args:
            mode: The update mode.
            steps: Its steps; with a method, the plain steps with as many operations.
            actual_j: Joules.
            method: Name of an offered method; empty for none.
        """
        if steps > 0 and actual_j > _LEAST_J:
            self._learned.clear()
            self._observed.append(((mode, method), steps, actual_j))
            del self._observed[:-_REMEMBERED]

    def state_dict(self) -> dict[str, Any]:
        """Return the prior and the observations as plain values."""
        observed = [
            [str(mode), steps, actual_j, *([method] if method else [])]
            for (mode, method), steps, actual_j in self._observed
        ]
        return {"prior": self._prior and list(self._prior), "observed": observed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from :meth:`state_dict`."""
        self._prior = state["prior"] and (float(state["prior"][0]), float(state["prior"][1]))
        self._learned.clear()
        self._observed = [
            ((UpdateMode(mode), "".join(method)), steps, actual_j)
            for mode, steps, actual_j, *method in state["observed"]
        ]

    def forget(self, method: str) -> None:
        """Forget the joules of an offered method."""
        self._observed = [each for each in self._observed if each[0][1] != method]
        self._learned.clear()

    def predict(self, mode: UpdateMode, steps: float, *, method: str = "") -> Estimate:
        """Predict the joules of an update.

        Args:
            mode: The update mode.
            steps: Its steps; with a method, the plain steps with as many operations.
            method: Name of an offered method; empty for none.

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
        step_sd = _STEP_SD_OF_METHOD if method else _STEP_SD
        prior_sd = np.array([0.5 * max(fixed_j, 0.02 * scale_j), step_sd * max(step_j, 1e-12)])
        kind = mode, method
        if kind not in self._learned:
            noise = self._relative_noise()
            self._learned[kind] = noise, self._weighted(kind, noise)
        noise, (rows, targets, sds) = self._learned[kind]
        weights, covariance = posterior(prior, prior_sd, rows, targets, sds)
        x = np.array([1.0, float(steps)])
        mean = max(float(x @ weights), 0.0)
        sd = math.sqrt(float(x @ covariance @ x) + (noise * mean) ** 2)
        upper = max(mean + _SURE_SD * sd, mean * (1 + _MARGIN))
        return Estimate(mean=mean, sd=sd, upper=upper)

    def _weighted(self, kind: _Kind, noise: float) -> _Observed:
        rows, targets, sds = [], [], []
        for age, (other, steps, actual_j) in enumerate(reversed(self._observed)):
            alike = _OTHER_MODES if other[1] == kind[1] else _OTHER_METHODS
            weight = _FORGETTING**age * (1.0 if other == kind else alike)
            rows.append([1.0, float(steps)])
            targets.append(actual_j)
            sds.append(noise * actual_j / math.sqrt(weight))
        return np.array(rows).reshape(-1, 2), np.array(targets), np.array(sds)

    def _relative_noise(self) -> float:
        # Residuals of a plain least-squares line, pooled with a prior guess.
        rows, targets, _ = self._weighted((UpdateMode.SKIP, ""), _PRIOR_NOISE)
        squares = _PRIOR_NOISE_WEIGHT * _PRIOR_NOISE**2
        if len(targets) > 2:
            shares = rows / targets[:, None]
            line, *_ = np.linalg.lstsq(shares, np.ones(len(targets)), rcond=None)
            squares += float(np.sum((shares @ line - 1.0) ** 2))
            return math.sqrt(squares / (_PRIOR_NOISE_WEIGHT + len(targets) - 2))
        return _PRIOR_NOISE
