"""Run baseline retrainings: measured full retrainings next to a stream, to show its savings."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard
from greentrain.control import (
    Action,
    Candidate,
    Decision,
    Estimate,
    Option,
    Reason,
    UpdateMode,
    decided,
)
from greentrain.control.decision import unweighed
from greentrain.decisions.core import BudgetAccount, DecisionCore, finite
from greentrain.energy import WindowRecorder
from greentrain.errors import ConfigurationError
from greentrain.evaluation.comparison import Measured
from greentrain.evaluation.evaluator import Evaluator
from greentrain.memory import size
from greentrain.payments import MIN_RESERVATION_J, paying
from greentrain.texts import get_logger
from greentrain.training.fit import ModelTrainer
from greentrain.training.fit_callbacks import StopOnNan, has_finite_weights
from greentrain.training.result import UpdateResult, outcome_of
from greentrain.training.step_flops import StepFlops
from greentrain.training.stream_state import StreamState
from greentrain.training.train_stage import TrainStage
from greentrain.training.update_context import AskedUpdate, Spent
from greentrain.training.update_loop import UpdateLoop
from greentrain.units import format_energy, is_whole

PHASE = "baseline"
_FULL = Action(mode=UpdateMode.FULL_RETRAIN)
_log = get_logger(__name__)


def check_baseline_every(every: int | None) -> int | None:
    """Return a number of experiences as a plain ``int``; ``None`` stays.

    Raises:
        ConfigurationError: If it is no whole number, 1 or more.
    """
    if every is not None and not is_whole(every, 1):
        raise ConfigurationError(
            f"baseline_every is {every!r}; it must be a whole number of experiences, 1 or more, or "
            "None for no baseline retrainings"
        )
    return None if every is None else int(every)


def is_due(every: int, position: int) -> bool:
    """Return whether an experience gets a baseline retraining; the first one, number 0, does not.

    Example:
        >>> [position for position in range(10) if is_due(3, position)]
        [3, 6, 9]
    """
    return position > 0 and position % every == 0


class BaselineRuns:
    """Retrain in full next to the stream, and keep the better model.

    A baseline retraining trains on all data that the stream holds after the experience, from fresh
    weights and with its own seed. Both models are measured on the same held-out samples. The
    stream's budget pays. The retrained model is discarded, unless it is better by more than one
    standard error. Then it becomes the current model, as its energy is already spent.

    Args:
        loop: Decides, and commits outcomes.
        stage: Trains and judges updates.
        state: The stream's state.
        trainer: Trains.
        evaluator: Measures models.
        core: Records decisions and outcomes.
        recorder: Records the windows.
    """

    def __init__(
        self,
        loop: UpdateLoop,
        stage: TrainStage,
        state: StreamState,
        trainer: ModelTrainer,
        evaluator: Evaluator,
        core: DecisionCore,
        recorder: WindowRecorder,
    ) -> None:
        self._loop = loop
        self._stage = stage
        self._state = state
        self._trainer = trainer
        self._evaluator = evaluator
        self._core = core
        self._recorder = recorder

    def run(
        self, asked: AskedUpdate, account: BudgetAccount
    ) -> tuple[UpdateResult, dict[str, Any]] | None:
        """Run the baseline retraining of an experience after its update.

        Args:
            asked: The update.
            account: The account that pays.

        Returns:
            The result, and the ledger's row of the outcome. The metric before is that of the
            stream's model, and the metric after that of the retrained one, kept or not. ``None`` if
            there is no model, no data, or too little budget.
        """
        state, context = self._state, asked.context
        data = state.data.everything(context.experience)
        cost, held_out = state.controller.cost, context.held_out
        if data is None or not size(held_out) or not state.model.trained or not cost.calibrated:
            _log_omitted(asked, "there is nothing to train on or to compare with")
            return None
        steps = self._trainer.plan.steps(_FULL, n_new=data.n_new, n_stored=0)
        evaluation_j = max(2.0 * state.probe.validation_j, MIN_RESERVATION_J)
        predicted = cost.predict(_FULL.mode, steps)
        pending = self._core.ask(
            context.experience.id,
            position=context.position,
            state=asked.pending.state,
            decision=_decision(steps, predicted, predicted.upper + evaluation_j),
            account=account,
            purpose=f"baseline retraining at {context.experience.id}",
        )
        if pending.reservation_id is None:
            _log_omitted(asked, pending.decision.sentence)
            return None
        reserved_j, recorder = pending.reserved_j, self._recorder
        with paying(
            account, recorder, reserved_j=reserved_j, reservation=pending.reservation_id
        ) as payment:
            with recorder.phase("probe"):
                (before,) = self._evaluator.measure(state.model.module, [held_out])
            probe_j = payment.actual_j
            left_j = max(reserved_j - probe_j, MIN_RESERVATION_J)
            guard = BudgetGuard(
                Budget(energy_j=left_j),
                meter=recorder,
                anneal=self._trainer.anneals,
                keep_j=min(evaluation_j, 0.5 * left_j),
            )
            nan, counted = StopOnNan(), StepFlops()
            with recorder.phase(PHASE):
                model = self._trainer.train(
                    Candidate(action=_FULL, steps=steps),
                    data,
                    weights=None,
                    position=-2 - context.position,  # no update of the stream has this seed
                    callbacks=[guard, nan, counted],
                )
                (after,) = self._evaluator.measure(model.module, [held_out])
                kept = not nan.stopped and has_finite_weights(model.module)
                compared = self._state.history.compare(before, after)
                kept = kept and self._is_better(before, after)
                if kept:
                    state.model.keep(model, _FULL)
                    state.history.add(after.value)
                    state.data.pending = []  # the model has trained on them
                    self._stage.evaluate_each(model.module)
                    self._stage.hash_model(model.module)
        cost.observe(_FULL.mode, guard.steps, payment.actual_j - probe_j)
        result = self._loop.result(
            dataclasses.replace(asked, pending=pending, spent=Spent()),
            Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j),
            finite(before.value),
            after.value,
            steps=guard.steps,
            kept=kept,
        )
        row = self._core.outcome_row(
            pending, outcome_of(result), gain=compared.gain, gain_sd=compared.sd
        )
        return result, {**row, **counted.columns(guard.steps)}

    def _is_better(self, before: Measured, after: Measured) -> bool:
        """Return whether the stream's model is worse by more than one standard error."""
        return math.isfinite(after.value) and self._state.history.compare(after, before).worse


def _log_omitted(asked: AskedUpdate, why: str) -> None:
    _log.warning("no baseline retraining at experience %s: %s", asked.context.experience.id, why)


def _decision(steps: int, cost_j: Estimate, upper_j: float) -> Decision:
    option = Option(
        candidate=Candidate(action=_FULL, steps=steps),
        cost_j=Estimate(mean=cost_j.mean, sd=cost_j.sd, upper=upper_j),
        gain=Estimate(mean=0.0, sd=0.0, upper=0.0),
    )
    sentence = (
        "a full retraining next to the stream, to measure its savings and losses; expected to use "
        f"{format_energy(cost_j.mean)}"
    )
    return decided(option, Reason.BASELINE, sentence, alternatives=unweighed([option]))
