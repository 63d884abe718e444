"""Find the stored samples whose loss a step would raise most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def most_harmed(
    loss: Tensor,
    parameters: Sequence[Tensor],
    losses: Callable[[], Tensor],
    *,
    rate: float,
    count: int,
) -> Tensor:
    """Return the indices of the samples whose loss a gradient step would raise most.

    Aljundi et al. 2019, "Online Continual Learning with Maximally Interfered Retrieval", section
    3.1: the rise ``l(theta - rate * gradient) - l(theta)`` of each sample. The parameters have
    their values again afterwards, and the graph of the loss is kept.

    Args:
        loss: The loss of the step, with its graph.
        parameters: The parameters that it changes.
        losses: Computes the loss of each sample, ``(samples,)``, with the present parameters.
        rate: Learning rate of the trial step.
        count: Number of samples to return, all if there are fewer.

    Returns:
        Indices in the order of the rise, largest first.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([0.0]))
        >>> targets = torch.tensor([-1.0, 0.0, 1.0])
        >>> most_harmed((weight - 1).square().sum(), [weight],
        ...     lambda: (weight - targets).square(), rate=0.1, count=2)  # a step to the right
        tensor([0, 1])
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    with torch.no_grad():
        before = losses()
        kept = [each.detach().clone() for each in parameters]
        try:
            # `.data` keeps the versions of the tensors, which the graph of the loss checks.
            for each, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    each.data.sub_(rate * gradient.to_dense())
            after = losses()
        finally:
            for each, values in zip(parameters, kept, strict=True):
                each.data.copy_(values)
    return (after - before).argsort(descending=True)[:count]
