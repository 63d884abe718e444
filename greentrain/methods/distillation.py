"""Losses that keep outputs near those of an earlier model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import kl_div, mse_loss

from greentrain.errors import ConfigurationError


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Return the distance of softened class probabilities from those of a teacher.

    ``T ** 2 * KL(softmax(teacher / T) || softmax(student / T))``, the mean over the batch (Hinton
    et al. 2015, section 2). Its gradient is that of the cross-entropy with soft targets. It is 0
    where both agree.

    Args:
        student: Logits, ``(batch, classes)``.
        teacher: Logits of the same shape, without a gradient.
        temperature: Softness of the probabilities, above 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 2.0]])
        >>> float(distillation_loss(logits, logits + 3.0))  # a shift changes no probability
        0.0
    """
    soft = (student / temperature).log_softmax(dim=1)
    target = (teacher / temperature).log_softmax(dim=1)
    return kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2


def heads_loss(
    student: Tensor,
    teacher: Tensor,
    heads: Sequence[Sequence[int]],
    *,
    temperature: float = 2.0,
) -> Tensor:
    """Return the mean of the distillation losses of groups of outputs.

    Args:
        student: Logits, ``(batch, classes)``.
        teacher: Logits of the same shape, without a gradient.
        heads: The outputs of each head.
        temperature: Softness of the probabilities.

    Raises:
        ConfigurationError: If there is no head, or a head has an output that the model lacks.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 5.0, -5.0]])
        >>> float(heads_loss(student, teacher, [[0, 1]]))
        0.0
    """
    outputs = student.shape[1]
    if not heads or any(not 0 <= each < outputs for head in heads for each in head):
        raise ConfigurationError(
            f"heads is {[list(head) for head in heads]!r}, and the model has {outputs} outputs; "
            f"give the outputs of each experience, between 0 and {outputs - 1}"
        )
    losses = [
        distillation_loss(student[:, list(head)], teacher[:, list(head)], temperature=temperature)
        for head in heads
    ]
    return sum(losses[1:], losses[0]) / len(losses)


def output_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared distance of outputs, for a regression and for stored logits.

    Example:
        >>> import torch
        >>> float(output_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]])))
        5.0
    """
    return mse_loss(student, teacher)
