"""What each update mode means in steps and data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.memory import concat, size

EFFORTS = (0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOptions:
    """How much work the update modes are at effort 1.

    Args:
        epochs: The usual number of epochs of a full retraining.
        batch_size: Samples in a batch.
        reuse_fraction: Share of the usual epochs that a model which goes on from its last weights
            gets: over all data in a warm start, over the new data in a replay.
        shrink: Factor of the last weights at a warm start (1 keeps them).
        perturb: Factor of the fresh weights added to them (0 adds none).

    Raises:
        ConfigurationError: If a value is out of range.
    """

    epochs: int
    batch_size: int
    reuse_fraction: float = 0.2
    shrink: float = 1.0
    perturb: float = 0.0

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

    def steps(self, action: Action, n_new: int, n_stored: int) -> int:
        """Return the optimizer steps of an action.

        Args:
            action: The action.
            n_new: New samples.
            n_stored: Stored samples.
        """
        per_epoch = {
            UpdateMode.SKIP: 0,
            UpdateMode.REPLAY: _batches(2 * n_new, self.batch_size),
            UpdateMode.WARM_START: _batches(n_new + n_stored, self.batch_size),
            UpdateMode.FULL_RETRAIN: _batches(n_new + n_stored, self.batch_size),
        }[action.mode]
        fraction = 1.0 if action.mode is UpdateMode.FULL_RETRAIN else self.reuse_fraction
        epochs = action.effort * fraction * self.epochs
        return max(1, round(epochs * per_epoch)) if per_epoch else 0

    def candidates(
        self, *, n_new: int, n_stored: int, has_model: bool, keeps_data: bool
    ) -> list[Candidate]:
        """Return the updates that are feasible, at each effort, with their steps.

        Args:
            n_new: New samples.
            n_stored: Stored samples.
            has_model: Whether there are trained weights to go on from.
            keeps_data: Whether any past data may be kept: without, a full retraining would forget
                everything, and only fine-tuning (a warm start on the new data) remains.
        """
        modes = [UpdateMode.WARM_START] if has_model else []
        if keeps_data or not has_model:
            modes.append(UpdateMode.FULL_RETRAIN)
        if has_model and n_stored:
            modes.append(UpdateMode.REPLAY)
        actions = [Action(mode=mode, effort=effort) for mode in modes for effort in EFFORTS]
        return [
            Candidate(action=action, steps=self.steps(action, n_new, n_stored))
            for action in actions
        ]


class HalfAndHalf(Sampler[list[int]]):
    """Batches of which one half is new and the other half stored.

    The new samples come in shuffled passes, so that each is seen equally often; the stored ones are
    drawn uniformly.

    Args:
        n_new: New samples, which come first in the joined dataset.
        n_stored: Stored samples, which follow them.
        batch_size: Samples in a batch.
        batches: Batches in a pass over this sampler.
        generator: Source of randomness.
    """

    def __init__(
        self, n_new: int, n_stored: int, batch_size: int, batches: int, generator: torch.Generator
    ) -> None:
        self._n_new, self._n_stored = n_new, n_stored
        self._half = max(1, batch_size // 2)
        self._rest = max(1, batch_size - self._half)
        self._batches = batches
        self._generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        fresh: list[int] = []
        for _ in range(self._batches):
            while len(fresh) < self._half:
                fresh += torch.randperm(self._n_new, generator=self._generator).tolist()
            taken, fresh = fresh[: self._half], fresh[self._half :]
            stored = torch.randint(self._n_stored, (self._rest,), generator=self._generator)
            yield taken + (stored + self._n_new).tolist()

    def __len__(self) -> int:
        return self._batches


def train_loader(
    action: Action,
    new: Dataset[Any],
    stored: Dataset[Any],
    *,
    options: ModeOptions,
    loader: Mapping[str, Any],
    seed: int,
) -> DataLoader[Any]:
    """Build the one loader of an update; a pass over it is an epoch.

    Args:
        action: The action.
        new: New samples.
        stored: Stored samples.
        options: The modes' options.
        loader: Further options of each ``DataLoader``.
        seed: Seed of the order of the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    rest = {key: value for key, value in loader.items() if key != "batch_size"}
    everything = concat([new, stored])
    if action.mode is UpdateMode.REPLAY:
        n_new, n_stored = size(new), size(stored)
        batches = _batches(2 * n_new, options.batch_size)
        sampler = HalfAndHalf(n_new, n_stored, options.batch_size, batches, generator)
        return DataLoader(concat([new, stored]), batch_sampler=sampler, **rest)
    return DataLoader(
        everything, batch_size=options.batch_size, shuffle=True, generator=generator, **rest
    )


def shrink_and_perturb(
    parameters: Iterable[torch.Tensor],
    fresh: Iterable[torch.Tensor],
    *,
    shrink: float,
    perturb: float,
) -> None:
    """Pull weights towards fresh ones, in place: ``shrink * theta + perturb * theta_fresh``.

    Ash & Adams 2020, "On Warm-Starting Neural Network Training", section 4: all parameters,
    those of normalisation layers included.

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


def full_retraining_steps(options: ModeOptions, sizes: Sequence[int]) -> list[int]:
    """Return the steps of retraining in full at each arrival of experiences of these sizes.

    Example:
        >>> full_retraining_steps(ModeOptions(epochs=2, batch_size=10), [100, 100])
        [20, 40]
    """
    full = Action(mode=UpdateMode.FULL_RETRAIN)
    return [options.steps(full, sum(sizes[: n + 1]), 0) for n in range(len(sizes))]


def _batches(samples: int, batch_size: int) -> int:
    return math.ceil(samples / batch_size)
