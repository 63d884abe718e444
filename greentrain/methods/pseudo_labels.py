"""Train on samples without labels: pseudo-labels above a threshold, and consistency."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError

MISSING_LABEL = -1
"""The target of a sample without a label; NaN for targets that are not whole numbers."""


class MissingAsMinusOne(Dataset[Any]):
    """A dataset whose targets of ``None`` become :data:`MISSING_LABEL`, as batches need numbers.

    Args:
        dataset: Samples ``(inputs, target)``, of classes as whole numbers.

    Example:
        >>> dataset = MissingAsMinusOne([("a", 3), ("b", None)])
        >>> dataset[0], dataset[1]
        (('a', 3), ('b', -1))
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        inputs, target = self.dataset[index]
        return inputs, MISSING_LABEL if target is None else target


def has_label(targets: Tensor) -> Tensor:
    """Return which targets are labels: not negative, or not NaN if they are not whole numbers.

    Args:
        targets: ``(batch,)``.

    Returns:
        Booleans, ``(batch,)``.

    Example:
        >>> has_label(torch.tensor([3, -1])).tolist()
        [True, False]
        >>> has_label(torch.tensor([-2.5, math.nan])).tolist()
        [True, False]
    """
    return ~targets.isnan() if targets.is_floating_point() else targets >= 0


def calibrated_threshold(
    confidences: Tensor, right: Tensor, *, precision: float = 0.95, least: int = 10
) -> float:
    """Return the lowest confidence above which predictions are right often enough.

    Args:
        confidences: Largest probability of each labelled, held-out sample, ``(samples,)``; NaN is
            left out.
        right: Whether its prediction is right, ``(samples,)``.
        precision: Share of right predictions at and above the threshold, in (0, 1].
        least: Fewest predictions at and above the threshold that count as evidence.

    Returns:
        The threshold; infinity if there is none, so that no prediction becomes a label.

    Raises:
        ConfigurationError: If ``precision`` is not above 0 and at most 1.

    Example:
        >>> confidences = torch.tensor([0.9, 0.8, 0.7, 0.6])
        >>> right = torch.tensor([True, True, False, True])
        >>> round(calibrated_threshold(confidences, right, precision=0.9, least=2), 2)
        0.8
        >>> calibrated_threshold(confidences, right, precision=0.9, least=3)
        inf
    """
    if isinstance(precision, bool) or not 0 < precision <= 1:
        raise ConfigurationError(
            f"precision is {precision!r}; it must be above 0 and at most 1, such as 0.95"
        )
    known = ~confidences.detach().isnan()
    ordered, order = confidences.detach()[known].float().cpu().sort(descending=True)
    hits = right.detach()[known].cpu()[order].cumsum(0)
    counts = torch.arange(1, len(ordered) + 1)
    # Equal confidences pass or fail together: only the last one of them can be a threshold.
    last = torch.ones(len(ordered), dtype=torch.bool)
    last[:-1] = ordered[:-1] != ordered[1:]
    good = (hits >= precision * counts) & (counts >= least) & last
    return float(ordered[good][-1]) if bool(good.any()) else math.inf


def pseudo_labels(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the predicted classes, and which of them are confident enough to be labels.

    Args:
        logits: Of samples without labels, ``(batch, classes)``.
        threshold: Smallest probability.

    Returns:
        Classes and booleans, each ``(batch,)``.

    Example:
        >>> classes, confident = pseudo_labels(torch.tensor([[0.0, 4.0], [0.0, 0.1]]), 0.95)
        >>> classes.tolist(), confident.tolist()
        ([1, 1], [True, False])
    """
    probabilities, classes = logits.detach().float().softmax(1).max(1)
    return classes, probabilities >= threshold


def consistency_loss(strong_logits: Tensor, classes: Tensor, samples: int) -> Tensor:
    """Return the loss of strongly augmented samples against their pseudo-labels.

    ``sum(cross_entropy) / samples``: samples that are not confident count as a loss of 0 (Sohn et
    al. 2020, "FixMatch", arXiv 2001.07685, equation 4).

    Args:
        strong_logits: Logits of the confident samples after strong augmentation,
            ``(confident, classes)``.
        classes: Their pseudo-labels, ``(confident,)``.
        samples: Number of all samples without labels in the batch.

    Example:
        >>> round(float(consistency_loss(torch.zeros(1, 2), torch.tensor([0]), 2)), 4)
        0.3466
    """
    return cross_entropy(strong_logits.float(), classes, reduction="sum") / samples
