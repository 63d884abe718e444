"""Training of one's own under a budget: each experience is decided, paid for and learned from."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from greentrain.budget import Balance, Budget
from greentrain.control import BudgetController, Candidate, broke
from greentrain.decisions.asking import check_counts, feasible, find_out, signals_of
from greentrain.decisions.history import PastDecision, recall, teach, turns_of
from greentrain.decisions.pending_update import NOTHING_KEPT, PendingUpdate, UpdateOutcome, finite
from greentrain.decisions.step_cost import check_steps, measure_steps, split
from greentrain.energy import WindowRecorder
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger import Ledger, LedgerAccount, RunLog, canonical
from greentrain.money import experiences_left, period_start
from greentrain.payments import MIN_RESERVATION_J, Payment, settle

_log = logging.getLogger(__name__)

FIRST_SHARE = 0.1
"""Share of what is left that is reserved for what nobody can predict yet."""


class ControllerSession:
    """Decide about each experience of a stream, around training that is the caller's.

    Get one from :func:`open_controller`. It is used by one thread.

    Args:
        control: Policy and models, with nothing learned yet.
        ledger: Where everything is recorded.
        account: Pays.
        run: This process's run.
        recorder: Measures; ``None`` where no meter can see the training.
        budget: What may be spent.
        monitor: What the metric is called.
        more_is_better: Whether a larger one is a better one.
        first_j: Joules to reserve for what nobody can predict yet; a tenth of what is left if
            ``None``.

    Attributes:
        control: Policy and models, as learned from the ledger.
        recorder: As given. A Lightning Trainer in an update takes it as the meter of
            ``EnergyMonitor(controller.recorder, ledger=False)`` and of
            ``BudgetGuard(update.reserved_j, meter=controller.recorder)``.
    """

    def __init__(
        self,
        control: BudgetController,
        ledger: Ledger,
        account: LedgerAccount,
        run: RunLog,
        *,
        recorder: WindowRecorder | None,
        budget: Budget,
        monitor: str,
        more_is_better: bool,
        first_j: float | None,
    ) -> None:
        self.control = control
        self.recorder = recorder
        self._ledger = ledger
        self._account = account
        self._run = run
        self._budget = budget
        self._monitor = monitor
        self._sign = 1.0 if more_is_better else -1.0
        self._first_j = first_j
        self._open: PendingUpdate | None = None
        control.account = account
        decisions = ledger.rows("decision", budget_id=account.budget_id)
        runs = dict.fromkeys(row["run_id"] for row in decisions)
        outcomes = [row for one in runs for row in ledger.rows("outcome", run_id=one)]
        turns = turns_of(decisions, outcomes, more_is_better=more_is_better)
        self._known = recall(control, turns)
        self._taken = [(turn.experience_id, turn.decided) for turn in turns]

    @property
    def experiences(self) -> tuple[str, ...]:
        """The experiences that were decided about and finished, those of earlier processes too."""
        return tuple(dict.fromkeys(name for name, _ in self._taken))

    @property
    def calibrated(self) -> bool:
        """Whether it is known what a step costs."""
        return self.control.cost.calibrated

    def balance(self) -> Balance:
        """Return where the budget stands now."""
        return self._account.balance()

    def calibrate(self, train: Callable[[int], object], *, steps: int = 20) -> None:
        """Measure what a step costs, by short trainings of models that are thrown away.

        ``train(steps)`` is called three times: to warm up, then with ``steps`` and four times as
        many. The difference of the two is that of the steps alone. All is paid from the budget.

        Args:
            train: Trains a fresh model for as many steps as it is told.
            steps: Steps of the short training; they should take a second or so, as a meter needs a
                while to see any power.

        Raises:
            BudgetExceeded: If the budget cannot bear it.
            ConfigurationError: If nothing can be measured here, or the meter saw nothing.
        """
        check_steps(steps)
        if self.recorder is None:
            raise ConfigurationError(
                "a calibration is measured, and training elsewhere is not; give step_j instead"
            )
        self._refuse_if_open()
        reserved_j = self._unpredicted_j()
        reservation = self._account.reserve(reserved_j, "calibration")
        paid = Payment(self.recorder, reservation, reserved_j=reserved_j)
        paid.begin("calibration")
        try:
            short_j, long_j = measure_steps(train, steps, paid)
        finally:
            paid.end()
            paid.settle(self._account)
        fixed_j, step_j = split(short_j, long_j, steps)
        self.control.cost.calibrate(fixed_j=fixed_j, step_j=step_j)

    @contextlib.contextmanager
    def update(self, experience_id: str, **known: Any) -> Iterator[PendingUpdate]:
        """Decide about an experience, and measure and settle the block that trains on it.

        The block calls :meth:`PendingUpdate.done` unless the decision is ``SKIP``. One that raises, or
        never says what came of it, is settled at what it drew, and recorded as not kept.

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
                if not failed and update.came is None:
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
        """Decide, reserve, and begin to measure; every update is followed by :meth:`settle`.

        A ``SKIP`` is finished at once. One process at a time may decide about a stream.

        Args:
            experience_id: The experience. One that is tried again, after a failure, counts its
                samples once.
            candidates: The feasible updates, without ``SKIP``: see :func:`candidates_of`.
            n_new: New samples that it brings. Those of skipped experiences are added by themselves.
            metric_before: The metric of the model in use on held-out data of all experiences seen,
                this one included; ``None`` before there is a model.
            metric_new: The same on its training data, before training on them; ``None`` if unknown.
            n_stored: Stored samples that an update has seen; unless given, all that updates had.
            **signals: What else a policy may want: ``metric_past``, ``loss_new``, ``loss_past``,
                ``unseen``, ``shift``, ``shift_by``, as in :class:`greentrain.control.State`.

        Returns:
            The update, with the decision.

        Raises:
            ConfigurationError: If an argument cannot be used, or the last update is not settled.
            LedgerError: If nothing can be recorded or reserved: then nothing may start.
        """
        self._refuse_if_open()
        check_counts(n_new=n_new, n_stored=n_stored)
        position = len(self._taken)
        state = self._known.state(
            experience_id,
            position=position,
            num_experiences=position + self._expected(),
            metric_before=self._oriented(metric_before),
            metric_new=self._oriented(metric_new),
            n_new=n_new,
            n_stored=n_stored,
            more_is_better=self._sign > 0,
            signals=signals_of(signals, sign=self._sign),
        )
        possible = feasible(candidates, state)
        predicted = self.calibrated
        if predicted:
            state, decision = self.control.decide(state, possible)
        else:
            state = dataclasses.replace(state, left_j=self.balance().left_j)
            decision = find_out(possible, state, self._unpredicted_j())
        reservation = None
        try:
            purpose = f"{decision.action} of {experience_id}"
            reservation = self.control.reserve(decision, purpose)
        except BudgetExceeded as error:  # another run was faster
            decision = broke(str(error))
        paid = None
        if reservation is not None and self.recorder is not None:
            reserved_j = decision.cost_j.upper
            paid = Payment(self.recorder, reservation, reserved_j=reserved_j)
        update = PendingUpdate(
            experience_id,
            state,
            decision,
            metric_before=finite(metric_before),
            reservation=reservation,
            payment=paid,
        )
        self._record(update, predicted=predicted)
        if reservation is None:
            self._finish(update, UpdateOutcome(steps=0), 0.0)
        else:
            self._open = update
            if paid is not None:
                paid.begin("update")
        return update

    def settle(self, update: PendingUpdate, **came: Any) -> float:
        """Pay for an update, record what came of it, and learn from it.

        Args:
            update: What :meth:`decide` returned.
            **came: As for :meth:`PendingUpdate.done`.

        Returns:
            Joules drawn beyond the reservation.

        Raises:
            ConfigurationError: If it was skipped or is settled already, or a value cannot be used.
        """
        if update is not self._open and update.reservation is not None:
            raise ConfigurationError(f"the update of {update.experience_id!r} is settled already")
        update.done(**came)
        return self._close(update, failed=False)

    def leave(self) -> None:
        """Settle what is not settled, as failed; harmless where there is nothing."""
        if self._open is not None:
            self._close(self._open, failed=True)

    def _close(self, update: PendingUpdate, *, failed: bool) -> float:
        self._open = None
        came = update.came or NOTHING_KEPT
        if failed:
            came = dataclasses.replace(came, kept=False)
        drawn_j = came.energy_j
        if update.payment is not None:
            update.payment.end()
            drawn_j = update.payment.actual_j
        overrun_j = 0.0
        if drawn_j is None:
            _log.warning(
                "nobody said what the update of %r drew: its reservation stays spent as a whole",
                update.experience_id,
            )
        else:
            overrun_j = settle(self._account, str(update.reservation), drawn_j)
        self._finish(update, came, drawn_j)
        return overrun_j

    def _finish(self, update: PendingUpdate, came: UpdateOutcome, energy_j: float | None) -> None:
        after = came.metric_after if came.kept and came.steps else update.metric_before
        self._run.note(
            "outcome",
            experience_id=update.experience_id,
            position=update.state.position,
            reservation_id=update.reservation,
            metric=self._monitor,
            metric_before=update.metric_before,
            metric_after=after,
            steps=came.steps,
            planned_steps=update.steps,
            energy_j=energy_j,
            kept=came.kept,
        )
        turn = PastDecision(
            experience_id=update.experience_id,
            state=update.state,
            decision=update.decision,
            steps=came.steps,
            energy_j=energy_j,
            metric_after=self._oriented(after),
            kept=came.kept,
            decided=self._ledger.store.clock(),
        )
        teach(self.control, turn)
        self._known = self._known.after(turn)
        self._taken.append((turn.experience_id, turn.decided))

    def _record(self, update: PendingUpdate, *, predicted: bool) -> None:
        decision = update.decision
        try:
            self._run.append(
                "decision",
                budget_id=self._account.budget_id,
                experience_id=update.experience_id,
                position=update.state.position,
                reservation_id=update.reservation,
                update_mode=str(decision.action.mode),
                step_fraction=decision.action.step_fraction,
                reason=str(decision.reason),
                sentence=decision.sentence,
                predicted_j=decision.cost_j.mean if predicted else None,
                upper_bound_j=decision.cost_j.upper,
                price_per_j=decision.price_per_j,
                state=canonical(update.state.as_dict()),
                alternatives=canonical(decision.alternatives_as_dicts()),
            )
        except BaseException:
            if update.reservation is not None:  # nothing was drawn of it
                with contextlib.suppress(LedgerError):
                    self._account.settle(update.reservation, 0.0)
            raise

    def _unpredicted_j(self) -> float:
        return self._first_j or max(FIRST_SHARE * self.balance().left_j, MIN_RESERVATION_J)

    def _expected(self) -> int:
        """Return how many experiences the budget still has to last for, the present one included.

        Of a renewed budget in this period, of one with an end until then.
        """
        now, seen = self._ledger.store.clock(), len(self._taken)
        if self._budget.per is not None:
            start = period_start(now, self._budget.per)
            seen = sum(moment >= start for _, moment in self._taken)
        opened = self._ledger.terms(self._account.budget_id).opened
        return experiences_left(self._budget, seen=seen, opened=opened, now=now)

    def _oriented(self, metric: float | None) -> float | None:
        known = finite(metric)
        return None if known is None else self._sign * known

    def _refuse_if_open(self) -> None:
        if self._open is not None:
            raise ConfigurationError(
                f"the update of {self._open.experience_id!r} is not settled yet; settle it first"
            )
