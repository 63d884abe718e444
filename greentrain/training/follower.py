"""Follow rank 0 through the updates of a stream: train with it, and keep its model."""

from __future__ import annotations

from collections import deque
from typing import Any

from greentrain.budget import Budget
from greentrain.energy import Meter, WindowRecorder
from greentrain.errors import ConfigurationError
from greentrain.streams import Experience
from greentrain.training.data import UpdateData
from greentrain.training.fit import ModelTrainer, TrainedModel
from greentrain.training.fit_orders import (
    FitOrder,
    Kept,
    OthersMeter,
    Outcome,
    SaveOrder,
    callbacks_of,
)
from greentrain.training.result import UpdateResult
from greentrain.training.runner import RESULTS_KEPT
from greentrain.training.stream_ranks import Ranks, check_experience, raised
from greentrain.training.stream_state import StreamState
from greentrain.training.weights import load_weights


class FollowedBudget:
    """The budget as rank 0 last sent it.

    Args:
        budget: The budget.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget


class Follower:
    """The updates of a stream on a rank that does not lead.

    Args:
        state: The stream's state; only model and data are kept up to date.
        trainer: Trains.
        ranks: The ranks.
        budget: The budget as rank 0 has opened it.
        meter: The meter of this rank, closed at the end.

    Attributes:
        results: The last thousand results, as rank 0 has them.
        baselines: The last thousand results of baseline retrainings.
        budget: The budget.
        run: Always ``None``: rank 0 has the run.
        pending: Always ``None``: there is no shadow mode.
    """

    run = None
    pending = None

    def __init__(
        self,
        state: StreamState,
        trainer: ModelTrainer,
        ranks: Ranks,
        budget: Budget,
        meter: Meter,
    ) -> None:
        self.results: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        self.baselines: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        self.state = state
        self.trainer = trainer
        self.budget = FollowedBudget(budget)
        self._ranks = ranks
        self._meter = meter
        self._closed = False

    def update(self, experience: Experience) -> UpdateResult:
        """Take part in the update of rank 0, and return its result.

        Raises:
            ConfigurationError: If the stream is closed, rank 0 has another experience, or rank 0
                has stopped or is lost.
            LedgerError: If rank 0 could not read or write the ledger.
        """
        if self._closed:
            raise ConfigurationError(
                "the StreamTrainer is closed; open a new one on the same ledger to go on"
            )
        self._ranks.check_open()
        check_experience(self._ranks, experience)
        data = self.state.data.gather(experience)
        trained: TrainedModel | None = None
        while True:
            order = raised(self._ranks.receive())
            if isinstance(order, (FitOrder, SaveOrder)):
                try:
                    if isinstance(order, FitOrder):
                        trained = self._fit(order, data, experience)
                    else:
                        self._send_part(order, experience)
                except BaseException:
                    self._ranks.leave()
                    raise
                continue
            result = self._end(order, trained, experience)
            if order.last:
                return result or self.results[-1]

    def report(self, *args: Any) -> UpdateResult:
        """Refuse a report of shadow mode, which a stream over several ranks does not have."""
        raise ConfigurationError("a stream over several ranks has no shadow mode")

    def close(self) -> None:
        """End; calling it again is harmless."""
        if not self._closed:
            self._closed = True
            self._meter.close()

    def _fit(self, order: FitOrder, data: UpdateData, experience: Experience) -> TrainedModel:
        recorder = WindowRecorder(OthersMeter(order.sources))
        if order.of_everything:
            data = self.state.data.everything(experience) or data
        with recorder.phase("update"):
            return self.trainer.train(
                order.candidate,
                data,
                weights=self.state.model.weights if order.position >= 0 else None,
                position=order.position,
                callbacks=callbacks_of(order.parts, recorder),
                discarded=order.discarded,
            )

    def _send_part(self, order: SaveOrder, experience: Experience) -> None:
        """Send this rank's part of the past data to rank 0."""
        buffer = self.state.data.in_parts
        if order.stored:
            self._store(experience)
        self._ranks.collect(None if buffer is None else buffer.state_dict())

    def _store(self, experience: Experience) -> None:
        if experience.id not in self.state.data.known:
            self.state.data.store(experience, trained=True)

    def _end(
        self, outcome: Outcome, trained: TrainedModel | None, experience: Experience
    ) -> UpdateResult | None:
        state, result = self.state, outcome.result
        if outcome.kept is not None and trained is not None:
            keep(state, trained, outcome.kept)
        if outcome.stored:
            self._store(experience)
        state.data.pending = list(outcome.pending)
        self.budget.budget = outcome.budget
        if state.per_experience is not None and outcome.per_experience is not None:
            state.per_experience.load_state_dict(outcome.per_experience)
        if result is not None:
            (self.baselines if outcome.stored is None else self.results).append(result)
        return result if outcome.stored is not None else None


def keep(state: StreamState, trained: TrainedModel, kept: Kept) -> None:
    """Replace the current model by a trained one, with the weights of rank 0.

    The parameters are the same on all ranks. Running statistics, such as those of batch
    normalisation, are those of the data of each rank.
    """
    load_weights(trained.module, kept.weights)
    state.model.keep(TrainedModel(module=trained.module, last=kept.last), kept.action)
