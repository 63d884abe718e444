"""Short trainings of two options that are thrown away, and where they would have ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import Dataset

from greentrain.callbacks import BudgetGuard
from greentrain.callbacks.base import Callback
from greentrain.control import Candidate, Estimate, Option, UpdateMode
from greentrain.control.profiling import Curve, fit_curve
from greentrain.energy import WindowRecorder
from greentrain.payments import Payment
from greentrain.updating.material import Batch
from greentrain.updating.progress import Progress
from greentrain.updating.reading import Measured, together
from greentrain.updating.updater import Updater

POINTS = 4
"""Points of the way at which the metric is read."""
SURE_SD = 2.0
"""Standard deviations from a mean to its upper bound."""
_DEAR_READING = 2.0  # how much dearer than the dearest so far the next one may be

Foretold = Callable[[Option], Estimate]
"""What a trial says that an option of its update mode gains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Two trials that are worth their joules.

    Args:
        options: The option that was decided for, and the best one of another update mode.
        steps: Steps of the trial of each.
        expected_j: Joules that the trial of each is expected to draw, its readings included.
        reading_j: Joules for reading the metric once.
        reserved_j: Joules that both may draw at most: a twentieth of what is at stake.
        held: The held-out samples that the metric is read on.
    """

    options: tuple[Option, Option]
    steps: tuple[int, int]
    expected_j: tuple[float, float]
    reading_j: float
    reserved_j: float
    held: tuple[Dataset[Any], ...]


class Trials:
    """Both trials, under one reservation.

    Args:
        updater: Trains, and measures.
        recorder: Reads the meter; the trials' phase is open.
        payment: What the trials are paid from.
        progress: Orients the metric.
        ceiling: The best value of the metric, oriented.
        plan: What to try.
    """

    def __init__(
        self,
        updater: Updater,
        recorder: WindowRecorder,
        payment: Payment,
        progress: Progress,
        *,
        ceiling: float,
        plan: Plan,
    ) -> None:
        self._updater = updater
        self._recorder = recorder
        self._payment = payment
        self._progress = progress
        self._ceiling = ceiling
        self._plan = plan
        self._reading_j = plan.reading_j

    def gains(self, part: Batch, position: int) -> dict[UpdateMode, Foretold]:
        """Return what each trial says of its update mode; nothing where one of them says nothing.

        Args:
            part: The data to train on.
            position: Number of the experience.
        """
        before = self._read(None)
        gains: dict[UpdateMode, Foretold] = {}
        for place, option in enumerate(self._plan.options):
            expected_j, later_j = (
                self._plan.expected_j[place],
                sum(self._plan.expected_j[place + 1 :]),
            )
            limit_j = self._plan.reserved_j - later_j
            if limit_j - self._drawn_j() < expected_j:
                return {}
            curve = self._curve(place, part, position, limit_j)
            if curve is None:
                return {}
            gains[option.action.mode] = self._gain(*curve, before)
        return gains

    def _curve(
        self, place: int, part: Batch, position: int, limit_j: float
    ) -> tuple[Curve, Measured] | None:
        """Return an option's learning curve with the last reading, if the joules last for it."""
        option, steps = self._plan.options[place], self._plan.steps[place]
        points = MeanPoints(steps)
        keep_j = POINTS * self._reading_j
        guard = BudgetGuard(limit_j - self._drawn_j(), meter=self._recorder, keep_j=keep_j)
        model = self._updater.train(
            Candidate(action=option.action, steps=steps),
            part,
            position=position,
            callbacks=[guard, points],
        )
        seen: list[tuple[int, Measured]] = []
        for step, state in points.points:
            if limit_j - self._drawn_j() < _DEAR_READING * self._reading_j:
                return None
            model.load_state_dict(state)
            seen.append((step, self._read(model)))
        oriented = [self._progress.oriented(each.value) for _, each in seen]
        metrics = [math.nan if metric is None else metric for metric in oriented]
        curve = fit_curve([step for step, _ in seen], metrics, ceiling=self._ceiling)
        return None if curve is None else (curve, seen[-1][1])

    def _gain(self, curve: Curve, last: Measured, before: Measured) -> Foretold:
        """Return the gain that a curve foretells, with the scatter of the samples in its sd."""
        reached, sampling_sd = self._progress.gain(before, last)
        start = (self._progress.oriented(last.value) or 0.0) - reached

        def gain(option: Option) -> Estimate:
            then = curve.at(option.candidate.steps)
            mean, sd = then.mean - start, math.hypot(then.sd, sampling_sd)
            return Estimate(mean=mean, sd=sd, upper=mean + SURE_SD * sd)

        return gain

    def _read(self, model: LightningModule | None) -> Measured:
        before_j = self._drawn_j()
        read = together(self._updater.measured(self._plan.held, model))
        self._reading_j = max(self._reading_j, self._drawn_j() - before_j)
        return read

    def _drawn_j(self) -> float:
        return self._payment.drawn.total_j or 0.0


class MeanPoints(Callback):
    """Note the mean of a module's weights over each quarter of a fit.

    The mean stands for what averaging or annealing makes of the weights at the end of an update: at
    a constant rate the last ones scatter, and would seem worse than the model that is there.

    Args:
        steps: Batches of the fit.

    Attributes:
        points: After how many batches, and the module's state with the mean in it, on the CPU.
    """

    def __init__(self, steps: int) -> None:
        self.points: list[tuple[int, dict[str, Any]]] = []
        self._edges = [round(steps * point / POINTS) for point in range(1, POINTS + 1)]
        self._mean: dict[str, torch.Tensor] = {}
        self._taken = self._batches = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Take the weights into the mean, and note it where a quarter ends."""
        self._batches += 1
        self._taken += 1
        state = pl_module.state_dict()
        floats = {name: each for name, each in state.items() if _is_float(each)}
        if self._taken == 1:
            self._mean = {name: each.detach().clone() for name, each in floats.items()}
        for name, each in floats.items():
            self._mean[name].lerp_(each.detach(), 1.0 / self._taken)
        if self._batches in self._edges:
            mean = {**state, **self._mean}
            self.points.append((self._batches, {name: _kept(each) for name, each in mean.items()}))
            self._taken = 0


def _is_float(each: Any) -> bool:
    return isinstance(each, torch.Tensor) and each.is_floating_point()


def _kept(each: Any) -> Any:
    return each.detach().cpu().clone() if isinstance(each, torch.Tensor) else each
