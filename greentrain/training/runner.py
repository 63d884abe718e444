"""Run a stream: open its run at the first experience, save each result, and close everything."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule

from greentrain.decisions.core import BudgetAccount, DecisionCore
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.evaluation.evaluator import Evaluator
from greentrain.ledger import Ledger
from greentrain.streams import Experience
from greentrain.texts import get_logger
from greentrain.tracking import Tracker
from greentrain.training.artefacts import Artefacts
from greentrain.training.baseline_runs import BaselineRuns, is_due
from greentrain.training.checkpoint import Checkpoint
from greentrain.training.config import CarbonConfig
from greentrain.training.failed_tries import MOST_TRIES, FailedTries, failed_again
from greentrain.training.fit import ModelTrainer
from greentrain.training.late_labels import NOT_WITHOUT_LABELS, arrived, failed_for_labels, take_up
from greentrain.training.leader import Leader
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.training.resuming import lacks_outcome
from greentrain.training.run_context import RunContext
from greentrain.training.shadow import ShadowAccount, ShadowBudget
from greentrain.training.shadow_loop import ShadowLoop
from greentrain.training.start_by import StartBy
from greentrain.training.stream_state import StreamState
from greentrain.training.train_stage import TrainStage
from greentrain.training.update_context import AskedUpdate
from greentrain.training.update_loop import UpdateLoop
from greentrain.training.waiting import UpdateWaits

RESULTS_KEPT = 1000
"""Results that are kept in memory: a stream may never end."""
_LASTING = (
    "name",
    "monitor",
    "mode",
    "eval_on",
    "eval_each_experience",
    "buffer",
)
"""Settings that a saved state depends on."""
_NOT_OF_THE_DATA = (ConfigurationError, LedgerError, MisconfigurationException)
"""Errors after which the same experience is tried again: its data are not at fault."""

_log = get_logger(__name__)


class StreamRunner:
    """Update the model of a stream on one experience after another.

    Args:
        state: The stream's state.
        trainer: Trains successors.
        evaluator: Measures models.
        budget: The budget that pays.
        ledger: The ledger.
        checkpoint: Saves the state; ``None`` if it ends with the process.
        before: The state that was saved before; ``None`` without one.
        shadow: The joules of earlier decisions in shadow mode; ``None`` without shadow mode.
        meter: The meter; detected if ``None``.
        tracker: Logs the stream.
        carbon: Conversion of joules to grams.
        settings: The stream's configuration.
        baseline_every: Experiences between two baseline retrainings; ``None`` for none.
        start_by: The longest wait of an update for cleaner electricity; ``None`` for no waits.
        leader: Leads the other ranks; ``None`` without any.

    Attributes:
        results: The last thousand results.
        baselines: The last thousand results of baseline retrainings.
        run: The open run; ``None`` before the first experience.
        pending: The decision of shadow mode whose outcome is not reported yet.
    """

    def __init__(
        self,
        state: StreamState,
        trainer: ModelTrainer,
        evaluator: Evaluator,
        budget: StreamBudget,
        *,
        ledger: Ledger,
        checkpoint: Checkpoint | None,
        before: Mapping[str, Any] | None,
        shadow: ShadowBudget | None,
        meter: Meter | None,
        tracker: Tracker,
        carbon: CarbonConfig,
        settings: Mapping[str, Any],
        baseline_every: int | None = None,
        start_by: StartBy | None = None,
        leader: Leader | None = None,
    ) -> None:
        self.results: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        self.baselines: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        self.run: RunContext | None = None
        self.pending: AskedUpdate | None = None
        self.state = state
        self.trainer = trainer
        self.evaluator = evaluator
        self.budget = budget
        self._ledger = ledger
        self._checkpoint = checkpoint
        self._before = before
        self._shadow = shadow
        self._meter = meter
        self._tracker = tracker
        self._carbon = carbon
        self._settings = settings
        self._baseline_every = baseline_every
        self._start_by = start_by
        self._leader = leader
        self._tries = FailedTries(None if checkpoint is None else checkpoint.folder)
        self._artefacts = Artefacts()
        self._closed = False
        if before is not None:
            if lacks_outcome(ledger, before, settings["name"]):
                self._open()
            else:
                ledger.close()  # open again from the first experience on

    def update(self, experience: Experience) -> UpdateResult:
        """Decide about an experience, and carry the decision out unless in shadow mode.

        An error within the update is raised at its first try. At the second one, also in a later
        process, the experience is set aside, so that the stream goes on. The update of a given
        model sets nothing aside: its caller chose the data, and gets each error.

        Raises:
            ConfigurationError: If the experience cannot be used, the model does not log the
                monitored metric, or the stream is closed.
        """
        self._refuse_if_closed()
        if self._leader is not None:
            with self._leader.leading(experience):
                return self._update(experience)
        return self._update(experience)

    def _update(self, experience: Experience) -> UpdateResult:
        self._finish_pending()
        alone = self._leader is None and self._shadow is None
        context = arrived(
            *(experience, self.state, self.budget),
            check=None if self._checkpoint is None else self._checkpoint.check,
            why_not="" if alone else NOT_WITHOUT_LABELS,
        )
        run = self._open()
        experience = context.experience
        shadow, began_g = self._shadow is not None, run.emissions_g
        before_j = run.recorder.read().total_j or 0.0
        try:
            asked = self._loop.ask(context, self._account(run), shadow=shadow)
            if shadow:
                self.pending = asked
                result = self._shadow_loop.result(asked)
                run.log_shadow_decision(result)
                return result
            asked = take_up(asked, self.state, run.recorder)
            experience = asked.context.experience
            trains = asked.pending.reservation_id is not None
            result, row = self._loop.tell(asked, self._stage.train(asked) if trains else None)
        except BaseException as error:
            if shadow or not self._gives_up(experience, error):
                run.failed = True
                if isinstance(error, KeyboardInterrupt):
                    _log.warning("%s", self._interrupted(experience))
                raise
            used_j = (run.recorder.read().total_j or 0.0) - before_j
            result, row = self._loop.set_aside(
                context, self._account(run), failed_again(experience.id, error), used_j=used_j
            )
            _log.error("%s", result.reason)
            _log.debug("the last error was raised here", exc_info=error)
            self._commit(run, experience, result, row)
            return result
        if run.emissions_g is not None:
            result = replace(result, emissions_g=run.emissions_g - (began_g or 0.0))
        self._commit(run, experience, result, row)
        every = self._baseline_every
        follows = every is not None and is_due(every, context.position)
        self._send(result, experience, asked, last=not follows)
        if follows:
            self._run_baseline(run, asked)
        return result

    def report(
        self, model: LightningModule | None, reported: ReportedTraining | None
    ) -> UpdateResult:
        """Commit the outcome of the user's own job, after a decision in shadow mode."""
        self._refuse_if_closed()
        asked, self.pending = self.pending, None
        run = self._open()
        if asked is None or self._shadow is None:
            raise ValueError("no decision of shadow mode is pending")
        if reported is not None:
            run.begin_update(asked.context.experience)
        result, row = self._shadow_loop.tell(asked, model, reported)
        self._shadow.add_result(self._ledger.now(), result)
        self._commit(run, asked.context.experience, result, row)
        return result

    @property
    def saved(self) -> Any:
        """The state of the stream as it was saved before; ``None`` without one."""
        return None if self._before is None else self._before["stream"]

    def close(self) -> None:
        """Close everything that is open; calling it again is harmless."""
        if self.run is not None:
            if not self.run.failed:
                self._finish_pending()
            self.run.close()
        self._closed = True
        if self._checkpoint is not None:
            self._checkpoint.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigurationError(
                "the StreamTrainer is closed; open a new one on the same ledger to go on"
            )

    def _interrupted(self, experience: Experience) -> str:
        then = "without a state_dir, the stream so far ends with this program"
        if self._checkpoint is not None:
            then = (
                f"open the stream again with its state_dir, {self._checkpoint.folder}, to continue "
                "at this experience"
            )
        return (
            f"the update on experience {experience.id} was interrupted, and what it used is "
            f"settled; {then}"
        )

    def _gives_up(self, experience: Experience, error: BaseException) -> bool:
        """Count a failed try, and return whether it was the last one."""
        if (
            self.state.model.given
            or self._leader is not None  # a rank may have died, and not for the data
            or not isinstance(error, Exception)
            or isinstance(error, _NOT_OF_THE_DATA)
            or failed_for_labels(error)
        ):
            return False
        tries = self._tries.add(experience.id)
        if tries < MOST_TRIES:
            _log.warning(
                "the update on experience %s failed and is tried again at its next call; if it "
                "fails again, the experience is set aside and the stream goes on",
                experience.id,
            )
        return tries >= MOST_TRIES

    def _commit(
        self, run: RunContext, experience: Experience, result: UpdateResult, row: dict[str, Any]
    ) -> None:
        changed = result.shadow or (result.kept and result.steps > 0)
        row.update(self._artefacts.data(experience))
        row.update(self._artefacts.weights(self.state.model, changed=changed))
        self.budget.count_experience()
        run.count(result)
        each = self.state.per_experience
        run.log_result(
            result,
            {} if each is None else each.summary(),
            self.state.model.module,
            weights_sha256=row["weights_sha256"],
        )
        self._save(row, run)  # before the rows of ledger and tracker, which can be added later
        self._tries.forget(result.experience_id)
        self._core.record(row)
        run.release()
        self.results.append(result)

    def _run_baseline(self, run: RunContext, asked: AskedUpdate) -> None:
        try:
            found = self._baseline_runs.run(asked, self._account(run))
        except BaseException:
            run.failed = True
            raise
        if found is None:
            self._send(None, asked.context.experience, asked, last=True)
        else:
            result, row = found
            row.update(self._artefacts.weights(self.state.model, changed=result.kept))
            run.count(result, baseline=True)
            run.log_baseline(result)
            self._save(row, run)
            self._core.record(row)
            run.release()
            self.baselines.append(result)
            self._send(result, asked.context.experience, asked, last=True, baseline=True)

    def _send(
        self,
        result: UpdateResult | None,
        experience: Experience,
        asked: AskedUpdate,
        *,
        last: bool,
        baseline: bool = False,
    ) -> None:
        """Send the end of an update to the other ranks, if there are any."""
        if self._leader is not None:
            stored = None if baseline or result is None else experience.id in self.state.data.known
            action = result.done if result is not None else asked.pending.action
            budget = self.budget.budget
            self._leader.end(result, action, self.state, stored=stored, last=last, budget=budget)

    def _account(self, run: RunContext) -> BudgetAccount:
        account = self.budget.account(run.run)
        if self._shadow is None:
            return account
        return ShadowAccount(account, self._shadow.used_j(self._ledger.now()))

    def _finish_pending(self) -> None:
        """Assume that the user's own job trained nothing, if its outcome was not reported."""
        if self.pending is not None:
            self.report(None, None)

    def _open(self) -> RunContext:
        if self.run is None:
            before = self._before
            self.run = run = RunContext(
                self._ledger,
                self._settings["name"],
                meter=self._meter,
                tracker=self._tracker,
                carbon=self._carbon.account(),
                settings=self._settings,
                before=None if before is None else before.get("run"),
                continues=self._checkpoint is not None,
            )
            state, trainer, evaluator = self.state, self.trainer, self.evaluator
            self._core = core = DecisionCore(
                state.controller,
                run.run,
                metric=self._settings["monitor"],
                more_is_better=self._settings["mode"] == "max",
            )
            waits = None
            if self._start_by is not None:
                waits = UpdateWaits(
                    self._start_by,
                    self._carbon.account(),
                    state.waits,
                    run,
                    self._ledger,
                    self._settings["name"],
                )
            self._loop = loop = UpdateLoop(
                state, trainer, evaluator, self.budget, core, run, waits=waits
            )
            self._stage = stage = TrainStage(
                state, trainer, evaluator, run, self._artefacts, carbon=self._carbon
            )
            self._shadow_loop = ShadowLoop(loop, state, evaluator, core, run.recorder)
            self._baseline_runs = BaselineRuns(
                loop, stage, state, trainer, evaluator, core, run.recorder
            )
            if before is not None and lacks_outcome(self._ledger, before, self._settings["name"]):
                core.record(dict(before["outcome"]))
            # Closed when the stream is garbage-collected, or when the program ends.
            weakref.finalize(self, run.close)
        return self.run

    def _save(self, row: Mapping[str, Any], run: RunContext) -> None:
        if self._checkpoint is None:
            return
        state, leader, latest = self.state, self._leader, row["experience_id"]
        try:
            self._checkpoint.save(
                lambda: {
                    "settings": {name: self._settings[name] for name in _LASTING},
                    "stream": state.state_dict() if leader is None else leader.save(state, latest),
                    "outcome": dict(row),
                    "run_id": run.run.run_id,
                    "run": run.state_dict(),
                }
            )
        except (OSError, ConfigurationError) as error:  # a full disk must not end training
            _log.warning(
                "the state of the stream %r after experience %s could not be saved; after a "
                "restart it would be updated on this experience again: %s",
                *(self._settings["name"], row["experience_id"], error),
            )
