"""Count the floating-point operations of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_operations(module: nn.Module, *inputs: Any) -> int:
    """Return the floating-point operations of one forward pass in evaluation mode.

    They are those of matrix products and convolutions by the formulas of
    ``torch.utils.flop_counter``: a multiplication and an addition count as two. Elementwise
    operations count as none.

    Args:
        module: The module. Its mode is restored.
        *inputs: Its inputs.

    Returns:
        Operations of the whole batch.

    Example:
        >>> count_operations(nn.Linear(3, 4), torch.zeros(2, 3))  # 2 * 2 * 3 * 4
        48
    """
    with evaluating(module), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode without gradients, and restore the mode of each part."""
    training = [each for each in module.modules() if each.training]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for each in training:
            each.training = True
