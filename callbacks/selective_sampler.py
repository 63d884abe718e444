"""The sampler of selective training: the samples of each epoch, by their scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import Sampler

from greentrain.errors import ConfigurationError

_LAST = 0.125
"""Share of the epochs at the end that use all samples (Qin et al. 2024)."""


class SelectiveSampler(Sampler[int]):
    """Indices of the samples of each epoch; ``SelectiveTraining.sampler`` returns it.

    Args:
        dataset: The dataset.
        prune: Probability with which a sample with a low score is left out.
        seed: Seed of the order and of the choice.

    Attributes:
        scores: Score of each sample, NaN before its first batch. Shape: samples.
        weights: Weight of each sample's loss in this epoch. Shape: samples.
        trainer: Trainer of the present fit; ``None`` between fits.
        begun: Whether an epoch of it has begun.

    Raises:
        ConfigurationError: If the dataset has no length, or no samples.
    """

    def __init__(self, dataset: Sized, *, prune: float, seed: int) -> None:
        try:
            self.size = len(dataset)
        except TypeError:
            raise ConfigurationError(
                f"the dataset is a {type(dataset).__name__} without a length; samples can be left "
                "out of a map-style dataset only"
            ) from None
        if not self.size:
            raise ConfigurationError("the dataset has no samples; it must have 1 or more")
        self.scores = torch.full((self.size,), math.nan)
        self.weights = torch.ones(self.size)
        self.trainer: Any = None
        self._prune, self._seed = prune, seed
        self._batch_size = self._position = 0
        self.follow(None)

    def __len__(self) -> int:
        self._follow()
        return len(self._kept)

    def __iter__(self) -> Iterator[int]:
        self._follow()
        self._given = self._kept
        return iter(self._given.tolist())

    def follow(self, trainer: Any, *, begun: bool = False) -> None:
        """Take the number of the epoch from a Trainer; ``None`` after its fit."""
        self.trainer, self.begun = trainer, begun
        self._epoch = -1
        self._follow()

    def begin(self, batch_size: int) -> None:
        """Begin an epoch with its first batch of so many samples."""
        self.begun = True
        self._batch_size, self._position = batch_size, 0

    def _follow(self) -> None:
        # Lightning calls `set_epoch` too late: it needs the length before, and when it resumes.
        fit = None if self.trainer is None else self.trainer.fit_loop
        epoch = 0 if fit is None else fit.epoch_progress.current.processed
        if epoch != self._epoch:
            # Lightning takes the length of a loader's first epoch as the limit of all its epochs.
            self._choose(epoch, whole=not self.begun or self._is_last(epoch))
            self._epoch = epoch

    def _is_last(self, epoch: int) -> bool:
        """Return whether an epoch is one of the end; never without a known end."""
        epochs = None if self.trainer is None else self.trainer.max_epochs
        return epochs is not None and 0 < epochs <= epoch / (1 - _LAST)

    def _choose(self, epoch: int, *, whole: bool) -> None:
        """Choose the samples of an epoch by the present scores, or all of them."""
        generator = torch.Generator().manual_seed((1_000_003 * self._seed + epoch) % 2**63)
        self._kept = order = torch.randperm(self.size, generator=generator)
        self.weights = torch.ones(self.size)
        if whole:
            return
        # An unknown score compares as false: its sample is not left out.
        known = self.scores.where(self.scores.isfinite(), math.nan)
        low = known < known.nanmean()
        left_out = low & (torch.rand(self.size, generator=generator) < self._prune)
        self.weights[low] = 1 / (1 - self._prune)
        self._kept = order[~left_out[order]]

    def next_batch(self) -> torch.Tensor:
        """Return the indices of the next batch."""
        start = self._position
        self._position = start + self._batch_size
        return self._given[start : self._position]
