"""What an update will gain: the change of the metric, learned for each update mode."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from greentrain.control.action import Action, Estimate, State, UpdateMode
from greentrain.control.regression import Vector, posterior

_NOISE_SD = 0.01
"""What a measured gain scatters by besides the samples that it was measured on."""
_OTHER_MODES = 0.5
"""Weight of what a warm start taught for replay, and the other way round."""
_REMEMBERED = 200
"""Updates of each mode that are remembered."""

PRIOR_WEIGHTS: dict[UpdateMode, tuple[float, ...]] = {
    UpdateMode.FULL_RETRAIN: (0.95, 0.2, 0.1, 0.0, -0.1),
    UpdateMode.WARM_START: (0.93, 0.2, 0.08, -0.05, 0.0),
    UpdateMode.REPLAY: (0.93, 0.2, 0.06, -0.05, 0.0),
}
"""Prior weights of the features in each update mode's gain, in the order of :func:`_features`.

Their signs follow papers: full retraining makes up for a drop (Ash & Adams 2020), a warm start and
uniform replay for most of it in few steps (Prabhu et al. 2023). Their sizes were read off trainings
of a 2x400 perceptron on parts of the training sets of MNIST and Fashion-MNIST (docs/deciding.md).
They are priors only: what updates gain here replaces them.
"""
_PRIOR_SD = np.array([0.15, 0.1, 0.08, 0.05, 0.05])
UNKNOWN_ROOM = 0.1
"""The error that is assumed where no metric says how good the model is."""


class UtilityModel:
    """Predict the gain of an action by Bayesian ridge regression, one for each update mode.

    The gain grows with the logarithm of the steps, ``line = log2(1 + 15 * share) / 4`` with the
    steps as a share of those of a warm start at effort 1: each doubling brings about as much again.
    Five features: the drop times the root of that line, as a drop is made up for first; the room,
    which is the error of the last model, times the line; that times the growth of the data; the
    room times the plasticity debt (updates since the last full retraining, over ten); and, for a
    full retraining, what it lacks in steps, ``1 / step_fraction - 1``, times the room.
    """

    def __init__(self) -> None:
        self._rows: dict[UpdateMode, list[Vector]] = defaultdict(list)
        self._gains: dict[UpdateMode, list[tuple[float, float]]] = defaultdict(list)
        self._posterior: dict[UpdateMode, tuple[Vector, Vector]] = {}

    def observe(self, action: Action, state: State, gain: float, sd: float = 0.0) -> None:
        """Learn from an update whose gain was measured, with the standard error of that."""
        if action.mode is UpdateMode.SKIP or not (math.isfinite(gain) and math.isfinite(sd)):
            return
        self._rows[action.mode].append(_features(action, state, _drop(state)))
        self._gains[action.mode].append((gain, sd))
        del self._rows[action.mode][:-_REMEMBERED], self._gains[action.mode][:-_REMEMBERED]
        self._posterior.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as plain values."""
        return {
            str(mode): [
                [*map(float, row), *gain] for row, gain in zip(rows, self._gains[mode], strict=True)
            ]
            for mode, rows in self._rows.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._rows.clear()
        self._gains.clear()
        self._posterior.clear()
        for mode, observed in state.items():
            self._rows[UpdateMode(mode)] = [np.array(row[:-2]) for row in observed]
            self._gains[UpdateMode(mode)] = [(row[-2], row[-1]) for row in observed]

    def predict(self, action: Action, state: State) -> Estimate:
        """Predict the gain of an action.

        Args:
            action: The action.
            state: What is known.
        """
        mean, sd = self.gains([action], state, [_drop(state)])
        return Estimate(
            mean=float(mean[0, 0]), sd=float(sd[0, 0]), upper=float(mean[0, 0] + 2 * sd[0, 0])
        )

    def gains(
        self, actions: Sequence[Action], state: State, drops: Sequence[float]
    ) -> tuple[Vector, Vector]:
        """Predict the gains of several actions, each if the new data cost so much.

        Args:
            actions: The actions.
            state: What is known; its drop is not used.
            drops: What the new data may cost the metric.

        Returns:
            Means and standard deviations, ``(drops, actions)``.
        """
        means, sds = (np.zeros((len(drops), len(actions))) for _ in range(2))
        for column, action in enumerate(actions):
            if action.mode is UpdateMode.SKIP:
                continue
            weights, covariance = self._weights(action.mode)
            rows = np.tile(_features(action, state, 1.0), (len(drops), 1))
            rows[:, 0] *= np.asarray(drops)
            means[:, column] = rows @ weights
            sds[:, column] = np.sqrt(np.maximum(0.0, ((rows @ covariance) * rows).sum(axis=1)))
        return means, sds

    def _weights(self, mode: UpdateMode) -> tuple[Vector, Vector]:
        if mode not in self._posterior:
            prior = np.array(PRIOR_WEIGHTS[mode])
            seen = [(mode, 1.0)] if mode is UpdateMode.FULL_RETRAIN else _alike(mode)
            rows = [row for each, _ in seen for row in self._rows.get(each, ())]
            observed = [
                (*gain, weight) for each, weight in seen for gain in self._gains.get(each, ())
            ]
            noise = [math.hypot(sd, _NOISE_SD) / math.sqrt(weight) for _, sd, weight in observed]
            self._posterior[mode] = posterior(
                prior,
                _PRIOR_SD,
                np.array(rows).reshape(-1, len(prior)),
                np.array([gain for gain, _, _ in observed]),
                np.array(noise),
            )
        return self._posterior[mode]


def _alike(mode: UpdateMode) -> list[tuple[UpdateMode, float]]:
    other = UpdateMode.REPLAY if mode is UpdateMode.WARM_START else UpdateMode.WARM_START
    return [(mode, 1.0), (other, _OTHER_MODES)]


def _drop(state: State) -> float:
    # That new data go better than the last model did is chance or luck: no update takes it away.
    return max(0.0, state.drop)


def _features(action: Action, state: State, drop: float) -> Vector:
    n_all = max(1, state.n_new + state.n_stored)
    share = action.step_fraction
    if action.mode is UpdateMode.REPLAY:
        share *= 2 * state.n_new / n_all
    full = action.mode is UpdateMode.FULL_RETRAIN
    line = 1.0 if full else math.log2(1.0 + 15.0 * share) / 4.0
    room = UNKNOWN_ROOM if state.room is None else state.room
    debt = min(state.warm_starts, 10) / 10
    growth = math.log1p(state.n_new / max(1, state.n_stored))
    lacking = 1.0 / action.step_fraction - 1.0 if full else 0.0
    return np.array(
        [drop * math.sqrt(line), room * line, room * line * growth, room * debt, room * lacking],
        dtype=np.float64,
    )
