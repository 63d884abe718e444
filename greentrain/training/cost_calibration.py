"""A short measured training, before any history says what a step costs."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from typing import Any

from pytorch_lightning import Callback, Trainer
from torch.utils.data import Dataset

from greentrain.budget import Account, Budget
from greentrain.callbacks import BudgetGuard
from greentrain.control import Action, Candidate, CostModel, UpdateMode
from greentrain.energy import WindowRecorder
from greentrain.payments import MIN_RESERVATION_J, Payment, paying
from greentrain.training.data import UpdateData
from greentrain.training.modes import ModeConfig, full_retraining_steps
from greentrain.training.updater import Updater

MAX_STEPS = 500
ENOUGH_STEPS = 25
ENOUGH_S = 0.8
"""Steps and seconds that a calibration needs: a meter takes a while to see any power."""
WARM_UP_STEPS = 2
"""Steps of a first fit that is paid for and not used: the first one is always dearer."""
_PARTS = 3
SHARE = 0.5
"""Share of what is left of its own budget that a calibration may draw."""


def affordable_j(account: Account) -> float | None:
    """Return what to reserve for a calibration, or ``None`` if nothing is left for one."""
    reserved_j = SHARE * account.balance().left_j
    return reserved_j if reserved_j > MIN_RESERVATION_J else None


def calibrate(
    updater: Updater,
    batch: UpdateData,
    judged_on: Dataset[Any],
    cost: CostModel,
    recorder: WindowRecorder,
    account: Account,
    *,
    reserved_j: float,
) -> Payment:
    """Train a few steps of a model that is thrown away, and tell the cost model what they drew.

    Args:
        updater: Trains.
        batch: The data.
        judged_on: Held-out data, which each update ends with a validation on.
        cost: The cost model.
        recorder: Records the windows.
        account: Pays.
        reserved_j: Joules to reserve; training stops at them.

    Returns:
        The payment, with the joules drawn.
    """
    reservation = account.reserve(reserved_j, "calibration")
    with paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment:
        with recorder.phase("calibration"):
            _fit(updater, batch, WARM_UP_STEPS, BudgetGuard(reserved_j, meter=recorder))
        left_j = max(reserved_j - payment.actual_j, MIN_RESERVATION_J)
        gauge = _Gauge(recorder)
        guard = BudgetGuard(left_j, meter=recorder)
        before_j = payment.actual_j
        with recorder.phase("calibration"):
            _fit(updater, batch, MAX_STEPS, guard, gauge)
            updater.measure(judged_on)
        fit_j = payment.actual_j - before_j
    step_j = gauge.joules_per_step
    cost.calibrate(fixed_j=max(0.0, fit_j - guard.steps * step_j), step_j=step_j)
    return payment


def _fit(updater: Updater, batch: UpdateData, steps: int, *callbacks: Callback) -> None:
    candidate = Candidate(action=Action(mode=UpdateMode.FULL_RETRAIN), steps=steps)
    updater.train(candidate, batch, position=-1, callbacks=callbacks)


class _Gauge(Callback):
    """Read the meter at each step, and end the fit when that says enough."""

    def __init__(self, recorder: WindowRecorder) -> None:
        self._recorder = recorder
        self._start = recorder.read()
        self._drawn_j: list[float] = []

    @property
    def joules_per_step(self) -> float:
        """Joules per step: the median over three parts of the steps, as any may have stalled."""
        drawn_j = [0.0, *self._drawn_j]
        edges = [round(part * (len(drawn_j) - 1) / _PARTS) for part in range(_PARTS + 1)]
        parts = [
            (drawn_j[end] - drawn_j[begin]) / (end - begin)
            for begin, end in itertools.pairwise(edges)
            if end > begin
        ]
        return max(0.0, statistics.median(parts)) if parts else 0.0

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        drawn = self._recorder.read() - self._start
        self._drawn_j.append(drawn.total_j or 0.0)
        if len(self._drawn_j) >= ENOUGH_STEPS and drawn.duration_s >= ENOUGH_S:
            trainer.should_stop = True


def share_of_full(
    budget: Budget, cost: CostModel, modes: ModeConfig, n_new: int, max_size: int | None
) -> Budget:
    """Turn a budget given as a share of full retraining into joules.

    Each experience to come is taken to be as large as the first.

    Args:
        budget: The budget, with its share.
        cost: The calibrated cost model.
        modes: What a full retraining means.
        n_new: Samples of the first experience.
        max_size: Samples that memory keeps at most; ``None`` if it keeps all of them.
    """
    steps = full_retraining_steps(modes, [n_new] * budget.num_experiences, max_size=max_size)
    full_j = sum(cost.predict(UpdateMode.FULL_RETRAIN, each).mean for each in steps)
    share = budget.share_of_full or 0.0
    energy_j = max(share * full_j, MIN_RESERVATION_J)
    return dataclasses.replace(budget, energy_j=energy_j, share_of_full=None)
