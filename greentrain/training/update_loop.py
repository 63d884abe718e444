"""What a stream learns with: its model, its memory, and what it knows of costs and gains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from pytorch_lightning import LightningModule
from torch.utils.data import Dataset, Subset

from greentrain.budget import Account
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.control import BudgetController, Candidate, Decision, Policy, State, broke
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import WindowRecorder
from greentrain.errors import BudgetExceeded
from greentrain.evaluation.comparison import Comparison, on_look, on_more
from greentrain.evaluation.held_out import EvalOn, HeldOut
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.evaluation.per_experience import PerExperienceMetrics
from greentrain.evaluation.probe import FEWEST, Probe
from greentrain.evaluation.signals.training_curve import LossCurve
from greentrain.memory import Buffer, size
from greentrain.payments import Payment, paying
from greentrain.training import cost_calibration as calibration
from greentrain.training import shadow as advice
from greentrain.training.baseline_runs import BaselineRuns
from greentrain.training.build_state import state_of
from greentrain.training.closing_energy import ClosingEnergy
from greentrain.training.data import StreamData
from greentrain.training.fit_callbacks import StopOnNan, healthy
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.training.step_energy import StepEnergy
from greentrain.training.update_context import UpdateContext
from greentrain.training.updater import Updater
from greentrain.units import format_energy

FIRST_CLOSING = 0.1
"""Share of the first training's cap that is kept for its end and its validation."""

FIRST_AT_LEAST_J = 1.0
"""Joules below which no first training is tried: a tenth of a second of a small computer.

What its first step draws nobody can foresee, and a budget should not be overdrawn by it.
"""
CONFIRMING = 3.0
"""Validations that have to be left of a reservation for two of them to be made."""


class _Part(Protocol):
    """What is saved with a stream."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class UpdateLoop:
    """Decide about each experience, train on it, and know what it came to.

    Args:
        updater: The model, and how it is trained.
        memory: What may be kept of past data; ``None`` for nothing.
        objective: What a new model is judged on.
        more_is_better: Whether a larger metric is a better one.
        policy: Decides; the controller's own if ``None``.
        separately: Whether to read the metric on each experience by itself, too.
        grid: How joules become grams, as :class:`EnergyMonitor` takes it.
        seed: Seed of what is kept and looked at.
        baseline_every: Experiences from one control to the next; ``None`` for none.

    Attributes:
        updater: As given.
        controller: Decides, and knows what updates cost and bring.
        material: The data: new, stored and pending.
        separately: The metric on each experience by itself; ``None`` where nobody asked.
        controls: Full retrainings beside the stream.
    """

    def __init__(
        self,
        updater: Updater,
        *,
        memory: Buffer | None,
        objective: EvalOn,
        more_is_better: bool,
        policy: Policy | None,
        separately: bool,
        grid: Mapping[str, Any],
        seed: int,
        baseline_every: int | None = None,
    ) -> None:
        self.updater = updater
        self.material = StreamData(memory)
        self._held_out = HeldOut(objective, seed=seed)
        self._probe = Probe(updater, self._held_out, seed=seed)
        self._progress = MetricHistory(more_is_better=more_is_better)
        self.separately = (
            PerExperienceMetrics(more_is_better=more_is_better) if separately else None
        )
        self.controller = BudgetController(policy=policy)
        self._closing = ClosingEnergy()
        self._grid = grid
        self._slope: float | None = None
        self.controls = BaselineRuns(
            baseline_every,
            updater=updater,
            controller=self.controller,
            material=self.material,
            probe=self._probe,
            progress=self._progress,
            on_kept=self._measure_each,
        )

    def take(self, turn: UpdateContext, funds: StreamBudget) -> UpdateResult:
        """Take one experience's turn: look, decide, train; then it is part of the past.

        Of advice, the turn ends with :meth:`told`.
        """
        turn.judged_on = self._held_out.judged_on(turn.experience)
        result = self._decide(turn, funds)
        if not turn.advises:
            self._end(turn, result)
        return result

    def told(
        self, turn: UpdateContext, model: LightningModule | None, told: ReportedTraining | None
    ) -> UpdateResult:
        """Take what another job made of an experience on which advice was given, if it did."""
        metric = advice.take_over(
            turn,
            model,
            told,
            updater=self.updater,
            controller=self.controller,
            probe=self._probe,
            progress=self._progress,
        )
        result = turn.took_over(told, metric_after=metric)
        self._end(turn, result)
        return result

    def _end(self, turn: UpdateContext, result: UpdateResult) -> None:
        if self.separately is not None and not (result.steps and result.kept):
            self.separately.stayed(len(self.material.known))
        self._held_out.take(turn.experience)
        self._probe.take(turn.experience)
        self.material.store(turn.experience, trained=result.steps > 0 and result.kept)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, as plain values and tensors."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, "slope": self._slope}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ConfigurationError: If it is of another model.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._slope = state["slope"]

    def _parts(self) -> dict[str, _Part]:
        return {
            "updater": self.updater,
            "material": self.material,
            "held_out": self._held_out,
            "probe": self._probe,
            "progress": self._progress,
            "closing": self._closing,
            "controller": self.controller,
            **({} if self.separately is None else {"separately": self.separately}),
        }

    def _decide(self, turn: UpdateContext, funds: StreamBudget) -> UpdateResult:
        if not funds.sized and not self._size(turn, funds):
            return turn.skipped(_broke(turn.account))
        try:
            state, decision = self._look(turn, funds)
            if not self.controller.cost.calibrated and decision.cost_j.upper < FIRST_AT_LEAST_J:
                return turn.skipped(_broke(turn.account), state)
            if turn.advises:
                calibrated = self.controller.cost.calibrated
                decision = advice.as_advice(decision, state, calibrated=calibrated)
                return turn.advised(decision, state)
            purpose = f"{decision.action} of {turn.experience.id}"
            turn.reservation = self.controller.reserve(decision, purpose)
        except BudgetExceeded as error:  # another run was faster
            return turn.skipped(broke(str(error)))
        if turn.reservation is None:
            self.controller.learn(
                decision, state, steps=0, actual_j=0.0, metric_after=state.metric_before
            )
            return turn.skipped(decision, state)
        turn.decided(decision, state)
        return self._train(turn, state, decision, turn.reservation)

    def _size(self, turn: UpdateContext, funds: StreamBudget) -> bool:
        """Measure what steps cost, and turn a budget given as a share into joules."""
        reserved_j = calibration.affordable_j(turn.account)
        if reserved_j is None:
            return False
        payment = calibration.calibrate(
            self.updater,
            turn.batch,
            self._held_out.judged_on(turn.experience),
            self.controller.cost,
            turn.session.recorder,
            turn.account,
            reserved_j=reserved_j,
        )
        turn.paid(payment)
        memory, n_new = self.material.memory, turn.batch.n_new
        kept = n_new if memory is None else memory.max_size
        funds.size(self.controller.cost, self.updater.modes, n_new, kept)
        turn.account = funds.account(turn.session.run)
        return True

    def _look(self, turn: UpdateContext, funds: StreamBudget) -> tuple[State, Decision]:
        """Look at the model as far as that can be paid, and decide."""
        left_j, remaining = turn.account.balance().left_j, funds.expected()
        asked = self.separately is not None and self.updater.trained
        samples = self._probe.affordable(left_j / remaining) if self.updater.trained else 0
        if asked:
            samples = max(samples, FEWEST)
        alone = size(turn.experience.val) if asked else 0
        reserved_j = self._probe.bound_j(samples + alone)
        if not samples or reserved_j > left_j:
            return self._choose(turn, funds, keep_j=0.0)
        recorder = turn.session.recorder
        reservation = turn.account.reserve(reserved_j, f"look at {turn.experience.id}")
        with (
            paying(
                turn.account, recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            recorder.phase("probe"),
        ):
            turn.look = self._probe.look(turn.experience, turn.batch.new, samples, separately=asked)
            looked_j = recorder.drawn(recorder.depth - 1).total_j or 0.0
            keep_j = self._probe.look_j(samples) * (remaining - 1)
            chosen = self._choose(turn, funds, keep_j=keep_j)
        turn.paid(payment)
        self._probe.drew(turn.look.samples + alone, looked_j)
        if self.separately is not None and turn.look.metric_current is not None:
            self.separately.arrived(len(self.material.known), turn.look.metric_current)
        return chosen

    def _choose(
        self, turn: UpdateContext, funds: StreamBudget, *, keep_j: float
    ) -> tuple[State, Decision]:
        self.controller.account = turn.account
        state = state_of(
            turn.look,
            turn.batch,
            funds,
            updater=self.updater,
            progress=self._progress,
            slope=self._slope,
        )
        return self.controller.decide(
            state,
            self.updater.candidates(turn.batch, keeps_data=self.material.memory is not None),
            keep_j=keep_j,
            others=funds.prospects(state.remaining),
        )

    def _train(
        self, turn: UpdateContext, state: State, decision: Decision, reservation: str
    ) -> UpdateResult:
        recorder, reserved_j = turn.session.recorder, decision.cost_j.upper
        anneal = not self.updater.modes.average  # the mean of the weights does what annealing would
        judged_on = self._probe.judged(turn.experience, reserved_j)
        keep_j = self._closing_j(decision, size(judged_on))
        guard = BudgetGuard(reserved_j, meter=recorder, anneal=anneal, keep_j=keep_j)
        gauge = StepEnergy(recorder, planned=decision.steps, beside_j=self._beside_j(decision))
        curve, health = LossCurve(), StopOnNan()
        monitor = EnergyMonitor(recorder, ledger=False, summary=False, **self._grid)
        logger = turn.session.begin_update(turn.experience)
        with (
            paying(
                turn.account, recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            recorder.phase("update"),
        ):
            if not self.updater.trained:  # a metric that is not logged is found before it costs
                self.updater.measured([Subset(judged_on, [0])])
            model = self.updater.train(
                Candidate(action=decision.action, steps=decision.steps),
                turn.batch,
                position=turn.position,
                callbacks=[monitor, guard, gauge, curve, health],
                logger=logger,
            )
            with recorder.phase("validation"):
                after = self._validate(model, judged_on, recorder)
                compared = self._compare(turn, model, payment)
                sound = not health.tripped and healthy(model) and math.isfinite(after)
                kept = sound and (compared is None or not compared.worse)
                if kept:
                    self._measure_each(model, turn.experience.val)
            if gauge.ended_j is not None:
                closing_j = (recorder.read().total_j or 0.0) - gauge.ended_j
                self._closing.drew(closing_j, validation_j=self._probe.validation_j)
        self._learn_cost(gauge, guard.steps, payment.actual_j)
        gain = None if compared is None else compared.gain
        self.controller.learn(
            decision,
            state,
            steps=guard.steps,
            actual_j=payment.actual_j,
            metric_after=self._progress.oriented(after),
            gain=gain,
            gain_sd=0.0 if compared is None else compared.sd,
            kept=kept,
        )
        self._slope = curve.slope
        if kept:
            self.updater.keep(model, decision.action)
            self._progress.take(after)
        return turn.trained(
            decision,
            payment,
            metric_before=self._progress.without(after, gain),
            metric_after=after,
            steps=guard.steps,
            kept=kept,
            projected_j=gauge.projected_j,
        )

    def _beside_j(self, decision: Decision) -> float | None:
        """Return joules that an update is expected to draw besides its steps."""
        cost = self.controller.cost
        return cost.predict(decision.action.mode, 0).mean if cost.calibrated else None

    def _closing_j(self, decision: Decision, samples: int) -> float:
        """Return joules to keep for what comes after the steps, a validation among it."""
        cost = self.controller.cost
        if not cost.calibrated:
            return FIRST_CLOSING * decision.cost_j.upper
        validation_j = self._probe.expected_j(samples)
        # About half of what a fit draws besides its steps and its validation comes after them.
        beside_j = 0.5 * max(0.0, cost.predict(decision.action.mode, 0).mean - validation_j)
        if self.separately is not None:
            beside_j += validation_j
        return self._closing.bound_j(validation_j, unknown_j=beside_j)

    def _validate(
        self, model: LightningModule, judged_on: Dataset[Any], recorder: WindowRecorder
    ) -> float:
        before_j = recorder.read().total_j or 0.0
        after = self.updater.measure(judged_on, model)
        self._probe.validated(size(judged_on), (recorder.read().total_j or 0.0) - before_j)
        return after

    def _compare(
        self, turn: UpdateContext, model: LightningModule, payment: Payment
    ) -> Comparison | None:
        """Compare a successor on what was looked at, and once more on more where it seems worse."""
        both: dict[str, Any] = {"updater": self.updater, "progress": self._progress}
        found = on_look(turn.look, model, **both)
        if found is None or not found.worse:
            return found
        room_j = payment.reserved_j - (payment.drawn.total_j or 0.0)
        if room_j < CONFIRMING * self._probe.validation_j:
            return found
        return on_more(self._probe.judged(turn.experience, room_j), model, **both)

    def _learn_cost(self, gauge: StepEnergy, steps: int, actual_j: float) -> None:
        """Take the first update for the calibration that it was."""
        if gauge.step_j is not None and not self.controller.cost.calibrated:
            fixed_j = max(0.0, actual_j - steps * gauge.step_j)
            self.controller.cost.calibrate(fixed_j=fixed_j, step_j=gauge.step_j)

    def _measure_each(self, model: LightningModule, *present: Dataset[Any]) -> None:
        """Read the metric of a model on each experience by itself, where somebody asked.

        Args:
            model: The model.
            present: Held-out data of the experience at hand, while it is no past one yet.
        """
        if self.separately is not None:
            past = [self._held_out.of(name) for name in self.material.known]
            datasets = [*past, *present]
            metrics = [
                self.updater.measure(each, model) if size(each) else None for each in datasets
            ]
            self.separately.trained(len(datasets) - 1, metrics)


def _broke(account: Account) -> Decision:
    left_j = account.balance().left_j
    return broke(
        f"{format_energy(left_j)} are left, too little to find out what training costs: nothing "
        "starts"
    )
