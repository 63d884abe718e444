"""What a Trainer is going to do: how many steps, and what comes with the end of its fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


def planned_batches(trainer: Any) -> float:
    """Return how many batches ``max_epochs`` stands for; infinity where that has no end."""
    batches = float(trainer.num_training_batches)
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return math.inf
    return float(trainer.max_epochs * batches)


def finished(trainer: Any) -> bool:
    """Tell whether the batch at hand is the last one that was planned."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    epochs = trainer.max_epochs
    last = epochs is not None and 0 <= epochs <= trainer.current_epoch + 1
    return bool(last and trainer.is_last_batch)


def validates(trainer: Any, epoch: int) -> bool:
    """Tell whether a fit that is stopped in an epoch validates before it ends."""
    every = trainer.check_val_every_n_epoch
    return bool(trainer.enable_validation and (every is None or (epoch + 1) % every == 0))


def validation_batches(trainer: Any) -> float:
    """Return the batches of one validation, the most that any process has; 0 if nobody knows."""
    batches = float(sum(trainer.num_val_batches)) if trainer.enable_validation else 0.0
    if trainer.world_size > 1:
        most = torch.tensor(batches, device=trainer.strategy.root_device)
        batches = float(trainer.strategy.reduce(most, reduce_op="max"))
    return batches if math.isfinite(batches) else 0.0


def batch_steps(trainer: Any) -> float:
    """Return how many training batches have as many samples as one of validation; 1 or more."""
    train = max(_batch_sizes(trainer.train_dataloader), default=0)
    val = max(_batch_sizes(trainer.val_dataloaders), default=0)
    return max(1.0, val / train) if train else 1.0


def saves(trainer: Any) -> bool:
    """Tell whether checkpoints are saved."""
    return bool(trainer.checkpoint_callbacks) and not trainer.fast_dev_run


def _batch_sizes(loaders: Any) -> Iterator[int]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, Sequence):
        for each in loaders:
            yield from _batch_sizes(each)
    elif isinstance(size := getattr(loaders, "batch_size", None), int):
        yield size
