"""Priors of the gain of an update, and their fit to gains that earlier streams measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from greentrain.control.regression import Vector, posterior
from greentrain.control.update_modes import UPDATE_MODES, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.units import is_number

FEATURES = ("drop", "more steps", "growth", "debt", "missing steps")
"""Names of the features of the gain: see :class:`~greentrain.control.utility.UtilityModel`."""
NOISE_SD = 0.01
"""Scatter of a measured gain in units of the metric, in addition to its sampling error."""
_SD = (0.15, 0.07, 0.15, 0.05, 0.02)
_ROUNDS = 200
_TRAINED = tuple(mode for mode in UpdateMode if mode is not UpdateMode.SKIP)
_FORMAT = "greentrain priors 1"

Gains = Sequence[Sequence[float]]
"""Measured gains: features, gain and its standard error in each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GainPriors:
    """Normal priors of the weights of the features, for each update mode.

    Args:
        means: Means, in the order of :data:`FEATURES`.
        sds: Standard deviations, likewise.
        updates: Number of measured gains that they were fitted to.
    """

    means: Mapping[UpdateMode, tuple[float, ...]] = field(
        default_factory=lambda: {mode: UPDATE_MODES[mode].prior_weights for mode in _TRAINED}
    )
    sds: Mapping[UpdateMode, tuple[float, ...]] = field(
        default_factory=lambda: dict.fromkeys(_TRAINED, _SD)
    )
    updates: Mapping[UpdateMode, int] = field(default_factory=lambda: dict.fromkeys(_TRAINED, 0))

    def as_dict(self) -> dict[str, Any]:
        """Return them as plain values, as in a file of priors."""
        return {
            "format": _FORMAT,
            "features": list(FEATURES),
            "modes": {
                str(mode): {
                    "means": list(self.means[mode]),
                    "sds": list(self.sds[mode]),
                    "updates": self.updates[mode],
                }
                for mode in _TRAINED
            },
        }


def fit_priors(streams: Sequence[Mapping[UpdateMode, Gains]]) -> GainPriors:
    """Fit priors to the gains of earlier streams.

    The weights of the streams are samples of a normal distribution. Its mean and its diagonal
    covariance are found by expectation maximization (Gelman et al. 2013, *Bayesian Data
    Analysis*, section 15.5). The default priors count as one more stream.

    Args:
        streams: The gains of each stream, by update mode.

    Example:
        >>> taught = {UpdateMode.FULL_RETRAIN: [(0.2, 0.0, 0.0, 0.0, 0.0, 0.1, 0.001)] * 20}
        >>> fitted = fit_priors([taught, taught, taught])
        >>> round(fitted.means[UpdateMode.FULL_RETRAIN][0], 2)  # 0.95 by default, 0.5 in a stream
        0.61
        >>> fitted.updates[UpdateMode.FULL_RETRAIN], fitted.updates[UpdateMode.REPLAY]
        (60, 0)
    """
    default = GainPriors()
    means, sds, updates = dict(default.means), dict(default.sds), dict(default.updates)
    for mode in _TRAINED:
        seen = [np.array(one[mode], dtype=np.float64) for one in streams if one.get(mode)]
        if seen:
            mean, sd = _fit(seen, np.array(means[mode]), np.array(sds[mode]))
            means[mode], sds[mode] = tuple(mean.tolist()), tuple(sd.tolist())
            updates[mode] = sum(len(rows) for rows in seen)
    return GainPriors(means=means, sds=sds, updates=updates)


def _fit(seen: Sequence[Vector], mean: Vector, sd: Vector) -> tuple[Vector, Vector]:
    first_mean, first_sd = mean, sd
    for _ in range(_ROUNDS):
        found = [
            posterior(mean, sd, rows[:, :-2], rows[:, -2], np.hypot(rows[:, -1], NOISE_SD))
            for rows in seen
        ]
        mean = (first_mean + sum(each for each, _ in found)) / (1 + len(found))
        scatter = sum((each - mean) ** 2 + np.diag(covariance) for each, covariance in found)
        sd = np.sqrt((first_sd**2 + (first_mean - mean) ** 2 + scatter) / (1 + len(found)))
    return mean, sd


def prediction_error(priors: GainPriors, stream: Mapping[UpdateMode, Gains]) -> float | None:
    """Return the mean absolute error of a stream's gains, as predicted by priors alone.

    Args:
        priors: The priors.
        stream: The gains of the stream, by update mode.

    Returns:
        The error in units of the metric; ``None`` without a gain.
    """
    errors = [
        abs(float(np.dot(row[:-2], priors.means[mode])) - row[-2])
        for mode, rows in stream.items()
        for row in rows
    ]
    return math.fsum(errors) / len(errors) if errors else None


def read_priors(path: str | Path) -> GainPriors:
    """Read priors from a file that ``greentrain priors fit`` wrote.

    Raises:
        ConfigurationError: If there is no such file, or it has no usable priors.
    """
    place = Path(path)
    try:
        held = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the priors {str(place)!r}: {error.strerror}; write them with: greentrain "
            "priors fit LEDGER --out FILE"
        ) from None
    except ValueError:
        raise _unusable(place, "it is no JSON") from None
    if not isinstance(held, dict) or held.get("format") != _FORMAT:
        raise _unusable(place, f"it has no 'format': {_FORMAT!r}")
    if held.get("features") != list(FEATURES):
        raise _unusable(place, f"its features are not {', '.join(FEATURES)}")
    modes = held.get("modes")
    if not isinstance(modes, dict) or set(modes) != {str(mode) for mode in _TRAINED}:
        raise _unusable(place, f"its modes are not {', '.join(_TRAINED)}")
    for mode, one in modes.items():
        for key, least in (("means", -math.inf), ("sds", 0.0)):
            values = one.get(key) if isinstance(one, dict) else None
            if (
                not isinstance(values, list)
                or len(values) != len(FEATURES)
                or not all(is_number(each) and least < each < math.inf for each in values)
            ):
                above = " above 0" if key == "sds" else ""
                raise _unusable(
                    place, f"'{key}' of {mode} are not {len(FEATURES)} finite numbers{above}"
                )
    return GainPriors(
        means={mode: tuple(map(float, modes[mode]["means"])) for mode in _TRAINED},
        sds={mode: tuple(map(float, modes[mode]["sds"])) for mode in _TRAINED},
        updates={mode: int(modes[mode].get("updates") or 0) for mode in _TRAINED},
    )


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the priors {str(path)!r} cannot be used: {why}; write them again with: greentrain priors "
        "fit LEDGER --out FILE"
    )
