"""The loss of iCaRL, and classification by the nearest mean of stored samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from greentrain.errors import ConfigurationError


def icarl_loss(
    logits: Tensor, labels: Tensor, *, new: Tensor, old: Tensor, teacher: Tensor | None = None
) -> Tensor:
    """Return iCaRL's loss: binary cross-entropy of new classes, and distillation of old ones.

    Rebuffi et al. 2017, Algorithm 3. The target of a new class is 1 for its samples and 0 for
    others. The target of an old class is the teacher's probability ``sigmoid(teacher)``, for all
    samples. The sum over the classes, and the mean over the batch.

    Args:
        logits: Outputs, ``(batch, classes)``.
        labels: Classes, ``(batch,)``.
        new: Whether a class is new, ``(classes,)`` of truth values.
        old: Whether a class is distilled, of the same shape. Other classes are left out.
        teacher: Outputs of the last model, of the shape of ``logits``; needed for old classes.

    Raises:
        ConfigurationError: If the labels are no classes of the outputs.

    Example:
        >>> logits = torch.zeros(1, 3)  # a probability of 0.5 for each of three classes
        >>> new, old = torch.tensor([True, True, False]), torch.zeros(3, dtype=torch.bool)
        >>> round(float(icarl_loss(logits, torch.tensor([1]), new=new, old=old)), 4)  # 2 * log 2
        1.3863
    """
    check_classes(labels, logits.shape[1])
    targets = torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits)
    if teacher is not None:
        targets = torch.where(old, teacher.sigmoid(), targets)
    losses = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * (new | old)).sum(dim=1).mean()


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the mean feature of each class, and whether the class has samples.

    Features are scaled to length 1, and so are their means (Rebuffi et al. 2017, section 2.1).

    Args:
        features: Features of stored samples, ``(samples, features)``.
        labels: Their classes, ``(samples,)``.
        classes: Number of classes.

    Returns:
        Means ``(classes, features)``, 0 for a class without samples, and truth values
        ``(classes,)``.

    Example:
        >>> points = torch.tensor([[3.0, 0.0], [0.0, 2.0]])  # of length 1: (1, 0) and (0, 1)
        >>> means, known = class_means(points, torch.tensor([1, 1]), 2)
        >>> [round(value, 4) for value in means[1].tolist()], known.tolist()
        ([0.7071, 0.7071], [False, True])
    """
    check_classes(labels, classes)
    phi = normalize(features.float().flatten(1), dim=1)
    sums = phi.new_zeros(classes, phi.shape[1]).index_add_(0, labels, phi)
    known = torch.bincount(labels, minlength=classes) > 0
    return normalize(sums, dim=1), known


def mean_scores(features: Tensor, means: Tensor, known: Tensor) -> Tensor:
    """Return minus the squared distance to the mean of each class; the largest is the class.

    Args:
        features: Features, ``(batch, features)``.
        means: Means of the classes, ``(classes, features)``.
        known: Whether a class has a mean, ``(classes,)``; others have ``-inf``.

    Returns:
        Scores, ``(batch, classes)``.

    Example:
        >>> means, known = torch.eye(2), torch.tensor([True, True])
        >>> mean_scores(torch.tensor([[5.0, 0.0]]), means, known).tolist()
        [[0.0, -2.0]]
    """
    phi = normalize(features.float().flatten(1), dim=1)
    near = 2 * phi @ means.T - phi.square().sum(1, keepdim=True) - means.square().sum(1)
    return near.masked_fill(~known, -torch.inf)


def check_classes(labels: Tensor, classes: int) -> None:
    """Refuse targets that are not the numbers of classes.

    Raises:
        ConfigurationError: If they are not whole numbers, or out of range.
    """
    if labels.is_floating_point() or labels.ndim != 1:
        raise ConfigurationError(
            f"targets are {labels.dtype} of shape {list(labels.shape)}, and this method is a "
            "classifier: it is not defined for a regression; give one class per sample, or use "
            "replay, DER or LwF(distance='squared')"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ConfigurationError(
            f"labels are between {int(labels.min())} and {int(labels.max())}, and the model has "
            f"{classes} outputs; number the classes from 0 to {classes - 1}"
        )
