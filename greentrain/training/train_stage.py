"""Train a successor within its reservation, and judge whether to keep it."""

from __future__ import annotations

import math
from typing import Any

from pytorch_lightning import LightningModule
from torch.utils.data import Dataset

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.control import Candidate, Decision
from greentrain.control.action import Estimate
from greentrain.evaluation.comparison import Comparison
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.probe import FEWEST_VALIDATED, compare_on_all, compare_on_probe
from greentrain.memory import size
from greentrain.payments import Payment, paying
from greentrain.training.artefacts import Artefacts
from greentrain.training.config import CarbonConfig
from greentrain.training.fit import ModelTrainer
from greentrain.training.fit_callbacks import (
    LossCurve,
    StepEnergy,
    StopOnNan,
    has_finite_weights,
    nan_buffers,
)
from greentrain.training.module_checks import check_module
from greentrain.training.run_context import RunContext
from greentrain.training.step_flops import StepFlops
from greentrain.training.stream_state import StreamState
from greentrain.training.update_context import AskedUpdate, JudgedUpdate, Spent

FIRST_CLOSING = 0.1
"""Share of the first training's cap that is kept for its end and its validation."""
CONFIRMING = 3.0
"""Validations that must be left of a reservation for a second comparison, which runs two."""

_ROUNDING = 1e-9


class TrainStage:
    """The stages between ``ask`` and ``tell``: train and judge.

    Args:
        state: The stream's state.
        trainer: Trains successors.
        evaluator: Measures models.
        run: The run that measures and records.
        artefacts: Hashes the data and the new weights.
        carbon: Conversion of joules to grams.
    """

    def __init__(
        self,
        state: StreamState,
        trainer: ModelTrainer,
        evaluator: Evaluator,
        run: RunContext,
        artefacts: Artefacts,
        *,
        carbon: CarbonConfig,
    ) -> None:
        self._state = state
        self._trainer = trainer
        self._evaluator = evaluator
        self._run = run
        self._artefacts = artefacts
        self._carbon = carbon

    def train(self, asked: AskedUpdate) -> JudgedUpdate:
        """Train a successor within its reservation, and judge it."""
        pending, context = asked.pending, asked.context
        decision, recorder, probe = pending.decision, self._run.recorder, self._state.probe
        reserved_j = pending.reserved_j
        held_out = probe.validation_data(context.experience, reserved_j)
        guard = BudgetGuard(
            Budget(energy_j=reserved_j),
            meter=recorder,
            anneal=self._trainer.anneals,
            keep_j=self._closing_j(decision, size(held_out)),
            log=False,
        )
        pauses = None if asked.waited is None else asked.waited.pauses
        readings = recorder if pauses is None else pauses
        steps = StepEnergy(readings, planned=decision.steps, other_j=self._fixed_j(decision))
        curve, nan, counted = LossCurve(), StopOnNan(), StepFlops()
        monitor = EnergyMonitor(
            recorder,
            ledger=False,
            summary=False,
            zone=self._carbon.zone,
            intensity=self._carbon.intensity,
            pue=self._carbon.pue,
            market_intensity=self._carbon.market_intensity,
        )
        pausing = [] if pauses is None else [pauses.within(guard)]
        logger = self._run.begin_update(context.experience)
        reservation = str(pending.reservation_id)
        with (
            paying(
                pending.account, recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            recorder.phase("update"),
        ):
            if not self._state.model.trained:  # a missing metric must fail before the fit
                self._check(self._state.model.module, held_out)
            model = self._trainer.train(
                Candidate(action=decision.action, steps=decision.steps),
                context.data,
                weights=self._state.model.weights,
                position=context.position,
                callbacks=[
                    *(monitor, guard, steps, curve, nan, counted),
                    *pausing,
                    *self._state.methods.callbacks(decision.action),
                ],
                logger=logger,
            )
            with recorder.phase("validation"):
                after = self._validate(model.module, held_out)
                compared = self._compare(asked, model.module, payment, held_out)
                new_nans = nan_buffers(model.module) - nan_buffers(self._state.model.module)
                finite = has_finite_weights(model.module) and math.isfinite(after) and not new_nans
                kept = finite and not nan.stopped and not self._loses(compared, decision)
                if kept:
                    self.evaluate_each(model.module, context.experience.val)
            self._artefacts.hash_update(context.experience, model.module if kept else None)
            if steps.ended_j is not None:
                closing_j = max(0.0, (readings.read().total_j or 0.0) - steps.ended_j)
                self._state.closing.learn(closing_j, validation_j=probe.validation_j)
        self._state.waits.learn_update(payment.used)
        cost = self._state.controller.cost
        if steps.step_j is not None and not cost.calibrated:  # the first update calibrates
            fixed_j = max(0.0, payment.actual_j - guard.steps * steps.step_j)
            cost.calibrate(fixed_j=fixed_j, step_j=steps.step_j)
        return JudgedUpdate(
            model=model,
            steps=guard.steps,
            kept=kept,
            metric_after=after,
            comparison=compared,
            spent=Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j),
            paused=Spent() if pauses is None else pauses.spent,
            slope=curve.slope,
            projected_j=steps.projected_j,
            flops=counted.columns(guard.steps),
        )

    def _check(self, model: LightningModule, held_out: Dataset[Any]) -> None:
        """Check the names that a model logs in validation, before its first fit."""
        evaluator = self._evaluator
        evaluator.check(model, held_out)
        check_module(model, monitor=evaluator.monitor, logged=evaluator.logged)

    def hash_model(self, model: LightningModule) -> None:
        """Hash the weights of a new model while its energy is paid."""
        self._artefacts.hash_model(model)

    def evaluate_each(self, model: LightningModule, *current: Dataset[Any]) -> None:
        """Record the metric of a model on each experience separately, if requested.

        Args:
            model: The model.
            current: Held-out data of the current experience, until it is stored.
        """
        state = self._state
        if state.per_experience is not None:
            past = [state.held_out.of(name) for name in state.data.known]
            state.per_experience.evaluate(self._evaluator, model, [*past, *current])

    def _validate(self, model: LightningModule, held_out: Dataset[Any]) -> float:
        """Validate a model, and learn the energy of the phase that was opened for it."""
        recorder = self._run.recorder
        after = self._evaluator.metric(model, held_out)
        used_j = recorder.used(recorder.depth - 1).total_j or 0.0
        self._state.probe.learn_validation(size(held_out), used_j)
        return after

    def _compare(
        self,
        asked: AskedUpdate,
        model: LightningModule,
        payment: Payment,
        held_out: Dataset[Any],
    ) -> Comparison | None:
        """Compare a successor with the current model, on more samples if it seems to be worse.

        On the few samples of a probe it may seem worse by chance, and the update would be lost.
        Without a probe, both are measured on held-out samples.
        """
        probe, history, evaluator = self._state.probe, self._state.history, self._evaluator
        current = self._state.model.module
        if asked.probe is None:
            if not self._state.model.trained:
                return None
            some = probe.some(held_out, FEWEST_VALIDATED)
            return compare_on_all(some, current, model, evaluator=evaluator, history=history)
        compared = compare_on_probe(
            asked.probe, current, model, evaluator=evaluator, history=history
        )
        left_j = payment.reserved_j - (payment.used.total_j or 0.0)
        if (
            not self._loses(compared, asked.pending.decision)
            or left_j < CONFIRMING * probe.validation_j
        ):
            return compared
        more = probe.validation_data(asked.context.experience, left_j)
        return compare_on_all(more, current, model, evaluator=evaluator, history=history)

    def _loses(self, compared: Comparison | None, decision: Decision) -> bool:
        """Return whether a successor is not kept.

        It is not if it is worse by more than chance, or if the gain that is expected from both the
        prediction and the measurement is negative. The owner of a given model chose the samples,
        and gets the better model on them.
        """
        if compared is None:
            return False
        if self._state.model.given:
            return compared.gain < -_ROUNDING
        return compared.worse or _expected(decision.gain, compared) < 0

    def _fixed_j(self, decision: Decision) -> float | None:
        """Return the expected joules of an update besides its steps."""
        cost = self._state.controller.cost
        return cost.predict(decision.action.mode, 0).mean if cost.calibrated else None

    def _closing_j(self, decision: Decision, samples: int) -> float:
        """Return joules to keep for the end of an update, its validation included."""
        fixed_j = self._fixed_j(decision)
        if fixed_j is None:
            return FIRST_CLOSING * decision.cost_j.upper
        validation_j = self._state.probe.expected_validation_j(samples)
        # About half of the fixed energy besides the validation is used after the steps.
        other_j = 0.5 * max(0.0, fixed_j - validation_j)
        if self._state.per_experience is not None:
            other_j += validation_j
        return self._state.closing.upper_bound_j(validation_j, unknown_j=other_j)


def _expected(predicted: Estimate, compared: Comparison) -> float:
    """Return the mean of a predicted and a measured gain, each weighted by its precision."""
    variance = predicted.sd**2 + compared.sd**2
    if not (variance > 0 and math.isfinite(compared.gain) and math.isfinite(predicted.mean)):
        return compared.gain
    share = predicted.sd**2 / variance  # of the measurement
    return share * compared.gain + (1.0 - share) * predicted.mean
