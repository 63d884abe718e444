"""Joules by the number of operations, which do not depend on the load of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

J_PER_OPERATION = 5e-11
"""Joules per operation: a constant, as for 20 operations per nanosecond at 1 W.

Only ratios of joules are published, in which it cancels.
"""
COUNTED = (
    f"joules are operations, counted by torch.utils.flop_counter, times {J_PER_OPERATION:g} J: "
    "this machine is shared, and its timing is noisy"
)
"""The sentence for the note of a row in joules."""


@dataclass(slots=True)
class Operations:
    """Operations counted so far.

    Args:
        total: Multiplications and additions of matrix products and convolutions.
    """

    total: int = 0

    @property
    def joules(self) -> float:
        """Joules of these operations."""
        return self.total * J_PER_OPERATION


@contextmanager
def counted(into: Operations | None = None) -> Iterator[Operations]:
    """Count the operations of everything that runs within, forward and backward.

    Args:
        into: Counter to add to; by default a new one.

    Example:
        >>> import torch
        >>> with counted() as operations:
        ...     product = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> operations.total  # 2 * 3 * 4 multiplications, and as many additions
        48
    """
    operations = Operations() if into is None else into
    mode = FlopCounterMode(display=False)
    with mode:
        yield operations
    operations.total += mode.get_total_flops()
