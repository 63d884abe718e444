"""Measure the cost of a step by a short training, and size a budget given as a share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pytorch_lightning import Callback

from greentrain.budget import Account, Budget
from greentrain.callbacks import BudgetGuard
from greentrain.callbacks.measured_steps import MeasuredSteps
from greentrain.control import Action, Candidate, CostModel, StepPlan, UpdateMode
from greentrain.energy import WindowRecorder
from greentrain.payments import MIN_RESERVATION_J, Payment, paying
from greentrain.training.data import UpdateData
from greentrain.training.fit import ModelTrainer

MAX_STEPS = 500
ENOUGH_STEPS = 25
ENOUGH_S = 0.8
"""Steps and seconds of a calibration: a meter needs some time to measure power."""
FEWEST_CALIBRATED = 10
"""Steps of the shortest calibration of a given model."""
WARM_UP_STEPS = 2
"""Steps of a first fit that is paid for but not used: the first fit always costs more."""
SHARE = 0.5
"""Share of the balance of the calibration's budget that it may use."""


def calibrate(
    trainer: ModelTrainer,
    data: UpdateData,
    cost: CostModel,
    recorder: WindowRecorder,
    account: Account,
    *,
    validate: Callable[[], object],
    most_steps: int = MAX_STEPS,
) -> Payment | None:
    """Train a few steps of a discarded model, and calibrate the cost model with their joules.

    Args:
        trainer: Trains.
        data: The training data.
        cost: The cost model.
        recorder: Records the windows.
        account: The account that pays; half of its balance is reserved, and training stops there.
        validate: Validates the current model, as each update does at its end.
        most_steps: Largest number of steps, after the warm-up.

    Returns:
        The payment, with the joules used; ``None`` if the account has nothing left.
    """
    reserved_j = SHARE * account.balance().left_j
    if reserved_j <= MIN_RESERVATION_J:
        return None

    def train(steps: int, *callbacks: Callback) -> None:
        candidate = Candidate(action=Action(mode=UpdateMode.FULL_RETRAIN), steps=steps)
        trainer.train(
            candidate, data, weights=None, position=-1, callbacks=callbacks, discarded=True
        )

    reservation = account.reserve(reserved_j, "calibration")
    with paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment:
        with recorder.phase("calibration"):
            train(WARM_UP_STEPS, BudgetGuard(Budget(energy_j=reserved_j), meter=recorder))
        left_j = max(reserved_j - payment.actual_j, MIN_RESERVATION_J)
        steps = MeasuredSteps(recorder, enough_steps=ENOUGH_STEPS, enough_s=ENOUGH_S)
        guard = BudgetGuard(Budget(energy_j=left_j), meter=recorder)
        before_j = payment.actual_j
        with recorder.phase("calibration"):
            train(most_steps, guard, steps)
            validate()
        fit_j = payment.actual_j - before_j
    step_j = steps.joules_per_step
    cost.calibrate(fixed_j=max(0.0, fit_j - guard.steps * step_j), step_j=step_j)
    return payment


def most_steps_of(usual: int, *, given: bool) -> int:
    """Return the largest number of steps of a calibration.

    That of a given model is for one update, and has at most a quarter of its steps.

    Args:
        usual: Steps of a usual warm start.
        given: Whether the model was given.
    """
    return min(MAX_STEPS, max(FEWEST_CALIBRATED, usual // 4)) if given else MAX_STEPS


def share_of_full(
    budget: Budget, cost: CostModel, plan: StepPlan, n_new: int, max_size: int | None
) -> Budget:
    """Convert a budget given as a share of full retraining to joules.

    Each coming experience is expected to be as large as the first.

    Args:
        budget: The budget, with its share.
        cost: The calibrated cost model.
        plan: The steps of a full retraining.
        n_new: Samples of the first experience.
        max_size: Largest number of samples that the buffer keeps; ``None`` if it keeps all.
    """
    steps = plan.full_retraining_steps([n_new] * budget.num_experiences, max_size=max_size)
    full_j = sum(cost.predict(UpdateMode.FULL_RETRAIN, each).mean for each in steps)
    share = budget.share_of_full or 0.0
    energy_j = max(share * full_j, MIN_RESERVATION_J)
    return dataclasses.replace(budget, energy_j=energy_j, share_of_full=None)
