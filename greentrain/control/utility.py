"""Utility model: predict the gain of an update, learned for each update mode."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from greentrain.control.action import Action, Estimate
from greentrain.control.priors import NOISE_SD, GainPriors
from greentrain.control.regression import Vector, posterior
from greentrain.control.staleness import Case
from greentrain.control.state import UNKNOWN_ROOM, State
from greentrain.control.update_modes import UPDATE_MODES, UpdateMode

_Kind = tuple[UpdateMode, str]
"""An update mode, and the name of an offered method; empty without one."""
_OTHER_MODES = 0.5
"""Weight of gains measured for other modes that keep the last weights."""
_PER_FULL = 75.0
"""Step scale of the gain: a full retraining in these units."""
_MOST_GROWTH = 9.0
"""Largest growth of the data that counts, as a share: beyond it the gain would exceed the room."""
_REMEMBERED = 200
"""Updates of each mode that are kept."""


class UtilityModel:
    """Predict the gain of an action by Bayesian ridge regression, one for each update mode.

    The gain grows with the logarithm of the steps, ``line = log2(1 + 75 * share) / 4``: each
    doubling gains about the same again. The share is relative to a full retraining now.
    The five features are:

    1. the drop times the square root of that line, or 1 if that is less, as a drop is recovered
       first and cannot be recovered twice. Here the share is of the steps on new data, which a
       replay has as many of as a longer warm start;
    2. the room (error of the last model) times the line less that of the last update: a model that
       was trained for long gains nothing from a short one;
    3. the room times the line times the growth of the data;
    4. the room times the line times the plasticity debt (updates since the last full retraining,
       over ten);
    5. for a full retraining, its missing steps, ``1 / step_fraction - 1``, times the room or 0.1,
       the larger of the two.

    Gains, drops and room are in units of the metric: see
    :attr:`~greentrain.control.state.State.unit`.

    An offered method has separate weights in each mode. They start as those of the plain mode,
    with the standard deviations of the prior, and no other gains change them. Its steps count as
    :attr:`worth` plain steps each.

    Args:
        priors: Priors of the weights; by default those of
            :class:`~greentrain.control.update_modes.ModeTraits`.

    Attributes:
        worth: Plain steps that a step of each offered method counts as, by the name of the method;
            1 unless set. With the ratio of their costs, a method that was never used is expected
            to gain as much per joule as the plain mode.
    """

    def __init__(self, priors: GainPriors | None = None) -> None:
        self._priors = priors or GainPriors()
        self._rows: dict[_Kind, list[Vector]] = defaultdict(list)
        self._gains: dict[_Kind, list[tuple[float, float]]] = defaultdict(list)
        self._posterior: dict[_Kind, tuple[Vector, Vector]] = {}
        self.worth: dict[str, float] = {}

    def observe(
        self,
        action: Action,
        state: State,
        gain: float,
        sd: float = 0.0,
        *,
        drop: float | None = None,
    ) -> None:
        """Learn from a measured gain.

        Args:
            action: The action.
            state: The state before it.
            gain: The gain.
            sd: Its standard error.
            drop: The drop by the new data; that of the state unless given.
        """
        if action.mode is UpdateMode.SKIP or not (math.isfinite(gain) and math.isfinite(sd)):
            return
        known, kind = max(0.0, state.drop) if drop is None else drop, _kind(action)
        self._rows[kind].append(_features(self._counted(action), state, known))
        self._gains[kind].append((gain / state.unit, sd / state.unit))
        del self._rows[kind][:-_REMEMBERED], self._gains[kind][:-_REMEMBERED]
        self._posterior.clear()

    def observed(self) -> dict[UpdateMode, list[list[float]]]:
        """Return the observed gains of each plain mode: features, gain and its standard error."""
        return {mode: self._observed((mode, method)) for mode, method in self._rows if not method}

    def _observed(self, kind: _Kind) -> list[list[float]]:
        return [
            [*map(float, row), *gain]
            for row, gain in zip(self._rows[kind], self._gains[kind], strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the observed gains as plain values."""
        return {"+".join(filter(None, kind)): self._observed(kind) for kind in self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from :meth:`state_dict`."""
        self._rows.clear()
        self._gains.clear()
        self._posterior.clear()
        for key, observed in state.items():
            mode, _, method = key.partition("+")
            self._rows[UpdateMode(mode), method] = [np.array(row[:-2]) for row in observed]
            self._gains[UpdateMode(mode), method] = [(row[-2], row[-1]) for row in observed]

    def forget(self, method: str) -> None:
        """Forget the gains of an offered method."""
        for kind in [each for each in self._rows if each[1] == method]:
            del self._rows[kind], self._gains[kind]
        self._posterior.clear()

    def predict(
        self, action: Action, state: State, drops: Sequence[Case] | None = None
    ) -> Estimate:
        """Predict the gain of an action in a state: see :meth:`predict_all`."""
        return self.predict_all([action], state, drops)[0]

    def predict_all(
        self, actions: Sequence[Action], state: State, drops: Sequence[Case] | None = None
    ) -> list[Estimate]:
        """Predict the gains of several actions in a state, in less time than one by one.

        Args:
            actions: The actions.
            state: The state.
            drops: Possible drops by the new data, with their probabilities; that of the state
                unless given.
        """
        drops = [(max(0.0, state.drop), 1.0)] if drops is None else drops
        means, sds = self.gains(actions, state, [drop for drop, _ in drops])
        # Sums over rows round alike for options that are alike, as a product of matrices does not.
        weights = np.array([weight for _, weight in drops])[:, None]
        mean = (weights * means).sum(axis=0)
        sd = np.sqrt((weights * (sds**2 + (means - mean) ** 2)).sum(axis=0))
        return [
            Estimate(mean=each, sd=error, upper=each + 2 * error)
            for each, error in zip(mean.tolist(), sd.tolist(), strict=True)
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
        for kind in dict.fromkeys(map(_kind, actions)):
            if kind[0] is UpdateMode.SKIP:
                continue
            columns = [column for column, action in enumerate(actions) if _kind(action) == kind]
            weights, covariance = self._weights(kind)
            features = np.array(
                [_features(self._counted(actions[column]), state, 1.0) for column in columns]
            )
            rows = np.tile(features, (len(drops), 1, 1))  # (drops, columns, features)
            rows[:, :, 0] *= np.asarray(drops)[:, None]
            means[:, columns] = rows @ weights
            sds[:, columns] = np.sqrt(np.maximum(0.0, ((rows @ covariance) * rows).sum(axis=2)))
        return means * state.unit, sds * state.unit

    def _counted(self, action: Action) -> Action:
        """Return an action with the step fraction that its steps count as."""
        worth = self.worth.get(action.method, 1.0)
        return action if worth == 1 else replace(action, step_fraction=action.step_fraction * worth)

    def _weights(self, kind: _Kind) -> tuple[Vector, Vector]:
        if kind not in self._posterior:
            mode, method = kind
            prior = self._weights((mode, ""))[0] if method else np.array(self._priors.means[mode])
            seen = [(kind, 1.0), *(((other, method), weight) for other, weight in _alike(mode))]
            rows = [row for each, _ in seen for row in self._rows.get(each, ())]
            observed = [
                (*gain, weight) for each, weight in seen for gain in self._gains.get(each, ())
            ]
            noise = [math.hypot(sd, NOISE_SD) / math.sqrt(weight) for _, sd, weight in observed]
            self._posterior[kind] = posterior(
                prior,
                np.array(self._priors.sds[mode]),
                np.array(rows).reshape(-1, len(prior)),
                np.array([gain for gain, _, _ in observed]),
                np.array(noise),
            )
        return self._posterior[kind]


def _kind(action: Action) -> _Kind:
    return action.mode, action.method


def _alike(mode: UpdateMode) -> list[tuple[UpdateMode, float]]:
    """Return the other modes that keep the last weights as this one does, with their weight."""
    if not UPDATE_MODES[mode].keeps_weights:
        return []
    return [
        (other, _OTHER_MODES)
        for other, traits in UPDATE_MODES.items()
        if traits.keeps_weights and other is not mode
    ]


def freshness(state: State) -> float:
    """Return the share of the room that further training on the new data may still close.

    Copies of samples bring nothing once the model is trained to the end: once it had as many steps
    as a full retraining has. A model that had fewer gains from them as from any other sample.

    Example:
        >>> def of(copies, effort):
        ...     return freshness(State(position=1, num_experiences=2, has_model=True,
        ...         metric_before=None, copies=copies, effort=effort))
        >>> of(copies=0.0, effort=1.0), of(copies=1.0, effort=0.25), of(copies=1.0, effort=1.0)
        (1.0, 0.75, 0.0)
    """
    copies, n_all = state.copies or 0.0, max(1, state.n_new + state.n_stored)
    # Trained to the end is relative to the samples that differ.
    distinct = max(1.0 - copies * state.n_new / n_all, 1 / n_all)
    effort = 0.0 if state.effort is None else min(1.0, state.effort / distinct)
    return 1.0 - copies * effort


def _line(share: float) -> float:
    """Return the logarithm of the steps, which are a share of those of a full retraining."""
    return math.log2(1.0 + _PER_FULL * share) / 4.0


def _features(action: Action, state: State, drop: float) -> Vector:
    n_all, traits = max(1, state.n_new + state.n_stored), UPDATE_MODES[action.mode]
    full = not traits.keeps_weights
    share = action.step_fraction * (1.0 if full else state.warm_share)
    # Replay and fine-tuning see the new samples as often as a warm start does, in fewer steps.
    on_new = _line(share)
    share *= {"new": state.n_new, "mixed": 2 * state.n_new}.get(traits.data, n_all) / n_all
    line = _line(share)
    last = _line(state.warm_share if state.last_share is None else state.last_share)
    room = UNKNOWN_ROOM if state.room is None else state.room / state.unit
    room *= freshness(state)
    debt = min(state.warm_starts, 10) / 10
    # Of unknown earlier data, as many are assumed as there are new.
    growth = math.log1p(min(state.n_new / (state.n_stored or max(1, state.n_new)), _MOST_GROWTH))
    lacking = 1.0 / action.step_fraction - 1.0 if full else 0.0
    # A short training from fresh weights misses as much, however good the last model is.
    missed = lacking * max(room, UNKNOWN_ROOM)
    return np.array(
        [
            drop / state.unit * min(1.0, math.sqrt(on_new)),
            room * (line - last),
            room * line * growth,
            room * line * debt,
            missed,
        ],
        dtype=np.float64,
    )
