"""Utility model: predict the gain of an update, learned for each update mode."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from greentrain.control.action import Action, Estimate
from greentrain.control.regression import Vector, posterior
from greentrain.control.state import UNKNOWN_ROOM, State
from greentrain.control.update_modes import UPDATE_MODES, UpdateMode

_NOISE_SD = 0.01
"""Scatter of a measured gain in units of the metric, in addition to its sampling error."""
_OTHER_MODES = 0.5
"""Weight of gains measured for other modes that keep the last weights."""
_REMEMBERED = 200
"""Updates of each mode that are kept."""
_PRIOR_SD = np.array([0.15, 0.1, 0.08, 0.05, 0.05])


class UtilityModel:
    """Predict the gain of an action by Bayesian ridge regression, one for each update mode.

    The gain grows with the logarithm of the steps, ``line = log2(1 + 15 * share) / 4``: each
    doubling gains about the same again. The share is relative to a warm start at step fraction 1.
    The five features are:

    1. the drop times the square root of that line, as a drop is recovered first;
    2. the room (error of the last model) times the line;
    3. the second feature times the growth of the data;
    4. the room times the plasticity debt (updates since the last full retraining, over ten);
    5. for a full retraining, its missing steps, ``1 / step_fraction - 1``, times the room.

    The prior weights are in :class:`~greentrain.control.update_modes.ModeTraits`. Gains, drops and
    room are in units of the metric: see :attr:`~greentrain.control.state.State.unit`.
    """

    def __init__(self) -> None:
        self._rows: dict[UpdateMode, list[Vector]] = defaultdict(list)
        self._gains: dict[UpdateMode, list[tuple[float, float]]] = defaultdict(list)
        self._posterior: dict[UpdateMode, tuple[Vector, Vector]] = {}

    def observe(self, action: Action, state: State, gain: float, sd: float = 0.0) -> None:
        """Learn from a measured gain and its standard error."""
        if action.mode is UpdateMode.SKIP or not (math.isfinite(gain) and math.isfinite(sd)):
            return
        self._rows[action.mode].append(_features(action, state, _drop(state)))
        self._gains[action.mode].append((gain / state.unit, sd / state.unit))
        del self._rows[action.mode][:-_REMEMBERED], self._gains[action.mode][:-_REMEMBERED]
        self._posterior.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the observed gains as plain values."""
        return {
            str(mode): [
                [*map(float, row), *gain] for row, gain in zip(rows, self._gains[mode], strict=True)
            ]
            for mode, rows in self._rows.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from :meth:`state_dict`."""
        self._rows.clear()
        self._gains.clear()
        self._posterior.clear()
        for mode, observed in state.items():
            self._rows[UpdateMode(mode)] = [np.array(row[:-2]) for row in observed]
            self._gains[UpdateMode(mode)] = [(row[-2], row[-1]) for row in observed]

    def predict(self, action: Action, state: State) -> Estimate:
        """Predict the gain of an action in a state."""
        return self.predict_all([action], state)[0]

    def predict_all(self, actions: Sequence[Action], state: State) -> list[Estimate]:
        """Predict the gains of several actions in a state, in less time than one by one."""
        means, sds = (found[0].tolist() for found in self.gains(actions, state, [_drop(state)]))
        return [
            Estimate(mean=mean, sd=sd, upper=mean + 2 * sd)
            for mean, sd in zip(means, sds, strict=True)
        ]

    def gains(
        self, actions: Sequence[Action], state: State, drops: Sequence[float]
    ) -> tuple[Vector, Vector]:
        """Predict the gains of several actions, for each of several drops.

        Args:
            actions: The actions.
            state: The state; its own drop is not used.
            drops: Possible losses of the metric by the new data.

        Returns:
            Means and standard deviations, ``(drops, actions)``.
        """
        means, sds = (np.zeros((len(drops), len(actions))) for _ in range(2))
        for mode in dict.fromkeys(action.mode for action in actions):
            if mode is UpdateMode.SKIP:
                continue
            columns = [column for column, action in enumerate(actions) if action.mode is mode]
            weights, covariance = self._weights(mode)
            features = np.array([_features(actions[column], state, 1.0) for column in columns])
            rows = np.tile(features, (len(drops), 1, 1))  # (drops, columns, features)
            rows[:, :, 0] *= np.asarray(drops)[:, None]
            means[:, columns] = rows @ weights
            sds[:, columns] = np.sqrt(np.maximum(0.0, ((rows @ covariance) * rows).sum(axis=2)))
        return means * state.unit, sds * state.unit

    def _weights(self, mode: UpdateMode) -> tuple[Vector, Vector]:
        if mode not in self._posterior:
            prior = np.array(UPDATE_MODES[mode].prior_weights)
            seen = [(mode, 1.0), *_alike(mode)]
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
    """Return the other modes that keep the last weights as this one does, with their weight."""
    if not UPDATE_MODES[mode].keeps_weights:
        return []
    return [
        (other, _OTHER_MODES)
        for other, traits in UPDATE_MODES.items()
        if traits.keeps_weights and other is not mode
    ]


def _drop(state: State) -> float:
    # A negative drop (the new data score better) is chance: no update removes it.
    return max(0.0, state.drop)


def _features(action: Action, state: State, drop: float) -> Vector:
    n_all, traits = max(1, state.n_new + state.n_stored), UPDATE_MODES[action.mode]
    share = action.step_fraction
    if traits.data == "new":
        share *= 2 * state.n_new / n_all
    full = not traits.keeps_weights
    line = 1.0 if full else math.log2(1.0 + 15.0 * share) / 4.0
    room = UNKNOWN_ROOM if state.room is None else state.room / state.unit
    debt = min(state.warm_starts, 10) / 10
    growth = math.log1p(state.n_new / max(1, state.n_stored))
    lacking = 1.0 / action.step_fraction - 1.0 if full else 0.0
    return np.array(
        [
            drop / state.unit * math.sqrt(line),
            room * line,
            room * line * growth,
            room * debt,
            room * lacking,
        ],
        dtype=np.float64,
    )
