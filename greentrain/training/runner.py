"""A stream as it goes: its session, its accounts, what is saved and who is told."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import LightningModule

from greentrain.carbon import CarbonAccount
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.streams import Experience
from greentrain.tracking import Tracker
from greentrain.training.checkpoint import Checkpoint, NoCheckpoint
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.training.run_context import RunContext
from greentrain.training.shadow import ShadowAccount, ShadowBudget
from greentrain.training.update_context import StreamAccount, UpdateContext
from greentrain.training.update_loop import UpdateLoop

RESULTS_KEPT = 1000
"""Results of a session that are remembered: a stream may go on for ever."""
_LASTING = ("stream", "monitor", "mode", "objective", "separately", "memory")
"""Settings without which what was saved would mean something else."""

_log = logging.getLogger(__name__)


class StreamRunner:
    """Take the experiences of a stream one after the other.

    Args:
        learner: Decides and trains.
        funds: What may be spent.
        ledger: Where everything is recorded.
        saved: Where the stream is saved.
        before: What was saved of it before; ``None`` for nothing.
        paper: What advice would have drawn; ``None`` where updates are carried out.
        meter: Where joules come from; detected if ``None``.
        tracker: Is told.
        carbon: Turns joules into grams.
        settings: What the stream was configured with.

    Attributes:
        results: What came of each experience, of the last thousand.
        controls: What came of each control, likewise.
        session: What is open while the stream runs; ``None`` before the first experience.
        advised: The turn that advice was given on and nothing is told of yet.
    """

    def __init__(
        self,
        learner: UpdateLoop,
        funds: StreamBudget,
        *,
        ledger: Ledger,
        saved: Checkpoint | NoCheckpoint,
        before: Mapping[str, Any] | None,
        paper: ShadowBudget | None,
        meter: Meter | None,
        tracker: Tracker,
        carbon: CarbonAccount,
        settings: Mapping[str, Any],
    ) -> None:
        self.results: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        self.controls: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        self.session: RunContext | None = None
        self.advised: UpdateContext | None = None
        self._learner = learner
        self._funds = funds
        self._ledger = ledger
        self._saved = saved
        self._before = before
        self._paper = paper
        self._meter = meter
        self._tracker = tracker
        self._carbon = carbon
        self._settings = settings

    def update(self, experience: Experience) -> UpdateResult:
        """Decide what an experience is worth, and do it, or advise it.

        Raises:
            ConfigurationError: If the experience cannot be used, or the model does not log the
                metric that is monitored.
        """
        self._leave_advice()
        batch = self._learner.material.gather(experience)
        self._saved.check(experience)
        session = self._open()
        turn = UpdateContext(
            experience=experience,
            position=self._funds.position,
            batch=batch,
            session=session,
            account=self._account(session),
            advises=self._paper is not None,
        )
        try:
            result = self._learner.take(turn, self._funds)
        except BaseException:
            session.failed = True
            raise
        if turn.advises:
            self.advised = turn
            session.advised(result)
            return result
        self._finish(turn, result)
        if self._learner.controls.due(turn.position):
            self._control(turn)
        return result

    def told(
        self, turn: UpdateContext, model: LightningModule | None, told: ReportedTraining | None
    ) -> UpdateResult:
        """Take what a job made of an experience that advice was given on; ``None`` for nothing."""
        self.advised = None
        result = self._learner.told(turn, model, told)
        if self._paper is not None:
            self._paper.took(self._ledger.store.clock(), result)
        self._finish(turn, result)
        return result

    def close(self) -> None:
        """Close what is open; harmless the second time."""
        if self.session is not None:
            if not self.session.failed:
                self._leave_advice()
            self.session.close()
        self._saved.close()

    def _finish(self, turn: UpdateContext, result: UpdateResult) -> None:
        session = turn.session
        self._funds.took()
        outcome = session.outcome(result, turn.reservation)
        session.took(result)
        self._save(outcome, session)  # before the ledger is told: then it can be later
        session.came_of(outcome)
        self.results.append(result)
        separately = self._learner.separately
        figures = {} if separately is None else separately.figures()
        session.tell(result, figures, self._learner.updater.model)

    def _control(self, turn: UpdateContext) -> None:
        session = turn.session
        try:
            came = self._learner.controls.run(turn)
        except BaseException:
            session.failed = True
            raise
        if came is not None:
            control, result = came
            outcome = session.outcome(result, control.reservation)
            session.controlled(result)
            self._save(outcome, session)
            session.came_of(outcome)
            self.controls.append(result)

    def _account(self, session: RunContext) -> StreamAccount:
        account = self._funds.account(session.run)
        if self._paper is None:
            return account
        return ShadowAccount(account, self._paper.drawn_j(self._ledger.store.clock()))

    def _leave_advice(self) -> None:
        """Take it that the job trained nothing, if advice still waits for it."""
        if self.advised is not None:
            self.told(self.advised, None, None)

    def _open(self) -> RunContext:
        if self.session is None:
            self.session = RunContext(
                self._ledger,
                self._settings["stream"],
                meter=self._meter,
                tracker=self._tracker,
                carbon=self._carbon,
                settings=self._settings,
                before=None if self._before is None else self._before.get("session"),
            )
            if self._before is not None:
                self.session.came_of_before(self._before["outcome"], self._before["run_id"])
            # Whoever never calls `close` gets it when the stream is forgotten or the program ends.
            weakref.finalize(self, self.session.close)
        return self.session

    def _save(self, outcome: Mapping[str, Any], session: RunContext) -> None:
        try:
            self._saved.save(
                lambda: {
                    "settings": {name: self._settings[name] for name in _LASTING},
                    "learner": self._learner.state_dict(),
                    "outcome": dict(outcome),
                    "run_id": session.run.run_id,
                    "session": session.state_dict(),
                }
            )
        except (OSError, ConfigurationError) as error:  # a full disk ends no training
            _log.warning(
                "what the stream %r is after experience %s could not be saved, and would be "
                "updated again after a restart: %s",
                *(self._settings["stream"], outcome["experience_id"], error),
            )


def go_on(
    state: Mapping[str, Any], settings: Mapping[str, Any], learner: UpdateLoop, tracker: Tracker
) -> None:
    """Go on from what a stream has saved.

    Raises:
        ConfigurationError: If it was saved with other settings, or of another model.
    """
    for name, before in state["settings"].items():
        if (now := settings[name]) != before:
            raise ConfigurationError(
                f"the state was saved with {name}={before!r}, and it is {now!r} now; give what "
                "it was, or another folder to begin anew"
            )
    learner.load_state_dict(state["learner"])
    if (session := state.get("session")) is not None:
        tracker.load_state_dict(session["tracker"])
