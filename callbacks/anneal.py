"""A learning-rate schedule that ends when the money does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer

WARM_UP = 0.05
"""Share of the schedule in which the rate rises."""


def shape(progress: float) -> float:
    """Return the factor of the learning rate: a short rise, then half a cosine down to zero.

    Cosine annealing is that of Loshchilov & Hutter 2017, equation 5, without restarts.

    Args:
        progress: Share of the schedule that has passed; what lies outside [0, 1] is clipped.

    Example:
        >>> [round(shape(p), 2) for p in (0.0, 0.05, 0.525, 1.0)]
        [0.0, 1.0, 0.5, 0.0]
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP) / (1.0 - WARM_UP)))


def catch_up(done: float, used: float) -> float:
    """Return the factor on top of a user's own schedule: 1 while the money lasts as long as it.

    Args:
        done: Share of the planned steps that has passed.
        used: Share of the cap that has been used.

    Example:
        >>> catch_up(0.5, 0.4)
        1.0
        >>> catch_up(0.5, 0.8) < 0.5
        True
    """
    if used <= done or used <= WARM_UP:
        return 1.0
    ahead, due = shape(used), shape(max(done, WARM_UP))
    return min(1.0, ahead / due) if due > 0 else 0.0


class RateScaler:
    """Scale the learning rates of optimizers at each step, and put them back after it.

    It works in torch's step hooks, so that whatever scheduler there is sees its own rates only.

    Args:
        optimizers: The optimizers.
        factor: Gives the factor of the step to come.
    """

    def __init__(self, optimizers: Iterable[Optimizer], factor: Callable[[], float]) -> None:
        self._factor = factor
        self._rates: dict[int, list[Any]] = {}
        self._handles = [
            handle
            for optimizer in optimizers
            for handle in (
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            )
        ]

    def remove(self) -> None:
        """Scale no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        factor = self._factor()
        self._rates[id(optimizer)] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates.pop(id(optimizer)), strict=True):
            group["lr"] = rate
