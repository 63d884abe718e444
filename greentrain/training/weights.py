"""Load weights into a module whose buffers may have another shape."""

from __future__ import annotations

from collections.abc import Mapping

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
