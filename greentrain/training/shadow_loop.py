"""Commit the outcome of a decision in shadow mode, reported by the user's own job."""

from __future__ import annotations

import dataclasses
from typing import Any

from pytorch_lightning import LightningModule

from greentrain.decisions.core import DecisionCore, finite
from greentrain.decisions.history import learn_step_cost
from greentrain.energy import WindowRecorder
from greentrain.errors import BudgetExceeded
from greentrain.evaluation.comparison import Comparison
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.probe import PROBE_SHARE
from greentrain.memory import size
from greentrain.payments import MIN_RESERVATION_J, paying
from greentrain.training.fit import TrainedModel
from greentrain.training.result import ReportedTraining, UpdateResult, outcome_of
from greentrain.training.shadow import evaluated_after
from greentrain.training.stream_state import StreamState
from greentrain.training.update_context import AskedUpdate, Spent
from greentrain.training.update_loop import UpdateLoop


class ShadowLoop:
    """Replace training and judgement of an update by the report of the user's own job.

    Args:
        loop: The stages of an update.
        state: The stream's state.
        evaluator: Measures the reported model.
        core: Decides, records and learns.
        recorder: Records the windows.
    """

    def __init__(
        self,
        loop: UpdateLoop,
        state: StreamState,
        evaluator: Evaluator,
        core: DecisionCore,
        recorder: WindowRecorder,
    ) -> None:
        self._loop = loop
        self._state = state
        self._evaluator = evaluator
        self._core = core
        self._recorder = recorder

    def result(self, asked: AskedUpdate) -> UpdateResult:
        """Return the result of a decision in shadow mode, before its outcome is reported."""
        before = finite(asked.pending.metric_before)
        result = self._loop.result(asked, Spent(), before, before, steps=0, kept=True)
        return dataclasses.replace(result, shadow=True)

    def tell(
        self,
        asked: AskedUpdate,
        model: LightningModule | None,
        reported: ReportedTraining | None,
    ) -> tuple[UpdateResult, dict[str, Any]]:
        """Commit the outcome of the user's own job, after a decision in shadow mode.

        Args:
            asked: The decision.
            model: The model that the job trained, of which only the weights are used; ``None`` if
                it trained nothing.
            reported: The report of its training; ``None`` if it trained nothing.

        Returns:
            The result, and the ledger's row of the outcome.
        """
        state, pending = self._state, asked.pending
        before = finite(pending.metric_before)
        metric, compared, spent = before, None, Spent()
        if model is not None and reported is not None:
            first = not state.model.trained
            state.model.module.load_state_dict(model.state_dict())
            state.model.keep(TrainedModel(module=state.model.module), reported.action)
            metric, compared, spent = self._evaluate_reported(asked, first=first)
            learn_step_cost(state.controller, reported.steps, reported.energy_j)
        result = self._loop.result(
            asked,
            Spent(),
            before,
            metric,
            steps=0 if reported is None else reported.steps,
            kept=True,
        )
        result = dataclasses.replace(
            result, energy_j=result.energy_j + spent.energy_j, shadow=True, reported=reported
        )
        energy_j = 0.0 if reported is None else reported.energy_j
        outcome = dataclasses.replace(outcome_of(result), energy_j=energy_j)
        row = self._core.tell(
            pending,
            outcome,
            action=result.done,
            trained_metric=metric if reported is not None else None,
            gain=None if compared is None else compared.gain,
            gain_sd=0.0 if compared is None else compared.sd,
        )
        if reported is not None and metric is not None:
            state.history.add(metric)
        self._loop.store(asked, trained=reported is not None)
        return result, row

    def _evaluate_reported(
        self, asked: AskedUpdate, *, first: bool
    ) -> tuple[float | None, Comparison | None, Spent]:
        """Evaluate a reported model on the probe's samples, if the budget affords it."""
        parts = evaluated_after(asked.probe, asked.context.held_out, first=first)
        if parts is None:
            return None, None, Spent()
        account, probe, recorder = asked.pending.account, self._state.probe, self._recorder
        samples = sum(size(part) for part in parts)
        share_j = PROBE_SHARE * account.balance().left_j
        reserved_j = max(probe.upper_bound_j(samples) or share_j, MIN_RESERVATION_J)
        try:
            purpose = f"evaluation after {asked.context.experience.id}"
            reservation = account.reserve(reserved_j, purpose)
        except BudgetExceeded:
            return None, None, Spent()
        with (
            paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment,
            recorder.phase("probe"),
        ):
            after = self._evaluator.measure_as_one(self._state.model.module, parts)
            if first:
                probe.learn_probe(samples, recorder.used(recorder.depth - 1).total_j or 0.0)
        spent = Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)
        compared = None
        if asked.probe is not None:
            compared = self._state.history.compare(asked.probe.measured, after)
        return finite(after.value), compared, spent
