"""Update a model on one experience: observe, decide, reserve, train, judge, commit.

Each stage takes frozen values and returns frozen values. :meth:`UpdateLoop.ask` observes, decides
and reserves; :meth:`UpdateLoop.train` trains and judges within the reservation;
:meth:`UpdateLoop.tell` settles and learns.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from pytorch_lightning import LightningModule
from torch.utils.data import Dataset, Subset

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.control import Candidate, Decision, Reason, State, broke
from greentrain.decisions.core import (
    BudgetAccount,
    DecisionCore,
    UpdateOutcome,
    finite,
)
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.errors import BudgetExceeded, LedgerError
from greentrain.evaluation.comparison import Comparison, combine
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.probe import FEWEST, ProbeResult, compare_on_probe
from greentrain.memory import size
from greentrain.payments import Payment, paying
from greentrain.training.config import CarbonConfig
from greentrain.training.cost_calibration import calibrate, share_of_full
from greentrain.training.fit import ModelTrainer
from greentrain.training.fit_callbacks import LossCurve, StepEnergy, StopOnNan, has_finite_weights
from greentrain.training.result import UpdateResult
from greentrain.training.run_context import RunContext
from greentrain.training.shadow import shadow_decision
from greentrain.training.stream_state import StreamState
from greentrain.training.update_context import AskedUpdate, JudgedUpdate, Spent, UpdateContext
from greentrain.units import format_energy

FIRST_CLOSING = 0.1
"""Share of the first training's cap that is kept for its end and its validation."""
FIRST_AT_LEAST_J = 1.0
"""Smallest cap of a first training: a tenth of a second of a small computer.

The energy of its first step is unknown, and must not exceed the budget.
"""
CONFIRMING = 3.0
"""Validations that must be left of a reservation for a second comparison, which runs two."""


class UpdateLoop:
    """Run the stages of an update.

    Args:
        state: The stream's state: model, data, and what was learned.
        trainer: Trains successors.
        evaluator: Measures models.
        budget: The budget that pays.
        core: Decides, records and learns.
        run: The run that measures and records.
        carbon: Conversion of joules to grams.
    """

    def __init__(
        self,
        state: StreamState,
        trainer: ModelTrainer,
        evaluator: Evaluator,
        budget: StreamBudget,
        core: DecisionCore,
        run: RunContext,
        *,
        carbon: CarbonConfig,
    ) -> None:
        self._state = state
        self._trainer = trainer
        self._evaluator = evaluator
        self._budget = budget
        self._core = core
        self._run = run
        self._carbon = carbon

    def ask(
        self, context: UpdateContext, account: BudgetAccount, *, shadow: bool = False
    ) -> AskedUpdate:
        """Observe the current model, decide, and reserve.

        Args:
            context: The experience.
            account: The account that pays.
            shadow: Whether the decision is only recorded, in shadow mode.

        Raises:
            LedgerError: If nothing can be recorded or reserved. Then nothing may start.
        """
        spent, probe, state = Spent(), None, None
        try:
            if not self._budget.sized:
                spent = self._size_budget(context, account)
                account = self._budget.account(self._run.run)
            if not self._budget.sized:
                decision = _budget_exhausted(account)
            else:
                probe, state, decision, paid = self._observe(context, account)
                spent = _sum(spent, paid)
                if shadow and decision.reason is not Reason.BUDGET_EXHAUSTED:
                    calibrated = self._state.controller.cost.calibrated
                    decision = shadow_decision(decision, state, calibrated=calibrated)
        except BudgetExceeded as error:  # another run was faster
            decision = broke(str(error))
        pending = self._core.ask(
            context.experience.id,
            position=context.position,
            state=state,
            decision=decision,
            account=account,
            metric_before=None if probe is None else probe.metric,
            reserve=not shadow,
        )
        return AskedUpdate(context=context, pending=pending, probe=probe, spent=spent)

    def train(self, asked: AskedUpdate) -> JudgedUpdate:
        """Train a successor within its reservation, and judge it."""
        pending, context = asked.pending, asked.context
        decision, recorder, probe = pending.decision, self._run.recorder, self._state.probe
        reserved_j = pending.reserved_j
        held_out = probe.validation_data(context.experience, reserved_j)
        guard = BudgetGuard(
            reserved_j,
            meter=recorder,
            anneal=self._trainer.anneals,
            keep_j=self._closing_j(decision, size(held_out)),
        )
        steps = StepEnergy(recorder, planned=decision.steps, other_j=self._fixed_j(decision))
        curve, nan = LossCurve(), StopOnNan()
        monitor = EnergyMonitor(
            recorder,
            ledger=False,
            summary=False,
            zone=self._carbon.zone,
            intensity=self._carbon.intensity,
            pue=self._carbon.pue,
        )
        logger = self._run.begin_update(context.experience)
        reservation = str(pending.reservation_id)
        with (
            paying(
                pending.account, recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            recorder.phase("update"),
        ):
            if not self._state.model.trained:  # finds a metric that is not logged before it costs
                self._evaluator.measure(self._state.model.module, [Subset(held_out, [0])])
            model = self._trainer.train(
                Candidate(action=decision.action, steps=decision.steps),
                context.data,
                weights=self._state.model.weights,
                position=context.position,
                callbacks=[monitor, guard, steps, curve, nan],
                logger=logger,
            )
            with recorder.phase("validation"):
                after = self._validate(model.module, held_out)
                compared = self._compare(asked, model.module, payment)
                sound = not nan.stopped and has_finite_weights(model.module)
                sound = sound and math.isfinite(after)
                kept = sound and (compared is None or not compared.worse)
                if kept:
                    self.evaluate_each(model.module, context.experience.val)
            if steps.ended_j is not None:
                closing_j = (recorder.read().total_j or 0.0) - steps.ended_j
                self._state.closing.learn(closing_j, validation_j=probe.validation_j)
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
            slope=curve.slope,
            projected_j=steps.projected_j,
        )

    def tell(
        self, asked: AskedUpdate, judged: JudgedUpdate | None
    ) -> tuple[UpdateResult, dict[str, Any]]:
        """Commit the outcome of an update: learn, keep the model, and store the experience.

        Both metrics of a training are of the same samples. A probe has fewer samples than a
        validation, so its metric differs by chance.

        Args:
            asked: The update.
            judged: Its trained successor; ``None`` after ``SKIP``.

        Returns:
            The result, and the ledger's row of the outcome.
        """
        pending, state = asked.pending, self._state
        if judged is None:
            before = finite(pending.metric_before)
            result = self.result(asked, Spent(), before, before, steps=0, kept=True)
            row = self._core.tell(pending, outcome_of(result), update_j=0.0)
        else:
            compared = judged.comparison
            gain = None if compared is None else compared.gain
            before = finite(state.history.before(judged.metric_after, gain))
            after = judged.metric_after if judged.kept else before
            result = dataclasses.replace(
                self.result(
                    asked, judged.spent, before, after, steps=judged.steps, kept=judged.kept
                ),
                projected_j=judged.projected_j,
            )
            row = self._core.tell(
                pending,
                outcome_of(result),
                update_j=judged.spent.energy_j,
                trained_metric=judged.metric_after,
                gain=gain,
                gain_sd=0.0 if compared is None else compared.sd,
            )
            state.slope = judged.slope
            if judged.kept:
                state.model.keep(judged.model, pending.action)
                state.history.add(judged.metric_after)
        self.store(asked, trained=result.steps > 0 and result.kept)
        return result, row

    def evaluate_each(self, model: LightningModule, *current: Dataset[Any]) -> None:
        """Record the metric of a model on each experience separately, if that was asked for.

        Args:
            model: The model.
            current: Held-out data of the current experience, until it is stored.
        """
        state = self._state
        if state.per_experience is not None:
            past = [state.held_out.of(name) for name in state.data.known]
            state.per_experience.evaluate(self._evaluator, model, [*past, *current])

    def _size_budget(self, context: UpdateContext, account: BudgetAccount) -> Spent:
        """Measure the cost of a step, and convert a budget given as a share to joules."""
        state = self._state
        payment = calibrate(
            self._trainer,
            self._evaluator,
            state.model.module,
            context.data,
            context.held_out,
            state.controller.cost,
            self._run.recorder,
            account,
        )
        if payment is None:
            return Spent()
        n_new, buffer = context.data.n_new, state.data.buffer
        kept = n_new if buffer is None else buffer.max_size
        plan, cost = self._trainer.plan, state.controller.cost
        self._budget.open_sized(share_of_full(self._budget.budget, cost, plan, n_new, kept))
        return Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)

    def _observe(
        self, context: UpdateContext, account: BudgetAccount
    ) -> tuple[ProbeResult | None, State, Decision, Spent]:
        """Probe the current model if the budget affords it, and decide."""
        probe, recorder = self._state.probe, self._run.recorder
        left_j, left = account.balance().left_j, self._budget.experiences_left()
        trained, each = self._state.model.trained, self._state.per_experience
        samples = probe.affordable(left_j / left) if trained else 0
        current_alone = each is not None and trained
        if current_alone:
            samples = max(samples, FEWEST)
        alone = size(context.experience.val) if current_alone else 0
        reserved_j = probe.upper_bound_j(samples + alone)
        if not samples or reserved_j > left_j:
            return None, *self._decide(context, account, None, left), Spent()
        purpose = f"probe of {context.experience.id}"
        reservation = account.reserve(reserved_j, purpose)
        with (
            paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment,
            recorder.phase("probe"),
        ):
            found = probe.run(
                self._state.model.module,
                context.experience,
                context.data.new,
                samples,
                current_alone=current_alone,
            )
            probe_j = recorder.used(recorder.depth - 1).total_j or 0.0
            keep_j = probe.expected_j(samples) * (left - 1)
            decided = self._decide(context, account, found, left, keep_j=keep_j)
        probe.learn_probe(found.samples + alone, probe_j)
        if each is not None and found.metric_current is not None:
            each.add_before(len(self._state.data.known), found.metric_current)
        spent = Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)
        return found, *decided, spent

    def _decide(
        self,
        context: UpdateContext,
        account: BudgetAccount,
        probe: ProbeResult | None,
        left: int,
        *,
        keep_j: float = 0.0,
    ) -> tuple[State, Decision]:
        state = self._state.build_state(probe, context.data, position=context.position, left=left)
        candidates = self._trainer.plan.candidates(
            **context.data.counts,
            has_model=self._state.model.trained,
            keeps_data=self._state.data.buffer is not None,
        )
        state, decision = self._core.decide(
            state, candidates, account, keep_j=keep_j, others=self._budget.prospects(left)
        )
        calibrated = self._state.controller.cost.calibrated
        if not calibrated and decision.cost_j.upper < FIRST_AT_LEAST_J:
            decision = _budget_exhausted(account)
        return state, decision

    def _validate(self, model: LightningModule, held_out: Dataset[Any]) -> float:
        recorder = self._run.recorder
        before_j = recorder.read().total_j or 0.0
        after = self._evaluator.metric(model, held_out)
        used_j = (recorder.read().total_j or 0.0) - before_j
        self._state.probe.learn_validation(size(held_out), used_j)
        return after

    def _compare(
        self, asked: AskedUpdate, model: LightningModule, payment: Payment
    ) -> Comparison | None:
        """Compare a successor with the current model, on more samples if it seems to be worse.

        On the few samples of a probe it may seem so by chance, and the update would be lost.
        """
        if asked.probe is None:
            return None
        probe, history, evaluator = self._state.probe, self._state.history, self._evaluator
        current = self._state.model.module
        compared = compare_on_probe(
            asked.probe, current, model, evaluator=evaluator, history=history
        )
        left_j = payment.reserved_j - (payment.used.total_j or 0.0)
        if not compared.worse or left_j < CONFIRMING * probe.validation_j:
            return compared
        more = [probe.validation_data(asked.context.experience, left_j)]
        before, after = (combine(evaluator.measure(each, more)) for each in (current, model))
        return history.compare(before, after)

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

    def store(self, asked: AskedUpdate, *, trained: bool) -> None:
        """Make an experience a part of the past."""
        state, experience = self._state, asked.context.experience
        if state.per_experience is not None and not trained:
            state.per_experience.repeat(len(state.data.known))
        state.held_out.add(experience)
        state.probe.add_experience(experience)
        state.data.store(experience, trained=trained)

    def result(
        self,
        asked: AskedUpdate,
        update: Spent,
        metric_before: float | None,
        metric_after: float | None,
        *,
        steps: int,
        kept: bool,
    ) -> UpdateResult:
        """Return the result of an update, with the balance after it."""
        total = _sum(asked.spent, update)
        return UpdateResult(
            experience_id=asked.context.experience.id,
            position=asked.context.position,
            decision=asked.pending.decision,
            energy_j=total.energy_j,
            update_j=update.energy_j,
            metric_before=metric_before,
            metric_after=finite(metric_after),
            steps=steps,
            kept=kept,
            left_j=left_of(asked.pending.account),
            overrun_j=total.overrun_j,
        )


def left_of(account: BudgetAccount) -> float:
    """Return the joules left of an account's budget; 0 if the ledger cannot be read."""
    try:
        return account.balance().left_j
    except LedgerError:  # an unknown balance cannot be reserved from
        return 0.0


def outcome_of(result: UpdateResult) -> UpdateOutcome:
    """Return the outcome of a result, as the ledger records it."""
    return UpdateOutcome(
        steps=result.steps,
        metric_before=result.metric_before,
        metric_after=result.metric_after,
        kept=result.kept,
        energy_j=result.energy_j,
    )


def _budget_exhausted(account: BudgetAccount) -> Decision:
    left_j = account.balance().left_j
    return broke(
        f"{format_energy(left_j)} are left, too little to measure the cost of training: nothing "
        "starts"
    )


def _sum(first: Spent, second: Spent) -> Spent:
    return Spent(
        energy_j=first.energy_j + second.energy_j, overrun_j=first.overrun_j + second.overrun_j
    )
