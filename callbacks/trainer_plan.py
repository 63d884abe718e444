"""Derive from a Trainer how many steps it plans, and what the end of its fit includes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


def planned_batches(trainer: Any) -> float:
    """Return the number of batches in ``max_epochs``; infinity without a last epoch."""
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return math.inf
    return float(trainer.max_epochs * float(trainer.num_training_batches))


def is_finished(trainer: Any) -> bool:
    """Return whether the current batch is the last planned one."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    epochs = trainer.max_epochs
    last = epochs is not None and 0 <= epochs <= trainer.current_epoch + 1
    return bool(last and trainer.is_last_batch)


def validates(trainer: Any, epoch: int) -> bool:
    """Return whether a fit that is stopped in an epoch validates before it ends."""
    every = trainer.check_val_every_n_epoch
    return bool(trainer.enable_validation and (every is None or (epoch + 1) % every == 0))


def validation_batches(trainer: Any) -> float:
    """Return the batches of one validation, the maximum over all processes; 0 if unknown."""
    batches = float(sum(trainer.num_val_batches)) if trainer.enable_validation else 0.0
    if trainer.world_size > 1:
        own = torch.tensor(batches, device=trainer.strategy.root_device)
        batches = float(trainer.strategy.reduce(own, reduce_op="max"))
    return batches if math.isfinite(batches) else 0.0


def batch_steps(trainer: Any) -> float:
    """Return how many training batches have as many samples as a validation batch; 1 or more."""
    train = max(_batch_sizes(trainer.train_dataloader), default=0)
    val = max(_batch_sizes(trainer.val_dataloaders), default=0)
    return max(1.0, val / train) if train else 1.0


def saves(trainer: Any) -> bool:
    """Return whether checkpoints are saved."""
    return bool(trainer.checkpoint_callbacks) and not trainer.fast_dev_run


def _batch_sizes(loaders: Any) -> Iterator[int]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, Sequence):
        for each in loaders:
            yield from _batch_sizes(each)
    elif isinstance(size := getattr(loaders, "batch_size", None), int):
        yield size


def is_trial(trainer: Any) -> bool:
    """Return whether a Trainer only tries a few batches (``fast_dev_run``) and leaves no files."""
    return bool(trainer.fast_dev_run)
