"""Load weights into a module whose buffers may have another shape, and perturb them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load weights, and give each buffer the shape of the loaded one.

    A buffer such as a queue of samples grows during training, and a new module has the first shape.

    Args:
        module: The module.
        weights: The result of ``state_dict`` of a module of the same class.

    Raises:
        RuntimeError: If a name is missing or unexpected, or a parameter has another shape.

    Example:
        >>> module, trained = nn.Module(), nn.Module()
        >>> module.register_buffer("queue", torch.zeros(1))
        >>> trained.register_buffer("queue", torch.ones(3))
        >>> load_weights(module, trained.state_dict())
        >>> module.queue
        tensor([1., 1., 1.])
    """
    for prefix, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            loaded = weights.get(f"{prefix}.{name}" if prefix else name)
            if loaded is not None and not is_lazy(buffer) and loaded.shape != buffer.shape:
                setattr(part, name, buffer.new_zeros(loaded.shape))
    module.load_state_dict(weights)


def shrink_and_perturb(
    parameters: Iterable[torch.Tensor],
    fresh: Iterable[torch.Tensor],
    *,
    shrink: float,
    perturb: float,
) -> None:
    """Pull weights towards fresh ones, in place: ``shrink * theta + perturb * theta_fresh``.

    Ash & Adams 2020, "On Warm-Starting Neural Network Training", section 4: all parameters, those
    of normalisation layers included. Buffers are no parameters, so the running statistics of batch
    normalisation keep their last values. Training replaces them within some dozens of steps, and
    fresh ones (mean 0, variance 1) are no nearer to the result.

    Args:
        parameters: The parameters to change.
        fresh: Freshly initialised ones of the same shapes, in the same order.
        shrink: Factor of the present parameters.
        perturb: Factor of the fresh ones.

    Example:
        >>> theta = torch.tensor([1.0, 2.0])
        >>> shrink_and_perturb([theta], [torch.tensor([10.0, 10.0])], shrink=0.5, perturb=0.1)
        >>> theta
        tensor([1.5000, 2.0000])
    """
    with torch.no_grad():
        for weights, fresh_weights in zip(parameters, fresh, strict=True):
            weights.mul_(shrink).add_(fresh_weights.to(weights.device), alpha=perturb)
