"""Project a gradient so that a step along it does not raise the loss on stored samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_ROUNDS = 1000
_TOLERANCE = 1e-10


def project_from(gradient: Tensor, reference: Tensor) -> Tensor:
    """Return a gradient without its part against a reference gradient (A-GEM).

    Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", equation 11: unchanged if
    ``g . r >= 0``, else ``g - (g . r) / (r . r) * r``. The scale of ``r`` does not matter.

    Args:
        gradient: Gradient of the new samples, ``(parameters,)``.
        reference: Gradient of the stored samples, ``(parameters,)``.

    Example:
        >>> project_from(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0]))
        tensor([1., 0.])
        >>> project_from(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0]))
        tensor([1., 1.])
    """
    along = torch.dot(gradient, reference)
    square = torch.dot(reference, reference)
    share = torch.where((along < 0) & (square > 0), along / square, torch.zeros_like(along))
    return gradient - share * reference


def project_from_all(
    gradient: Tensor, references: Sequence[Tensor], *, margin: float = 0.0
) -> Tensor:
    """Return the nearest gradient that goes against none of several reference gradients (GEM).

    Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory", equation 11: with the references as rows
    of ``G``, find ``v >= margin`` that minimises ``v' G G' v / 2 + g' G' v``, and return ``g + G'
    v``. The problem has one variable for each reference, and is solved by coordinate descent. As
    in the authors' code, a gradient that goes against none is returned unchanged.

    Args:
        gradient: Gradient of the new samples, ``(parameters,)``.
        references: Gradients of the stored samples of each experience, ``(parameters,)``.
        margin: Least weight of each reference, 0 or more, in units of their length; favours
            backward transfer.

    Example:
        >>> g = torch.tensor([-1.0, -1.0, 1.0])
        >>> others = [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])]
        >>> project_from_all(g, others)
        tensor([0., 0., 1.])
    """
    rows = torch.stack(list(references)).double()
    rows = rows[rows.square().sum(dim=1) > 0]
    rows = rows / rows.norm(dim=1, keepdim=True)
    along = rows @ gradient.double()
    if not bool((along < 0).any()):
        return gradient
    gram = rows @ rows.T
    weights = torch.full_like(along, margin)
    for _ in range(_ROUNDS):
        before = weights.clone()
        for index in range(len(weights)):
            slope = gram[index] @ weights + along[index]
            weights[index] = torch.clamp(weights[index] - slope, min=margin)
        if float((weights - before).abs().max()) <= _TOLERANCE * (1 + float(weights.abs().max())):
            break
    projected: Tensor = gradient.double() + rows.T @ weights
    return projected.to(gradient)


def flattened(gradients: Iterable[Tensor | None], parameters: Iterable[Tensor]) -> Tensor:
    """Return gradients as one vector; a parameter without one counts as 0.

    Example:
        >>> flattened([None, torch.tensor([2.0])], [torch.ones(2), torch.ones(1)])
        tensor([0., 0., 2.])
    """
    return torch.cat(
        [
            torch.zeros_like(each).flatten() if gradient is None else gradient.to_dense().flatten()
            for gradient, each in zip(gradients, parameters, strict=True)
        ]
    )


@torch.no_grad()
def assign_gradients(vector: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write one vector into ``.grad`` of parameters.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> assign_gradients(torch.tensor([1.0, 2.0]), [weight])
        >>> weight.grad
        tensor([1., 2.])
    """
    start = 0
    for each in parameters:
        part = vector[start : start + each.numel()].view_as(each)
        if each.grad is None or each.grad.layout is not torch.strided:
            each.grad = part.to(each).clone()
        else:
            each.grad.copy_(part)
        start += each.numel()
