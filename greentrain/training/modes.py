"""What each update mode means in steps and weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.errors import ConfigurationError

AVERAGE = 0.3
LEAST_STEPS = 50
"""Steps below which an update is not offered: a fresh optimizer has not found its pace by then."""
STEP_FRACTIONS = (0.0625, 0.088, 0.125, 0.177, 0.25, 0.354, 0.5, 0.707, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeConfig:
    """How much work the update modes are at effort 1.

    Args:
        epochs: The usual number of epochs of a full retraining.
        batch_size: Samples that a step trains on: those of a batch, over all ranks.
        reuse_fraction: Share of the usual epochs that a model which goes on from its last weights
            gets: over all data in a warm start, over the new data in a replay.
        shrink: Factor of the last weights at a warm start (1 keeps them).
        perturb: Factor of the fresh weights added to them (0 adds none).
        average: Share of an update's steps over which its weights are averaged (0: they are not,
            the learning rate is annealed instead, and the last ones are taken).

    Raises:
        ConfigurationError: If a value is out of range.
    """

    epochs: int
    batch_size: int
    reuse_fraction: float = 0.2
    shrink: float = 1.0
    perturb: float = 0.0
    average: float = AVERAGE

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} is {value!r}; it is a whole number, 1 or more")
        if not 0 < self.reuse_fraction <= 1:
            raise ConfigurationError(
                f"reuse_fraction is {self.reuse_fraction!r}; it is above 0 and at most 1"
            )
        if not (0 <= self.shrink <= 1 and 0 <= self.perturb <= 1):
            raise ConfigurationError(
                f"shrink and perturb are {self.shrink!r} and {self.perturb!r}; both lie in [0, 1]"
            )
        if not 0 <= self.average < 1:
            raise ConfigurationError(
                f"average is {self.average!r}; it is a share of the steps, 0 (off) or more, below 1"
            )

    def steps(self, action: Action, *, n_new: int, n_stored: int, n_held: int | None = None) -> int:
        """Return the batches that an action trains on, on each rank.

        Args:
            action: The action.
            n_new: New samples.
            n_stored: Stored samples.
            n_held: Samples that are kept of both; all of them unless given.
        """
        everything = n_new + n_stored
        samples = {
            UpdateMode.SKIP: 0,
            UpdateMode.REPLAY: 2 * n_new,
            UpdateMode.WARM_START: everything,
            UpdateMode.FULL_RETRAIN: everything if n_held is None else n_held,
        }[action.mode]
        per_epoch = math.ceil(samples / self.batch_size)
        fraction = 1.0 if action.mode is UpdateMode.FULL_RETRAIN else self.reuse_fraction
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
    ) -> list[Candidate]:
        """Return the updates that are feasible, at each effort, with their steps.

        Args:
            n_new: New samples.
            n_stored: Stored samples.
            n_held: Samples that are kept of both; all of them unless given.
            has_model: Whether there are trained weights to go on from.
            keeps_data: Whether any past data may be kept: without, a full retraining would forget
                everything, and only fine-tuning (a warm start on the new data) remains.
        """
        modes = [UpdateMode.WARM_START] if has_model else []
        if keeps_data or not has_model:
            modes.append(UpdateMode.FULL_RETRAIN)
        if has_model and n_stored:
            modes.append(UpdateMode.REPLAY)
        actions = [
            Action(mode=mode, step_fraction=step_fraction)
            for mode in modes
            for step_fraction in STEP_FRACTIONS
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
            if each.steps >= LEAST_STEPS or each.action.step_fraction == 1
        ]


def shrink_and_perturb(
    parameters: Iterable[torch.Tensor],
    fresh: Iterable[torch.Tensor],
    *,
    shrink: float,
    perturb: float,
) -> None:
    """Pull weights towards fresh ones, in place: ``shrink * theta + perturb * theta_fresh``.

    Ash & Adams 2020, "On Warm-Starting Neural Network Training", section 4: all parameters,
    those of normalisation layers included. Buffers are no parameters: the running statistics of
    batch normalisation stay those of the last weights. Training replaces them within some dozens
    of steps, and fresh ones, a mean of 0 and a variance of 1, are no nearer to what it will find.

    Args:
        parameters: The parameters that change.
        fresh: Freshly initialised ones of the same shapes, in the same order.
        shrink: Factor of the present parameters.
        perturb: Factor of the fresh ones.

    Example:
        >>> theta = torch.tensor([1.0, 2.0])
        >>> shrink_and_perturb([theta], [torch.tensor([10.0, 10.0])], shrink=0.5, perturb=0.1)
        >>> theta
        tensor([1.5000, 2.0000])
    """
    with torch.no_grad():
        for mine, theirs in zip(parameters, fresh, strict=True):
            mine.mul_(shrink).add_(theirs.to(mine.device), alpha=perturb)


def full_retraining_steps(
    options: ModeConfig, sizes: Sequence[int], *, max_size: int | None = None
) -> list[int]:
    """Return the steps of retraining in full at each arrival of experiences of these sizes.

    Args:
        options: The modes' options.
        sizes: New samples of each experience.
        max_size: Samples that memory keeps at most; all of them unless given.

    Example:
        >>> full_retraining_steps(ModeConfig(epochs=2, batch_size=10), [100, 100])
        [20, 40]
    """
    full = Action(mode=UpdateMode.FULL_RETRAIN)
    seen = itertools.accumulate(sizes)
    held = [total if max_size is None else min(total, max_size) for total in seen]
    return [options.steps(full, n_new=each, n_stored=0) for each in held]
