"""Record accuracy and joules of early exits by threshold in the ledger of a monitored fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from greentrain.callbacks.energy_monitor import EnergyMonitor
from greentrain.errors import ConfigurationError
from greentrain.methods import ExitHeads, exit_table

TOPIC = "early exits"
"""Topic of the event in the ledger."""


def record_exits(
    trainer: Any,
    module: Any,
    heads: ExitHeads,
    labels: Callable[[Any], torch.Tensor],
    *,
    leaves: bool,
) -> None:
    """Record a table by threshold, from one more forward pass over the validation data.

    Joules of the full module are those of the fit's validations, for each of their samples.
    Without a monitor nothing is recorded. With several processes, the first has its own samples.

    Args:
        trainer: The Trainer, at the end of its training.
        module: The module.
        heads: Its heads.
        labels: Returns the classes of a batch.
        leaves: Whether validation let samples leave early. Its joules are not those of the full
            module then, and those of the table are unknown.

    Raises:
        ConfigurationError: If the fit has no validation data.
    """
    monitors = (each for each in trainer.callbacks if isinstance(each, EnergyMonitor))
    monitor = next((each for each in monitors if each.record is not None), None)
    record = None if monitor is None else monitor.record
    if monitor is None or record is None or not trainer.is_global_zero:
        return
    loader = trainer.val_dataloaders
    if loader is None:
        raise ConfigurationError(
            "table=True needs validation data, and the fit has none; give val_dataloaders"
        )
    loaders = loader if isinstance(loader, list) else [loader]
    count = 0

    def batches() -> Iterator[tuple[Any, torch.Tensor]]:
        nonlocal count
        for one in loaders:
            for batch in one:
                moved = trainer.strategy.batch_to_device(batch)
                classes = labels(moved)
                count += len(classes)
                yield moved[0], classes

    rows = exit_table(heads, module, batches())
    passes = [each for each in monitor.windows if each.phase == "validation"]
    known = [each.reading.total_j for each in passes]
    full_j = None
    if known and count and not leaves and None not in known:
        full_j = math.fsum(each or 0.0 for each in known) / (len(known) * count)
    whole = rows[-1].operations
    figures = [
        {
            "threshold": row.threshold if math.isfinite(row.threshold) else None,
            "accuracy": row.accuracy,
            "shares": list(row.shares),
            "operations": row.operations,
            "energy_j": None
            if full_j is None or not whole
            else 1000 * full_j * row.operations / whole,
        }
        for row in rows
    ]
    record.event(TOPIC, {"rows": figures})
