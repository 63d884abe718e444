"""Anneal learning rates so that a schedule ends at the planned steps or at the cap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from greentrain.callbacks.trainer_plan import planned_batches
from greentrain.callbacks.usage import FitUsage

WARM_UP = 0.05
"""Share of the schedule during which the rate rises."""
_scaled: WeakSet[Optimizer] = WeakSet()


def cosine_factor(progress: float) -> float:
    """Return the learning-rate factor: a short rise, then half a cosine down to zero.

    The cosine is equation 5 of Loshchilov & Hutter 2017, without restarts.

    Args:
        progress: Share of the schedule that is done, clipped to [0, 1].

    Example:
        >>> [round(cosine_factor(p), 2) for p in (0.0, 0.05, 0.525, 1.0)]
        [0.0, 1.0, 0.5, 0.0]
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP) / (1.0 - WARM_UP)))


def catch_up(done: float, used: float) -> float:
    """Return the factor on top of a user's schedule; 1 while the cap lasts as long as the steps.

    Args:
        done: Share of the planned steps that is done.
        used: Share of the cap that is used.

    Example:
        >>> catch_up(0.5, 0.4)
        1.0
        >>> catch_up(0.5, 0.8) < 0.5
        True
    """
    if used <= done or used <= WARM_UP:
        return 1.0
    ahead, due = cosine_factor(used), cosine_factor(max(done, WARM_UP))
    return min(1.0, ahead / due) if due > 0 else 0.0


def annealed_rates(trainer: Any, usage: FitUsage) -> RateScaler:
    """Anneal a fit's learning rates by its steps or its cap, whichever has progressed further.

    The module's own schedulers apply unchanged under two conditions. The used share of the cap is
    at most the share of planned steps done, and the rest of the cap pays for the other steps.

    Args:
        trainer: The Trainer.
        usage: Energy that the fit uses.
    """
    batches, max_steps = planned_batches(trainer), trainer.max_steps

    def done() -> float:
        """Return the share of the planned steps that is done after the current step."""
        share = (usage.steps + 1) / batches if batches else 1.0
        return max(share, (trainer.global_step + 1) / max_steps) if max_steps > 0 else share

    def alone() -> float:
        return cosine_factor(max(done(), usage.share_used()))

    def with_scheduler() -> float:
        share = done()
        if usage.share_used(whole=True) <= share and usage.lasts(share):
            return 1.0
        return catch_up(share, usage.share_used())

    return RateScaler(trainer.optimizers, with_scheduler if trainer.lr_scheduler_configs else alone)


class RateScaler:
    """Scale the learning rates of optimizers during each step, and restore them after it.

    It uses torch's step hooks, so that a scheduler sees only the rates that it has set.

    Args:
        optimizers: The optimizers.
        factor: Returns the factor of the next step.

    Raises:
        MisconfigurationException: If an optimizer is scaled already. Torch runs hooks in the same
            order before and after a step, so two scalers would not restore the rates.
    """

    def __init__(self, optimizers: Iterable[Optimizer], factor: Callable[[], float]) -> None:
        self._optimizers = list(optimizers)
        if any(each in _scaled for each in self._optimizers):
            raise MisconfigurationException(
                "two BudgetGuards of one Trainer have anneal=True; set it for one of them only"
            )
        _scaled.update(self._optimizers)
        self._factor = factor
        self._rates: dict[int, list[Any]] = {}
        self._handles = [
            handle
            for optimizer in self._optimizers
            for handle in (
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            )
        ]

    def remove(self) -> None:
        """Stop scaling; harmless if repeated."""
        for handle in self._handles:
            handle.remove()
        _scaled.difference_update(self._optimizers)
        self._handles, self._optimizers = [], []

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        factor = self._factor()
        self._rates[id(optimizer)] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates.pop(id(optimizer)), strict=True):
            group["lr"] = rate
