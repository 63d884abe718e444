"""Choose the samples that are worth a label, under a budget of labels."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from greentrain.errors import ConfigurationError
from greentrain.units import is_whole

Uncertainty = Literal["entropy", "margin"]


def most_uncertain(logits: Tensor, count: int, *, by: Uncertainty = "margin") -> list[int]:
    """Return the samples of which a classifier is least certain (Settles 2009, section 3.1).

    Args:
        logits: Of samples without labels, ``(samples, classes)``.
        count: Number of samples to choose, the budget of labels.
        by: ``"entropy"`` of the probabilities, large first, or ``"margin"`` between the two largest
            probabilities, small first.

    Returns:
        Their indices, the least certain first.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> logits = torch.tensor([[5.0, 0.0, 0.0], [1.0, 0.9, -9.0], [0.3, 0.0, 0.0]])
        >>> most_uncertain(logits, 2), most_uncertain(logits, 1, by="entropy")
        ([1, 2], [2])
    """
    _check(logits, count)
    if by not in get_args(Uncertainty):
        raise ConfigurationError(f"by is {by!r}; it must be 'entropy' or 'margin'")
    logs = logits.detach().float().log_softmax(1)
    if by == "entropy":
        certainty = (logs.exp() * logs).sum(1)
    elif logits.shape[1] < 2:
        raise ConfigurationError(
            "the logits have one class, which has no margin; give 2 classes or more"
        )
    else:
        first, second = logs.exp().topk(2, dim=1).values.unbind(1)
        certainty = first - second
    chosen: list[int] = certainty.argsort(stable=True)[:count].tolist()
    return chosen


def k_center(features: Tensor, count: int, *, labelled: Tensor | None = None) -> list[int]:
    """Return samples that cover all others: each is the farthest from those chosen before.

    The greedy 2-approximation of the k-center problem (Sener & Savarese 2018, arXiv 1708.00489,
    algorithm 1), by the Euclidean distance.

    Args:
        features: Features of samples without labels, ``(samples, features)``.
        count: Number of samples to choose, the budget of labels.
        labelled: Features of the samples that have labels, ``(labelled, features)``. Without them,
            the first choice is the sample nearest to the mean.

    Returns:
        Their indices, in the order of choice.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
        >>> k_center(features, 3)  # the mean is 3.25
        [2, 3, 0]
        >>> k_center(features, 1, labelled=torch.tensor([[9.0]]))
        [0]
    """
    _check(features, count)
    points = features.detach().float()
    chosen: list[int] = []
    if labelled is None or not len(labelled):
        chosen.append(int((points - points.mean(0)).norm(dim=1).argmin()))
        distances = (points - points[chosen[0]]).norm(dim=1)
    else:
        distances = torch.cdist(points, labelled.detach().to(points)).amin(1)
    distances[chosen] = -1.0
    while len(chosen) < count:
        farthest = int(distances.argmax())
        chosen.append(farthest)
        distances = distances.minimum((points - points[farthest]).norm(dim=1))
        distances[chosen] = -1.0
    return chosen


def _check(samples: Tensor, count: int) -> None:
    if samples.ndim != 2:
        raise ConfigurationError(
            f"the samples have {samples.ndim} dimensions; give one row for each sample"
        )
    if not is_whole(count, 1) or count > len(samples):
        raise ConfigurationError(
            f"count is {count!r}; it must be from 1 to the {len(samples)} samples without labels"
        )
