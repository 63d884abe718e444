"""A learning-rate schedule that ends when the money does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from greentrain.callbacks.trainer_plan import planned_batches
from greentrain.callbacks.watch import Watch

WARM_UP = 0.05
"""Share of the schedule in which the rate rises."""
_scaled: WeakSet[Optimizer] = WeakSet()


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


class Annealing:
    """Anneal a fit's learning rates by its steps or its cap, whichever is further.

    Where the module has schedulers of its own, they are left alone while the share of the cap that
    is used is no larger than that of the planned steps, and what is left pays for the rest.

    Args:
        trainer: The Trainer.
        watch: What the fit has drawn.
    """

    def __init__(self, trainer: Any, watch: Watch) -> None:
        self._trainer = trainer
        self._watch = watch
        self._batches = planned_batches(trainer)
        self._most_steps = trainer.max_steps
        scheduled = bool(trainer.lr_scheduler_configs)
        self._scaler = RateScaler(trainer.optimizers, self._beside if scheduled else self._alone)

    def remove(self) -> None:
        """Anneal no more."""
        self._scaler.remove()

    def _done(self) -> float:
        """Return which share of the planned steps there will have been after the one at hand."""
        done = (self._watch.steps + 1) / self._batches if self._batches else 1.0
        if self._most_steps > 0:
            done = max(done, (self._trainer.global_step + 1) / self._most_steps)
        return done

    def _alone(self) -> float:
        return shape(max(self._done(), self._watch.share_used()))

    def _beside(self) -> float:
        done = self._done()
        if self._watch.share_used(whole=True) <= done and self._watch.lasts(done):
            return 1.0
        return catch_up(done, self._watch.share_used())


class NoAnnealing:
    """Stands in where nothing is annealed."""

    def remove(self) -> None:
        """Do nothing."""


class RateScaler:
    """Scale the learning rates of optimizers at each step, and put them back after it.

    It works in torch's step hooks, so that whatever scheduler there is sees its own rates only.

    Args:
        optimizers: The optimizers.
        factor: Gives the factor of the step to come.

    Raises:
        MisconfigurationException: If one of them is scaled already: torch runs hooks in one order
            before and after a step, so two of them would not put back what they found.
    """

    def __init__(self, optimizers: Iterable[Optimizer], factor: Callable[[], float]) -> None:
        self._optimizers = list(optimizers)
        if any(each in _scaled for each in self._optimizers):
            raise MisconfigurationException(
                "two BudgetGuards of one Trainer have anneal=True; leave it to one of them"
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
        """Scale no more."""
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
