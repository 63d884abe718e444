"""Convert an action to optimizer steps, and list the candidates of a decision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.control.action import Action, Candidate
from greentrain.control.update_modes import UPDATE_MODES, UpdateMode

FEWEST_STEPS = 20
"""Smallest number of steps of a candidate: a fresh optimizer needs about as many to settle."""
STEP_FRACTIONS = (
    *(0.022, 0.031, 0.044, 0.0625, 0.088, 0.125, 0.177),
    *(0.25, 0.354, 0.5, 0.707, 1.0),
)
LONGER = (1.41, 2.0, 2.83, 4.0, 5.66, 8.0)
"""Further step fractions of a mode that keeps the weights, up to all epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """The usual steps of each update mode.

    Args:
        epochs: Usual number of epochs of a full retraining.
        batch_size: Samples of a step: those of a batch, over all ranks.
        reuse_fraction: Share of these epochs for a mode that continues from the last weights: over
            all data in a warm start, over the new data in a replay.
    """

    epochs: int
    batch_size: int
    reuse_fraction: float

    def steps(self, action: Action, *, n_new: int, n_stored: int, n_held: int | None = None) -> int:
        """Return the batches that an action trains on, on each rank.

        Args:
            action: The action.
            n_new: New samples.
            n_stored: Stored samples.
            n_held: Samples that the buffer keeps of both; all of them unless given.
        """
        mode = UPDATE_MODES[action.mode]
        everything = n_new + n_stored
        samples = {"none": 0, "new": n_new, "mixed": 2 * n_new, "all": everything}[mode.data]
        if mode.data == "all" and not mode.keeps_weights and n_held is not None:
            samples = n_held
        per_epoch = math.ceil(samples / self.batch_size)
        fraction = self.reuse_fraction if mode.keeps_weights else 1.0
        epochs = action.step_fraction * fraction * self.epochs
        return max(1, round(epochs * per_epoch)) if per_epoch else 0

    def candidates(
        self,
        *,
        n_new: int,
        n_stored: int,
        n_held: int | None = None,
        has_model: bool,
        keeps_data: bool,
        forgets: bool = False,
    ) -> list[Candidate]:
        """Return the feasible updates at each step fraction, with their steps.

        Args:
            n_new: New samples.
            n_stored: Stored samples.
            n_held: Samples that the buffer keeps of both; all of them unless given.
            has_model: Whether there are trained weights to continue from.
            keeps_data: Whether any past data may be kept. Without, a full retraining would forget
                everything, so only fine-tuning (a warm start on the new data) remains.
            forgets: Whether old data no longer matter, so that a model with past data may be
                fine-tuned on the new ones alone.
        """
        modes = [UpdateMode.WARM_START] if has_model else []
        if keeps_data or not has_model:
            modes.append(UpdateMode.FULL_RETRAIN)
        if has_model and n_stored:
            modes.append(UpdateMode.REPLAY)
            if forgets:
                modes.append(UpdateMode.FINE_TUNE)
        actions = [
            Action(mode=mode, step_fraction=fraction)
            for mode in modes
            for fraction in self.step_fractions(mode)
        ]
        candidates = [
            Candidate(
                action=action,
                steps=self.steps(action, n_new=n_new, n_stored=n_stored, n_held=n_held),
            )
            for action in actions
        ]
        return [
            each
            for each in candidates
            if each.steps >= FEWEST_STEPS or each.action.step_fraction == 1
        ]

    def step_fractions(self, mode: UpdateMode) -> list[float]:
        """Return the step fractions of an update mode, in rising order.

        The longest update that keeps the weights has the epochs of a full retraining: that is
        ``1 / reuse_fraction``.

        Example:
            >>> StepPlan(epochs=10, batch_size=64, reuse_fraction=0.2).step_fractions(
            ...     UpdateMode.WARM_START)[-4:]
            [2.0, 2.83, 4.0, 5.0]
        """
        if not UPDATE_MODES[mode].keeps_weights:
            return list(STEP_FRACTIONS)
        whole = 1.0 / self.reuse_fraction
        return [*STEP_FRACTIONS, *(each for each in LONGER if each < whole), *[whole] * (whole > 1)]

    def full_retraining_steps(
        self, sizes: Sequence[int], *, max_size: int | None = None
    ) -> list[int]:
        """Return the steps of a full retraining at each of some experiences.

        Args:
            sizes: New samples of each experience.
            max_size: Largest number of samples that the buffer keeps; all of them unless given.

        Example:
            >>> plan = StepPlan(epochs=2, batch_size=10, reuse_fraction=0.2)
            >>> plan.full_retraining_steps([100, 100])
            [20, 40]
        """
        full = Action(mode=UpdateMode.FULL_RETRAIN)
        seen = itertools.accumulate(sizes)
        held = [total if max_size is None else min(total, max_size) for total in seen]
        return [self.steps(full, n_new=each, n_stored=0) for each in held]
