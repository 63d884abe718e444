"""Choose the threshold of early exits on validation data, and list what each one costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods.early_exit import NEVER, ExitHeads
from greentrain.methods.operation_count import count_operations, evaluating

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
"""Thresholds that a table lists unless others are given; the last row is the full module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRow:
    """Accuracy and cost at one threshold.

    Args:
        threshold: Smallest confidence to leave with; ``inf`` for the full module.
        accuracy: Share of correct predictions.
        shares: Share of the samples that leave at each exit, and at the end.
        operations: Floating-point operations of 1,000 predictions.
        energy_j: Joules of 1,000 predictions; ``None`` if unknown.
    """

    threshold: float
    accuracy: float
    shares: tuple[float, ...]
    operations: float
    energy_j: float | None = None


def exit_table(
    heads: ExitHeads,
    module: nn.Module,
    batches: Iterable[tuple[Any, torch.Tensor]],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    full_energy_j: float | None = None,
) -> list[ExitRow]:
    """Return accuracy and cost by threshold, from one full forward pass over some data.

    Args:
        heads: The heads.
        module: Their module.
        batches: Inputs and classes of validation data, batch by batch.
        thresholds: Confidences from 0 to 1.
        full_energy_j: Measured joules of one prediction by the full module. The joules of each row
            are those in proportion to the operations, so they are an estimate.

    Returns:
        A row for each threshold in rising order, and one for the full module.

    Raises:
        ConfigurationError: If there are no data, or a number cannot be used.
    """
    for each in thresholds:
        if not 0 <= each <= 1:
            raise ConfigurationError(f"a threshold is {each!r}; it must be from 0 to 1")
    if full_energy_j is not None and not (math.isfinite(full_energy_j) and full_energy_j >= 0):
        raise ConfigurationError(f"full_energy_j is {full_energy_j!r}; it must be 0 J or more")
    confidence, correct, example = _measured(heads, module, batches)
    costs = torch.tensor(heads.operations(module, example), dtype=torch.float64)
    whole = float(count_operations(module, example))
    rows = []
    for threshold in (*sorted(set(thresholds)), NEVER):
        sure = confidence >= threshold
        sure[:, -1] = True  # the last layer decides about the rest
        place = sure.int().argmax(1)
        shares = torch.bincount(place, minlength=len(costs)).double() / len(place)
        right = correct.gather(1, place[:, None]).double().mean()
        # The full module runs no head.
        operations = float(shares @ costs) if threshold < NEVER else whole
        rows.append((threshold, float(right), tuple(shares.tolist()), 1000.0 * operations))
    return [
        ExitRow(
            threshold=threshold,
            accuracy=accuracy,
            shares=shares,
            operations=operations,
            energy_j=None
            if full_energy_j is None or not whole
            else full_energy_j * operations / whole,
        )
        for threshold, accuracy, shares, operations in rows
    ]


def choose_threshold(
    rows: Sequence[ExitRow],
    *,
    accuracy: float | None = None,
    operations: float | None = None,
    energy_j: float | None = None,
) -> ExitRow:
    """Return the row that meets one target.

    Args:
        rows: The result of :func:`exit_table` on validation data, never on test data.
        accuracy: Smallest accuracy; the row with the fewest operations is chosen.
        operations: Most operations of a sample; the row with the highest accuracy is chosen.
        energy_j: Most joules of a sample; the row with the highest accuracy is chosen.

    Raises:
        ConfigurationError: Unless there is one target that a row meets.

    Example:
        >>> rows = [
        ...     ExitRow(threshold=0.5, accuracy=0.8, shares=(0.9, 0.1), operations=200.0),
        ...     ExitRow(threshold=0.9, accuracy=0.9, shares=(0.5, 0.5), operations=600.0),
        ... ]
        >>> choose_threshold(rows, accuracy=0.85).threshold
        0.9
        >>> choose_threshold(rows, operations=0.3).threshold
        0.5
    """
    targets = {"accuracy": accuracy, "operations": operations, "energy_j": energy_j}
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        raise ConfigurationError(
            f"{len(given)} targets are given; give one of accuracy, operations and energy_j"
        )
    [(name, target)] = given.items()
    if name == "accuracy":
        fits = [row for row in rows if row.accuracy >= target]
        if fits:
            return min(fits, key=lambda row: (row.operations, -row.accuracy))
        best = max((row.accuracy for row in rows), default=math.nan)
        raise ConfigurationError(
            f"no threshold reaches an accuracy of {target:g}; the best is {best:.4g}"
        )
    costs = {row: row.operations if name == "operations" else row.energy_j for row in rows}
    if any(cost is None for cost in costs.values()):
        raise ConfigurationError("the rows have no joules; give full_energy_j to exit_table")
    affordable = [row for row, cost in costs.items() if cost is not None and cost <= 1000 * target]
    if affordable:
        return max(affordable, key=lambda row: (row.accuracy, -row.operations))
    least = min((cost for cost in costs.values() if cost is not None), default=math.nan) / 1000
    raise ConfigurationError(
        f"no threshold needs at most {target:g} of {name} for a sample; the least is {least:.4g}"
    )


def _measured(
    heads: ExitHeads, module: nn.Module, batches: Iterable[tuple[Any, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Return confidence and correctness of all samples at all exits, and one sample."""
    confidences, corrects, example = [], [], None
    with evaluating(module), evaluating(heads):
        for inputs, labels in batches:
            with heads.capture(module) as outputs:
                last = module(inputs)
            each = torch.stack([*heads.logits(outputs), last], 1).float()
            confidence, found = each.softmax(2).max(2)
            confidences.append(confidence.cpu())
            corrects.append((found == labels[:, None]).cpu())
            example = inputs[:1] if example is None else example
    if example is None:
        raise ConfigurationError("there are no validation data; give one batch or more")
    return torch.cat(confidences), torch.cat(corrects), example
