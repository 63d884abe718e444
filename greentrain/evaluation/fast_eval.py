"""A look at a few samples without a Trainer, which would cost more than the samples."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch.utils.data import Dataset

from greentrain.evaluation.measured import Measured, MetricListener
from greentrain.evaluation.signals.features import FeatureTap
from greentrain.memory import size
from greentrain.training.loaders import look_loader

BLOCKS = 16
"""Blocks of a glance, at most, where there are samples for them."""
_SMALLEST_BLOCK = 8
_FOR_WORKERS = ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory")

_log = logging.getLogger(__name__)


def glance(
    model: LightningModule,
    datasets: Sequence[Dataset[Any]],
    *,
    monitor: str,
    loader: Mapping[str, Any],
    features: bool = False,
) -> list[Measured] | None:
    """Call a module's ``validation_step`` on some samples, and note what it logs.

    It runs on a copy, so that no metric object keeps what it saw, and without the hooks around a
    validation. A Trainer takes about 20 ms to do the same, which is some thousand samples of a
    small model.

    Args:
        model: The module, on the CPU.
        datasets: The samples, in their order; the same ones give the same blocks.
        monitor: Name of the metric.
        loader: The user's options of the loader.
        features: Whether to note what the model makes of the samples.

    Returns:
        The metric on each dataset, the mean of its blocks; ``None`` where the module cannot be
        called like this: it needs its Trainer or another device, or logs no value for a batch.
    """
    if any(each.device.type != "cpu" for each in model.parameters()):
        return None
    trainer = getattr(model, "_trainer", None)
    try:
        # The Trainer of the last fit, with its loaders and data, is not copied.
        module = copy.deepcopy(model, {id(trainer): None})
        module.eval()
        with torch.no_grad():
            found = [_glance(module, each, monitor, loader, features) for each in datasets]
    except Exception as error:  # whatever a module may need that only a Trainer gives
        _log.debug("no glance at %s without a Trainer: %s", type(model).__name__, error)
        return None
    return None if any(not each.blocks for each in found) else found


def block_of(samples: int, loader: Mapping[str, Any]) -> int:
    """Return how many samples are in each block of a glance at so many.

    Example:
        >>> block_of(512, {"batch_size": 64}), block_of(64, {"batch_size": 64})
        (32, 8)
    """
    most: int = loader["batch_size"]
    return max(1, min(most, max(_SMALLEST_BLOCK, math.ceil(samples / BLOCKS))))


def _glance(
    module: LightningModule,
    dataset: Dataset[Any],
    monitor: str,
    loader: Mapping[str, Any],
    features: bool,
) -> Measured:
    samples = size(dataset)
    block = block_of(samples, loader)
    sizes = [min(block, samples - start) for start in range(0, samples, block)]
    listener = MetricListener(monitor, sizes, passes_on=False)
    listener.listen(module)
    tap = FeatureTap(samples)
    if features:
        tap.attach(module)
    # Workers would take longer to start than the samples take to look at.
    plain = {name: value for name, value in loader.items() if name not in _FOR_WORKERS}
    batches = look_loader(dataset, {**plain, "batch_size": block})
    for number, batch in enumerate(batches):
        listener.on_validation_batch_start()
        tap.begin()
        module.validation_step(batch, number)
        if features:
            tap.take(batch)
        listener.on_validation_batch_end()
    tap.close()
    blocks = listener.blocks
    value = math.fsum(count * each for count, each in blocks) / max(1, samples)
    return Measured(value=value, blocks=blocks, loss=listener.loss, features=tap.features)
