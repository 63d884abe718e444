"""Update a model on one experience: observe, decide, reserve, train, judge, commit.

Each stage takes frozen values and returns frozen values. :meth:`UpdateLoop.ask` observes, decides
and reserves. :meth:`TrainStage.train` trains and judges within the reservation, which is settled at
its end. :meth:`UpdateLoop.tell` learns and commits.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch.utils.data import Dataset, Subset

from greentrain.control import (
    Action,
    Candidate,
    Decision,
    Reason,
    State,
    UpdateMode,
    broke,
    set_aside,
)
from greentrain.decisions.core import BudgetAccount, DecisionCore, finite
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.errors import BudgetExceeded
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.probe import FEWEST, Look, ProbeResult
from greentrain.memory import size
from greentrain.payments import paying
from greentrain.training.cost_calibration import calibrate, most_steps_of, share_of_full
from greentrain.training.fit import ModelTrainer
from greentrain.training.result import UpdateResult, outcome_of
from greentrain.training.run_context import RunContext
from greentrain.training.shadow import FIRST_EVALUATED, shadow_decision
from greentrain.training.stream_state import StreamState
from greentrain.training.update_context import (
    AskedUpdate,
    JudgedUpdate,
    Spent,
    UpdateContext,
    budget_exhausted,
    left_of,
    without_labels,
)
from greentrain.training.waiting import UpdateWaits

FIRST_AT_LEAST_J = 1.0
"""Smallest balance for a first training, whose first step must not exceed it: a small computer's
energy in a tenth of a second."""


class UpdateLoop:
    """Run the stages of an update.

    Args:
        state: The stream's state: model, data, and what was learned.
        trainer: Trains successors.
        evaluator: Measures models.
        budget: The budget that pays.
        core: Decides, records and learns.
        run: The run that measures and records.
        waits: Lets updates wait for cleaner electricity; ``None`` if they start at once.
    """

    def __init__(
        self,
        state: StreamState,
        trainer: ModelTrainer,
        evaluator: Evaluator,
        budget: StreamBudget,
        core: DecisionCore,
        run: RunContext,
        waits: UpdateWaits | None = None,
    ) -> None:
        self._waits = waits
        self._state = state
        self._trainer = trainer
        self._evaluator = evaluator
        self._budget = budget
        self._core = core
        self._run = run

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
            if self._calibrates:
                spent = self._calibrate(context, account)
                account = self._budget.account(self._run.run)
            spent = spent + self._state.methods.attempt(
                self._trainer, context.data, self._state, self._run.recorder, account
            )
            if self._calibrates:
                decision = budget_exhausted(account)
            else:
                probe, state, decision, paid = self._observe(context, account, shadow=shadow)
                spent = spent + paid
                if shadow and decision.reason is not Reason.BUDGET_EXHAUSTED:
                    calibrated = self._state.controller.cost.calibrated
                    decision = shadow_decision(decision, state, calibrated=calibrated)
        except BudgetExceeded as error:  # another run has used the budget
            decision = broke(str(error))
        waited = None
        if self._waits is not None and decision.action.mode is not UpdateMode.SKIP:
            grams = self._budget.budget.unit == "g"
            waited = self._waits.wait(context.experience.id, decision, account, grams=grams)
            decision = dataclasses.replace(decision, waiting=waited.figures)
            spent = spent + waited.spent
        pending = self._core.ask(
            context.experience.id,
            position=context.position,
            state=state,
            decision=decision,
            account=account,
            metric_before=None if probe is None else probe.metric,
            reserve=not shadow,
        )
        return AskedUpdate(
            context=context, pending=pending, probe=probe, spent=spent, waited=waited
        )

    def tell(
        self, asked: AskedUpdate, judged: JudgedUpdate | None
    ) -> tuple[UpdateResult, dict[str, Any]]:
        """Commit the outcome of an update: learn, keep the model, and store the experience.

        Both metrics of a training are measured on the same samples. A probe has fewer samples than
        a validation, so its metric differs by chance.

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
            asked = dataclasses.replace(asked, spent=asked.spent + judged.paused)
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
            row.update(judged.flops)
            if self._waits is not None and asked.waited is not None:
                row["shifted_g"] = self._waits.shifted_g(asked.waited, judged.spent.energy_j)
            state.slope = judged.slope
            if judged.kept:
                state.model.keep(judged.model, pending.action)
                state.methods.keep(pending.action)
                state.history.add(judged.metric_after)
        self.store(asked, trained=result.steps > 0 and result.kept)
        return result, row

    def set_aside(
        self, context: UpdateContext, account: BudgetAccount, sentence: str, *, used_j: float
    ) -> tuple[UpdateResult, dict[str, Any]]:
        """Commit the end of an experience whose update failed again: its data are not kept.

        Args:
            context: The experience.
            account: The account that paid.
            sentence: The reason in one sentence.
            used_j: Joules of the last try.

        Returns:
            The result, and the ledger's row of the outcome.

        Raises:
            LedgerError: If the decision cannot be recorded.
        """
        state, experience = self._state, context.experience
        pending = self._core.ask(
            experience.id,
            position=context.position,
            state=None,
            decision=set_aside(sentence),
            account=account,
        )
        asked = AskedUpdate(context=context, pending=pending, spent=Spent(energy_j=used_j))
        result = self.result(asked, Spent(), None, None, steps=0, kept=True)
        row = self._core.tell(pending, outcome_of(result), update_j=0.0)
        if state.per_experience is not None:
            state.per_experience.repeat(len(state.data.known))
        state.data.set_aside(experience)
        return result, row

    @property
    def _calibrates(self) -> bool:
        """True if the cost of a step has to be measured: for a share, and for a given model."""
        unknown = not self._state.controller.cost.calibrated
        return not self._budget.sized or (self._state.model.given and unknown)

    def _calibrate(self, context: UpdateContext, account: BudgetAccount) -> Spent:
        """Measure the cost of a step, and convert a budget given as a share to joules."""
        state = self._state
        if state.model.given and account.balance().left_j < FIRST_AT_LEAST_J:
            return Spent()
        usual = self._trainer.plan.steps(Action(mode=UpdateMode.WARM_START), **context.data.counts)
        payment = calibrate(
            self._trainer,
            context.data,
            state.controller.cost,
            self._run.recorder,
            account,
            validate=lambda: self._validate(context.held_out),
            most_steps=most_steps_of(usual, given=state.model.given),
        )
        if payment is None:
            return Spent()
        spent = Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)
        if self._budget.sized:
            return spent
        n_new, buffer = context.data.n_new, state.data.buffer
        kept = n_new if buffer is None else buffer.max_size
        plan, cost = self._trainer.plan, state.controller.cost
        self._budget.open_sized(share_of_full(self._budget.budget, cost, plan, n_new, kept))
        return spent

    def _validate(self, held_out: Dataset[Any]) -> None:
        """Validate the current model; of a given one, learn the metric and its cost."""
        state, recorder = self._state, self._run.recorder
        if not state.model.given:
            self._evaluator.metric(state.model.module, held_out)
            return
        some = Subset(held_out, range(0, size(held_out), -(-size(held_out) // FIRST_EVALUATED)))
        before_j = recorder.read().total_j or 0.0
        metric = finite(self._evaluator.metric(state.model.module, some))
        state.probe.learn_validation(size(some), (recorder.read().total_j or 0.0) - before_j)
        if metric is not None and state.history.last is None:
            state.history.add(metric)

    def _observe(
        self, context: UpdateContext, account: BudgetAccount, *, shadow: bool
    ) -> tuple[ProbeResult | None, State, Decision, Spent]:
        """Probe the current model if the budget affords it, and decide."""
        probe, recorder = self._state.probe, self._run.recorder
        left_j, left = account.balance().left_j, self._budget.experiences_left()
        trained, each = self._state.model.trained, self._state.per_experience
        given = self._state.model.given  # nothing replaces it without a comparison
        look = probe.look(context.data.new) if trained else Look()
        probed = trained and (context.labelled or size(context.held_out) > 0)
        samples = self._probed_samples(context, look, account, left) if probed else 0
        current_alone = each is not None and trained and context.labelled
        if current_alone or given or (shadow and trained):  # whose owner reviews the metrics
            samples = max(samples, FEWEST)
        alone = size(context.experience.val) if current_alone else 0
        reserved_j = probe.upper_bound_j(samples + alone)
        if not samples or reserved_j > left_j:
            state, decision = self._decide(context, look, account, None, left)
            if given:
                decision = budget_exhausted(account, "compare two models")
            return None, state, decision, Spent()
        reservation = account.reserve(reserved_j, f"probe of {context.experience.id}")
        with (
            paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment,
            recorder.phase("probe"),
        ):
            found = probe.run(
                *(self._state.model.module, context.experience, context.data.new, samples),
                current_alone=current_alone,
            )
            probe_j = recorder.used(recorder.depth - 1).total_j or 0.0
            keep_j = probe.expected_j(samples) * (left - 1)
            decided = self._decide(context, look, account, found, left, keep_j=keep_j)
        probe.learn_probe(found.samples + alone, probe_j)
        if each is not None and found.metric_current is not None:
            each.add_before(len(self._state.data.known), found.metric_current)
        spent = Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)
        return found, *decided, spent

    def _probed_samples(
        self, context: UpdateContext, look: Look, account: BudgetAccount, left: int
    ) -> int:
        """Return the number of samples to probe: 0 if a probe is not worth its joules."""
        probe = self._state.probe
        samples = probe.affordable(account.balance().left_j / left)
        least = max(samples, FEWEST)
        state = self._state.build_state(
            look, None, context.data, position=context.position, left=left
        )
        worth_j = self._core.worth_of_probe_j(
            state,
            self._candidates(context),
            account,
            keep_j=probe.expected_j(least) * left,
            others=self._budget.prospects(left),
        )
        if worth_j is None:
            return samples
        return least if probe.expected_j(least) <= worth_j else 0

    def _candidates(self, context: UpdateContext) -> list[Candidate]:
        plan, data = self._trainer.plan, context.data
        plain = plan.candidates(**data.counts, **self._state.feasible(data))
        return self._state.methods.offer(plain, data, plan.batch_size)

    def _decide(
        self,
        context: UpdateContext,
        look: Look,
        account: BudgetAccount,
        probe: ProbeResult | None,
        left: int,
        *,
        keep_j: float = 0.0,
    ) -> tuple[State, Decision]:
        state = self._state.build_state(
            look, probe, context.data, position=context.position, left=left
        )
        state, decision = self._core.decide(
            state,
            self._candidates(context),
            account,
            keep_j=keep_j,
            others=self._budget.prospects(left),
        )
        calibrated = self._state.controller.cost.calibrated
        if not calibrated and account.balance().left_j < FIRST_AT_LEAST_J:
            decision = budget_exhausted(account)
        return state, without_labels(context, state, decision)

    def store(self, asked: AskedUpdate, *, trained: bool) -> None:
        """Add an experience to the past data, unless the disk takes no more."""
        state, experience = self._state, asked.context.experience
        if not asked.context.labelled:  # it may come again, with labels
            return
        n_known = len(state.data.known)
        copies = not trained and state.probe.look(experience.train).copies == 1.0
        if not state.data.store(experience, trained=trained, copies=copies):
            if state.per_experience is not None:
                state.per_experience.withdraw(n_known)
            return
        if state.per_experience is not None and not trained:
            state.per_experience.repeat(n_known)
        state.held_out.add(experience)
        new = asked.context.data.new if trained else None
        state.probe.add_experience(experience, trained=new)

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
        total = asked.spent + update
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
            labels=asked.context.data.labels if steps else 0,
        )
