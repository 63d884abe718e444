"""Control training by the user's own code: decide, reserve, measure, settle and learn."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from greentrain.budget import Balance
from greentrain.control import (
    BudgetController,
    Candidate,
    State,
    UpdateMode,
)
from greentrain.decisions.core import DecisionCore, PendingUpdate, UpdateOutcome, finite
from greentrain.decisions.history import (
    PastDecision,
    learn_step_cost,
    read_history,
    relearn,
)
from greentrain.decisions.step_cost import check_steps, first_decision, measure_steps, split
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import WindowRecorder
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, RunLog
from greentrain.naming import check_name
from greentrain.payments import MIN_RESERVATION_J, Payment, settle
from greentrain.texts import get_logger
from greentrain.units import is_whole

_log = get_logger(__name__)

FIRST_SHARE = 0.1
"""Share of the balance that is reserved for an update whose cost cannot be predicted yet."""
SIGNALS = ("metric_past", "loss_new", "loss_past", "unseen", "copies", "shift", "shift_by")
"""Fields of the state that a caller may give."""


class ControllerSession:
    """Decide about each experience of a stream that the user's own code trains on.

    :func:`open_controller` returns one. It is used by one thread.

    Args:
        control: Policy and models, with nothing learned yet.
        ledger: The ledger.
        run: This process's run in it.
        budget: The budget that pays.
        stream: Name of the stream.
        recorder: Measures; ``None`` if no meter can measure the training.
        monitor: Name of the metric.
        more_is_better: Whether a larger metric is a better one.
        first_j: Joules to reserve for an update whose cost cannot be predicted yet; a tenth of the
            balance if ``None``.

    Attributes:
        control: Policy and models, trained on the ledger's history.
        recorder: As given. In an update, give it to a Lightning Trainer's callbacks as the meter:
            ``EnergyMonitor(controller.recorder, ledger=False)`` and
            ``BudgetGuard(Budget(energy_j=update.reserved_j), meter=controller.recorder)``.
    """

    def __init__(
        self,
        control: BudgetController,
        ledger: Ledger,
        run: RunLog,
        budget: StreamBudget,
        *,
        stream: str,
        recorder: WindowRecorder | None,
        monitor: str,
        more_is_better: bool,
        first_j: float | None,
    ) -> None:
        self.control = control
        self.recorder = recorder
        self._ledger = ledger
        self._budget = budget
        self._account = budget.account(run)
        self._more_is_better = more_is_better
        self._first_j = first_j
        self._core = DecisionCore(control, run, metric=monitor, more_is_better=more_is_better)
        self._open: PendingUpdate | None = None
        self._left = False
        history = read_history(
            ledger, stream, self._account.budget_id, more_is_better=more_is_better
        )
        self._status = relearn(control, history)
        self._weights = history[-1].weights_sha256 if history else None
        self._finished = [past.experience_id for past in history]
        budget.restart(past.decided for past in history)

    @property
    def experiences(self) -> tuple[str, ...]:
        """The experiences whose updates are finished, those of earlier processes included."""
        return tuple(dict.fromkeys(self._finished))

    @property
    def calibrated(self) -> bool:
        """True if the cost of a step is known."""
        return self.control.cost.calibrated

    def balance(self) -> Balance:
        """Return the budget's balance."""
        return self._account.balance()

    def calibrate(self, train: Callable[[int], object], *, steps: int = 20) -> None:
        """Measure the cost of a step by short trainings of discarded models.

        ``train(steps)`` is called three times: to warm up, then with ``steps`` and four times as
        many. The budget pays for all of them.

        Args:
            train: Trains a fresh model for the given number of steps.
            steps: Steps of the short training. They should take about a second, as a meter needs
                some time to measure power.

        Raises:
            BudgetExceeded: If the budget cannot pay for it.
            ConfigurationError: If nothing can be measured here, or the meter measured no energy.
        """
        check_steps(steps)
        if self.recorder is None:
            raise ConfigurationError(
                "a calibration is measured, but training elsewhere is not; give step_j instead"
            )
        self._refuse_if_open()
        reserved_j = self._unpredicted_j()
        reservation = self._account.reserve(reserved_j, "calibration")
        payment = Payment(self.recorder, reservation, reserved_j=reserved_j)
        payment.begin("calibration")
        try:
            short_j, long_j = measure_steps(train, steps, payment)
        finally:
            payment.end()
            payment.settle(self._account)
        fixed_j, step_j = split(short_j, long_j, steps)
        self.control.cost.calibrate(fixed_j=fixed_j, step_j=step_j)

    @contextlib.contextmanager
    def update(self, experience_id: str, **known: Any) -> Iterator[PendingUpdate]:
        """Decide about an experience, and measure and settle the block that trains on it.

        The block calls :meth:`PendingUpdate.done` unless the decision is ``SKIP``. If it raises, or
        does not call ``done``, the energy used is settled, and the update counts as not kept.

        Args:
            experience_id: The experience.
            **known: As for :meth:`decide`.

        Yields:
            The update, with the decision.

        Raises:
            ConfigurationError: As for :meth:`decide`.
            LedgerError: As for :meth:`decide`.
        """
        update = self.decide(experience_id, **known)
        failed = True
        try:
            yield update
            failed = False
        finally:
            if update is self._open:
                if not failed and update.outcome is None:
                    _log.warning(
                        "the update of %r ended without done(): it counts as not kept",
                        experience_id,
                    )
                self._close(update, failed=failed)

    def decide(
        self,
        experience_id: str,
        *,
        candidates: Sequence[Candidate],
        n_new: int,
        metric_before: float | None = None,
        metric_new: float | None = None,
        n_stored: int | None = None,
        **signals: float | str | None,
    ) -> PendingUpdate:
        """Decide, reserve, and begin to measure; call :meth:`settle` after every update.

        A ``SKIP`` is finished at once. One process at a time may decide about a stream.

        Args:
            experience_id: The experience. If it is tried again after a failure, its samples count
                once.
            candidates: The feasible updates, without ``SKIP``: see :func:`candidates_of`.
            n_new: Its new samples. Those of skipped experiences are added.
            metric_before: The metric of the model in use on held-out data of all experiences seen,
                this one included; ``None`` before there is a model.
            metric_new: The same on its training data, before training on them; ``None`` if unknown.
            n_stored: Stored samples that an update has trained on; by default all that updates had.
            **signals: Further inputs of policies: ``metric_past``, ``loss_new``, ``loss_past``,
                ``unseen``, ``copies``, ``shift``, ``shift_by``, as in
                :class:`greentrain.control.State`.

        Returns:
            The update, with the decision.

        Raises:
            ConfigurationError: If an argument cannot be used, or the last update is not settled.
            LedgerError: If nothing can be recorded or reserved. Then nothing may start.
        """
        self._refuse_if_open()
        experience_id = check_name(experience_id, "experience_id", "monday")
        n_new = _plain_count(n_new, "n_new")
        n_stored = None if n_stored is None else _plain_count(n_stored, "n_stored")
        position, left = self._budget.position, self._budget.experiences_left()
        state = self._status.state(
            experience_id,
            position=position,
            num_experiences=position + left,
            metric_before=self._core.oriented(metric_before),
            metric_new=self._core.oriented(metric_new),
            n_new=n_new,
            n_stored=n_stored,
            more_is_better=self._more_is_better,
            signals=_signals(signals, oriented=self._core.oriented),
        )
        possible = feasible(candidates, state)
        predicted = self.calibrated
        if predicted:
            state, decision = self._core.decide(
                state, possible, self._account, others=self._budget.prospects(left)
            )
        else:
            state = dataclasses.replace(state, left_j=self.balance().left_j)
            decision = first_decision(possible, state, self._unpredicted_j())
        update = self._core.ask(
            experience_id,
            position=position,
            state=state,
            decision=decision,
            account=self._account,
            metric_before=metric_before,
            predicted=predicted,
        )
        if update.reservation_id is None:
            self._finish(update, UpdateOutcome(steps=0, energy_j=0.0))
            return update
        self._open = update
        if self.recorder is not None:
            update.payment = Payment(
                self.recorder, update.reservation_id, reserved_j=update.reserved_j
            )
            update.payment.begin("update")
        return update

    def settle(self, update: PendingUpdate, **outcome: Any) -> float:
        """Settle an update, record its outcome, and learn from it.

        Args:
            update: The result of :meth:`decide`.
            **outcome: As for :meth:`PendingUpdate.done`.

        Returns:
            Joules used beyond the reservation.

        Raises:
            ConfigurationError: If it was skipped or is already settled, or a value cannot be used.
        """
        if update is not self._open and update.reservation_id is not None:
            raise ConfigurationError(f"the update of {update.experience_id!r} is settled already")
        update.done(**outcome)
        return self._close(update, failed=False)

    def leave(self) -> None:
        """Settle an open update as failed, and refuse further decisions."""
        self._left = True
        if self._open is not None:
            self._close(self._open, failed=True)

    def _close(self, update: PendingUpdate, *, failed: bool) -> float:
        self._open = None
        outcome = update.outcome or UpdateOutcome(steps=0, kept=False)
        used_j = outcome.energy_j
        if update.payment is not None:
            update.payment.end()
            used_j = update.payment.actual_j
        overrun_j = 0.0
        if used_j is None:
            _log.warning(
                "the energy of the update of %r is unknown: its whole reservation stays spent",
                update.experience_id,
            )
        else:
            overrun_j = settle(self._account, str(update.reservation_id), used_j)
        kept = outcome.kept and not failed
        self._finish(update, dataclasses.replace(outcome, kept=kept, energy_j=used_j))
        return overrun_j

    def _finish(self, update: PendingUpdate, outcome: UpdateOutcome) -> None:
        in_use = outcome.metric_after if outcome.kept and outcome.steps else update.metric_before
        outcome = dataclasses.replace(
            outcome, metric_before=update.metric_before, metric_after=in_use
        )
        learn_step_cost(self.control, outcome.steps, outcome.energy_j)
        row = self._core.tell(update, outcome, trained_metric=in_use if outcome.steps else None)
        if outcome.kept and outcome.steps:
            self._weights = outcome.weights_sha256
        self._core.record({**row, "weights_sha256": self._weights})
        if update.state is not None:
            self._status = self._status.after(
                PastDecision(
                    experience_id=update.experience_id,
                    state=update.state,
                    decision=update.decision,
                    steps=outcome.steps,
                    energy_j=outcome.energy_j,
                    metric_after=self._core.oriented(in_use),
                    kept=outcome.kept,
                    decided=self._ledger.now(),
                )
            )
        self._finished.append(update.experience_id)
        self._budget.count_experience()

    def _unpredicted_j(self) -> float:
        return self._first_j or max(FIRST_SHARE * self.balance().left_j, MIN_RESERVATION_J)

    def _refuse_if_open(self) -> None:
        if self._left:
            raise ConfigurationError(
                "the controller is closed, because its block has ended; open it again to go on"
            )
        if self._open is not None:
            raise ConfigurationError(
                f"the update of {self._open.experience_id!r} is not settled yet; settle it first"
            )


def feasible(candidates: Sequence[Candidate], state: State) -> list[Candidate]:
    """Return the feasible updates: without a model, only full retraining.

    Raises:
        ConfigurationError: If there is none, or ``SKIP`` is listed.
    """
    full = UpdateMode.FULL_RETRAIN
    actions = [candidate.action for candidate in candidates]
    if not actions or any(action.mode is UpdateMode.SKIP for action in actions):
        raise ConfigurationError(
            f"candidates are {', '.join(map(str, actions)) or 'none'}; give at least one update, "
            "and leave SKIP out: it is always possible"
        )
    if state.has_model:
        return list(candidates)
    scratch = [candidate for candidate in candidates if candidate.action.mode is full]
    if not scratch:
        raise ConfigurationError(
            f"there is no model yet, and no candidate is {full}; add one, or give metric_before if "
            "there is a model"
        )
    return scratch


def _plain_count(count: int, name: str) -> int:
    if not is_whole(count):
        raise ConfigurationError(f"{name} is {count!r}; it must be a whole number, 0 or more")
    return int(count)


def _signals(
    given: Mapping[str, float | str | None], *, oriented: Callable[[float | None], float | None]
) -> dict[str, float | str | None]:
    """Check further signals, and orient the one that is a metric."""
    for name in given:
        if name not in SIGNALS:
            raise ConfigurationError(f"{name!r} is no signal; known are {', '.join(SIGNALS)}")
    known = {
        name: value if isinstance(value, str) else finite(value) for name, value in given.items()
    }
    past = known.get("metric_past")
    if isinstance(past, float):
        known["metric_past"] = oriented(past)
    return known
