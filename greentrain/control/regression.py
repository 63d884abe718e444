"""Bayesian linear regression in closed form, the basis of the cost and the utility model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def posterior(
    prior_mean: Vector, prior_sd: Vector, rows: Vector, targets: Vector, noise_sd: Vector
) -> tuple[Vector, Vector]:
    """Update a Gaussian prior over weights with noisy linear observations.

    Bishop, *Pattern Recognition and Machine Learning* (2006), equations 3.50 and 3.51, with a
    separate noise for each observation.

    Args:
        prior_mean: Prior mean of the weights, ``(features,)``.
        prior_sd: Their prior standard deviations, ``(features,)``; the weights are independent.
        rows: Observed features, ``(observations, features)``; may be empty.
        targets: Observed values, ``(observations,)``.
        noise_sd: Standard deviation of each observation, ``(observations,)``.

    Returns:
        Mean ``(features,)`` and covariance ``(features, features)`` of the weights.

    Example:
        >>> one = np.array([1.0])
        >>> mean, covariance = posterior(0 * one, one, np.array([[1.0]]), one, one)
        >>> float(mean[0]), float(covariance[0, 0])  # half way between prior and observation
        (0.5, 0.5)
    """
    precision = np.diag(1.0 / prior_sd**2)
    information = prior_mean / prior_sd**2
    if len(targets):
        weights = 1.0 / noise_sd**2
        precision = precision + (rows * weights[:, None]).T @ rows
        information = information + rows.T @ (weights * targets)
    covariance = np.linalg.inv(precision)
    return covariance @ information, np.asarray(covariance, dtype=np.float64)
