"""What a stream learns with: its model, its memory, and what it knows of costs and gains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pytorch_lightning import LightningModule

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.control import (
    BudgetController,
    Candidate,
    Decision,
    Policy,
    State,
    broke,
)
from greentrain.errors import BudgetExceeded
from greentrain.ledger import LedgerAccount
from greentrain.memory import Buffer, size
from greentrain.streams import Experience
from greentrain.units import format_energy
from greentrain.updating import calibration
from greentrain.updating.funds import Funds
from greentrain.updating.health import StopOnNan, healthy
from greentrain.updating.held_out import HeldOut, Objective
from greentrain.updating.material import Batch, Material
from greentrain.updating.payments import paying
from greentrain.updating.probe import Look, Probe
from greentrain.updating.progress import Progress
from greentrain.updating.result import UpdateResult
from greentrain.updating.separately import Separately
from greentrain.updating.turn import Turn
from greentrain.updating.updater import Updater


class _Part(Protocol):
    """What is saved with a stream."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class Learner:
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

    Attributes:
        updater: As given.
        controller: Decides, and knows what updates cost and bring.
        material: The data: new, stored and pending.
        separately: The metric on each experience by itself; ``None`` where nobody asked.
    """

    def __init__(
        self,
        updater: Updater,
        *,
        memory: Buffer | None,
        objective: Objective,
        more_is_better: bool,
        policy: Policy | None,
        separately: bool,
        grid: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.updater = updater
        self.material = Material(memory)
        self._held_out = HeldOut(objective, seed=seed)
        self._probe = Probe(updater, self._held_out, seed=seed)
        self._progress = Progress(more_is_better=more_is_better)
        self.separately = Separately(more_is_better=more_is_better) if separately else None
        self.controller = BudgetController(policy=policy)
        self._grid = grid

    def take(self, turn: Turn, funds: Funds) -> UpdateResult:
        """Take one experience's turn: look, decide, train; then it is part of the past."""
        result = self._decide(turn, funds)
        if self.separately is not None and not (result.steps and result.kept):
            self.separately.stayed(len(self.material.known))
        self._held_out.take(turn.experience)
        self.material.store(turn.experience, trained=result.steps > 0 and result.kept)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, as plain values and tensors."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ConfigurationError: If it is of another model.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, _Part]:
        return {
            "updater": self.updater,
            "material": self.material,
            "held_out": self._held_out,
            "probe": self._probe,
            "progress": self._progress,
            "controller": self.controller,
            **({} if self.separately is None else {"separately": self.separately}),
        }

    def _decide(self, turn: Turn, funds: Funds) -> UpdateResult:
        try:
            turn.look = self._look(turn)
        except BudgetExceeded:  # another run was faster
            turn.look = None
        if turn.look is None:
            return turn.skipped(_broke(turn.account))
        if not funds.sized:
            memory, n_new = self.material.memory, turn.batch.n_new
            kept = n_new if memory is None else memory.max_size
            funds.size(self.controller.cost, self.updater.modes, n_new, kept)
            turn.account = funds.account(turn.session.run)
        self.controller.account = turn.account
        state, decision = self.controller.decide(
            self._state(turn.look, turn.batch, funds),
            self.updater.candidates(turn.batch, keeps_data=self.material.memory is not None),
            keep_j=turn.look.again_j * (funds.expected() - 1),
        )
        try:
            purpose = f"{decision.action} of {turn.experience.id}"
            turn.reservation = self.controller.reserve(decision, purpose)
        except BudgetExceeded as error:  # another run was faster
            decision = broke(str(error))
        if turn.reservation is None:
            self.controller.learn(
                decision, state, steps=0, actual_j=0.0, metric_after=state.metric_before
            )
            return turn.skipped(decision, state)
        turn.decided(decision, state)
        return self._train(turn, turn.look, state, decision, turn.reservation)

    def _look(self, turn: Turn) -> Look | None:
        recorder, account = turn.session.recorder, turn.account
        new = turn.batch.new if self.updater.trained else None
        asked = self.separately is not None and self.updater.trained
        look = self._probe.look(turn.experience, new, recorder, account, separately=asked)
        if self.separately is not None and look is not None and look.metric_current is not None:
            self.separately.arrived(len(self.material.known), look.metric_current)
        if look is None or self.controller.cost.calibrated:
            return look
        reserved_j = calibration.affordable_j(account, look.again_j)
        if reserved_j is None:
            return None
        payment = calibration.calibrate(
            self.updater,
            turn.batch,
            self.controller.cost,
            recorder,
            account,
            reserved_j=reserved_j,
            look_j=look.again_j,
        )
        return look.plus(payment)

    def _train(
        self,
        turn: Turn,
        look: Look,
        state: State,
        decision: Decision,
        reservation: str,
    ) -> UpdateResult:
        recorder, reserved_j = turn.session.recorder, decision.cost_j.upper
        # About half of what a fit draws besides its steps comes after them.
        closing_j = 0.5 * self.controller.cost.predict(decision.action.mode, 0).mean + look.again_j
        if self.separately is not None:  # a second pass over what is held out
            closing_j += look.again_j
        guard = BudgetGuard(reserved_j, meter=recorder, anneal=True, keep_j=closing_j)
        logger = turn.session.begin_update(turn.experience)
        with (
            paying(
                turn.account, recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            recorder.phase("update"),
        ):
            health = StopOnNan()
            model = self.updater.train(
                Candidate(action=decision.action, steps=decision.steps),
                turn.batch,
                position=turn.position,
                callbacks=[
                    EnergyMonitor(recorder, ledger=False, summary=False, **self._grid),
                    guard,
                    health,
                ],
                logger=logger,
            )
            with recorder.phase("validation"):
                after = self.updater.measured(self._held_out.judged_on(turn.experience), model)
                kept = (
                    not health.tripped
                    and healthy(model)
                    and math.isfinite(after.value)
                    and not (self.updater.trained and self._progress.worse(look.measured, after))
                )
                if kept and self.separately is not None:
                    metrics = self._each(turn.experience, model)
                    self.separately.trained(len(self.material.known), metrics)
        self.controller.learn(
            decision,
            state,
            steps=guard.steps,
            actual_j=payment.actual_j,
            metric_after=self._progress.oriented(after.value),
            kept=kept,
        )
        if kept:
            self.updater.keep(model, decision.action)
            self._progress.take(after.value)
        return turn.trained(
            decision, payment, metric_after=after.value, steps=guard.steps, kept=kept
        )

    def _each(self, experience: Experience, model: LightningModule) -> Iterator[float | None]:
        """Yield the metric on each past experience, then on the one at hand."""
        held_out = [self._held_out.of(name) for name in self.material.known]
        for dataset in [*held_out, experience.val]:
            yield self.updater.measure(dataset, model) if size(dataset) else None

    def _state(self, look: Look, batch: Batch, funds: Funds) -> State:
        progress = self._progress
        return State(
            position=funds.position,
            horizon=funds.position + funds.expected(),
            has_model=self.updater.trained,
            metric_before=progress.oriented(look.metric),
            metric_new=progress.oriented(look.metric_new),
            metric_last=progress.last,
            metric_best=progress.best,
            metric_ceiling=progress.ceiling(look.metric),
            n_new=batch.n_new,
            n_stored=batch.n_stored,
            warm_starts=self.updater.warm_starts,
        )


def _broke(account: LedgerAccount) -> Decision:
    left_j = account.balance().left_j
    return broke(
        f"{format_energy(left_j)} are left, too little even to look at the data: nothing starts"
    )
