"""Take a model through a stream of experiences inside an energy budget."""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pytorch_lightning import LightningModule

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.control import LeastEnergy, Policy
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError
from greentrain.ledger import DEFAULT_URL, Ledger
from greentrain.memory import Buffer, FullBuffer
from greentrain.metrics import AccuracyMatrix
from greentrain.streams import Experience
from greentrain.tracking import MlflowTracker, NullTracker, Tracker
from greentrain.updating import trainers
from greentrain.updating.funds import Funds, check_budgets
from greentrain.updating.held_out import Objective
from greentrain.updating.learner import Learner
from greentrain.updating.modes import AVERAGE, ModeOptions
from greentrain.updating.result import UpdateResult
from greentrain.updating.saved import NothingSaved, StateFolder
from greentrain.updating.session import Session
from greentrain.updating.turn import Turn
from greentrain.updating.updater import Updater

RESULTS_KEPT = 1000
"""Results of a session that are remembered: a stream may go on for ever."""
_LASTING = ("stream", "monitor", "monitor_mode", "objective", "separately", "memory")
"""Settings without which what was saved would mean something else."""

_log = logging.getLogger(__name__)


class StreamTrainer:
    """Keep a model up to date as experiences arrive, under a budget that is never overspent.

    Each experience is looked at, a controller decides whether to skip it or to train by replay, a
    warm start or a full retraining and how hard, and what that may cost at most is reserved in the
    ledger before it starts. Use it as a context manager, or call :meth:`close` at the end.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights.
        budget: An energy such as ``"20 Wh"``, emissions such as ``"500 gCO2e"`` (with a zone or an
            intensity), a share such as ``"40 % of full"`` (of what full retraining at each
            experience would cost, from a measured calibration that is paid for apart), or a
            :class:`Budget`.
        horizon: Experiences that the budget has to last for; a :class:`Budget` brings its own.
        monitor: Name of the metric that the model logs in validation.
        monitor_mode: Whether more (``"max"``) or less (``"min"``) of it is better.
        memory: What may be kept of past data: ``"all"``, a buffer, or ``None`` for nothing.
        ledger: URL of the ledger.
        trainer: Options of each fresh Trainer; ``max_epochs`` is the usual number of epochs of a
            full retraining (10 unless given).
        loader: Options of each ``DataLoader``, such as ``{"batch_size": 64}`` (32 unless given).
        meter: Where joules come from; by default the best that this machine has.
        zone: Where this machine gets its power, such as ``"DE"``; without it no grams are claimed.
        intensity: A provider of carbon intensities, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        policy: Decides; :class:`greentrain.control.PricedPolicy` unless given.
        floor: In place of a policy: the least joules that keep the metric at a floor, such as
            ``0.97`` or ``"full - 0.5"`` (:class:`greentrain.control.LeastEnergy`).
        tracking: An MLflow tracking URI such as ``"sqlite:///mlflow.db"``, or a
            :class:`greentrain.tracking.Tracker`; ``None`` tells nobody.
        stream: Name of the stream and of its budget in the ledger: what was spent under this name
            stays spent, also after a crash.
        state: A folder from which the stream goes on when it is started again: model, memory,
            held-out data and what was learned are saved there after each experience. Without one
            they end with the process.
        objective: What a new model is judged on: held-out data of all experiences (``"seen"``), of
            the last five (``"window"``) or of the one at hand (``"current"``).
        separately: Whether the metric is read on each experience by itself, too, by one more
            validation of each at each update: that fills ``matrix``.
        reuse_fraction: Share of the usual epochs that a warm start or a replay gets at effort 1.
        shrink: Factor of the last weights at a warm start.
        perturb: Factor of fresh weights that are added to them.
        average: Share of an update's steps over which its weights are averaged, at a constant
            learning rate; with 0 they are not, and the rate is annealed instead.
        calibration_budget: What the calibration of a budget given as a share may draw.
        seed: Seed of weights, order and sampling.

    Attributes:
        budget: The budget; its joules are known after the first experience at the latest.
        results: What came of each experience, of the last thousand of this session.

    Raises:
        ConfigurationError: If an argument cannot be used, the ledger has another budget of this
            stream's name, or the state is in use, cannot be read or is of another stream.
    """

    def __init__(
        self,
        make_model: Callable[[], LightningModule],
        *,
        budget: str | Budget,
        monitor: str,
        horizon: int | None = None,
        monitor_mode: Literal["max", "min"] = "max",
        memory: Buffer | Literal["all"] | None = "all",
        ledger: str = DEFAULT_URL,
        trainer: Mapping[str, Any] | None = None,
        loader: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
        zone: str | None = None,
        intensity: IntensityProvider | None = None,
        pue: float | None = None,
        policy: Policy | None = None,
        floor: float | str | None = None,
        tracking: str | Tracker | None = None,
        stream: str = "stream",
        state: str | Path | None = None,
        objective: Objective = "seen",
        separately: bool = False,
        reuse_fraction: float = 0.2,
        shrink: float = 1.0,
        perturb: float = 0.0,
        average: float = AVERAGE,
        calibration_budget: str = "1 Wh",
        seed: int = 0,
    ) -> None:
        _check(make_model, monitor_mode, memory)
        policy = _policy(policy, floor, monitor_mode)
        asked = _budget(budget, horizon)
        self.stream = stream
        self.results: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        options = trainers.check_options(trainer or {})
        loader = {"batch_size": 32, **(loader or {})}
        modes = ModeOptions(
            epochs=options["max_epochs"],
            batch_size=loader["batch_size"],
            reuse_fraction=reuse_fraction,
            shrink=shrink,
            perturb=perturb,
            average=average,
        )
        self._settings = {
            "stream": stream,
            "budget": str(asked),
            "horizon": asked.horizon,
            "monitor": monitor,
            "monitor_mode": monitor_mode,
            "objective": objective,
            "separately": separately,
            "memory": memory if isinstance(memory, str) else type(memory).__name__,
            "policy": repr(policy) if policy else "PricedPolicy()",
            "seed": seed,
            **dataclasses.asdict(modes),
        }
        grid: dict[str, Any] = {"zone": zone, "intensity": intensity, "pue": pue}
        self._learner = Learner(
            Updater(
                make_model, monitor=monitor, options=options, loader=loader, modes=modes, seed=seed
            ),
            memory=_memory(memory, state, seed),
            objective=objective,
            more_is_better=monitor_mode == "max",
            policy=policy,
            separately=separately,
            grid=grid,
            seed=seed,
        )
        self._meter = meter
        self._carbon = CarbonAccount(**grid)
        calibration = check_budgets(asked, calibration_budget, self._carbon)
        self._tracker = _tracker(tracking)
        self._session: Session | None = None
        self._ledger = Ledger(ledger)
        self._saved = NothingSaved() if state is None else StateFolder(Path(state))
        try:
            self._before = self._saved.load()
            if self._before is not None:
                self._go_on(self._before)
            self._funds = Funds(
                self._ledger,
                stream,
                asked,
                calibration=calibration,
                carbon=self._carbon,
                done=None if state is None else self.known,
            )
        except BaseException:
            self._saved.close()
            raise
        finally:
            self._ledger.close()  # whoever never updates has nothing to close
        weakref.finalize(self, self._saved.close)

    @property
    def budget(self) -> Budget:
        """The budget; of a share, with joules once the calibration has sized it."""
        return self._funds.budget

    @property
    def model(self) -> LightningModule:
        """The current model; with fresh weights before the first update."""
        return self._learner.updater.model

    @property
    def matrix(self) -> AccuracyMatrix | None:
        """Scores after each experience on each; ``None`` unless ``separately=True``."""
        separately = self._learner.separately
        return None if separately is None else separately.matrix

    @property
    def run_id(self) -> str | None:
        """Id of this stream's run in the ledger; ``None`` before the first experience."""
        return None if self._session is None else self._session.run.run_id

    @property
    def known(self) -> Collection[str]:
        """Names of the experiences that the stream has had, those of a saved state included."""
        return self._learner.material.known

    def run(
        self,
        stream: Iterable[Experience],
        *,
        on_result: Callable[[Experience, UpdateResult], None] = lambda experience, result: None,
    ) -> list[UpdateResult]:
        """Update on each experience that the stream has not had yet, one after the other.

        Args:
            stream: The experiences; it may go on for ever.
            on_result: Called after each update.

        Returns:
            What came of each, of the last thousand at most.

        Raises:
            ConfigurationError: As :meth:`update`.
        """
        results: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        for experience in stream:
            if experience.id not in self.known:
                results.append(self.update(experience))
                on_result(experience, results[-1])
        return list(results)

    def update(self, experience: Experience) -> UpdateResult:
        """Decide what an experience is worth, and do it.

        With a ``state``, an update that is killed is as if it had never begun, but for the joules
        that it was given; one that has returned is saved.

        Args:
            experience: What has arrived.

        Returns:
            What was decided and what came of it.

        Raises:
            ConfigurationError: If the experience cannot be used, or the model does not log the
                metric that is monitored.
        """
        batch = self._learner.material.gather(experience)
        self._saved.check(experience)
        session = self._open()
        turn = Turn(
            experience=experience,
            position=self._funds.position,
            batch=batch,
            session=session,
            account=self._funds.account(session.run),
        )
        try:
            result = self._learner.take(turn, self._funds)
        except BaseException:
            session.failed = True
            raise
        self._funds.took()
        outcome = session.outcome(result, turn.reservation)
        session.took(result)
        self._save(outcome, session)  # before the ledger is told: then it can be later
        session.came_of(outcome)
        self.results.append(result)
        separately = self._learner.separately
        session.tell(result, {} if separately is None else separately.figures(), self.model)
        return result

    def close(self) -> None:
        """Close the run in the ledger, the tracker and the meter; harmless the second time."""
        if self._session is not None:
            self._session.close()
        self._saved.close()

    def __enter__(self) -> StreamTrainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None and kind is not None:
            self._session.failed = True
        self.close()

    def _open(self) -> Session:
        if self._session is None:
            self._session = Session(
                self._ledger,
                self.stream,
                meter=self._meter,
                tracker=self._tracker,
                carbon=self._carbon,
                settings=self._settings,
                before=None if self._before is None else self._before.get("session"),
            )
            if self._before is not None:
                self._session.came_of_before(self._before["outcome"], self._before["run_id"])
            # Whoever never calls `close` gets it when the stream is forgotten or the program ends.
            weakref.finalize(self, self._session.close)
        return self._session

    def _save(self, outcome: Mapping[str, Any], session: Session) -> None:
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
                *(self.stream, outcome["experience_id"], error),
            )

    def _go_on(self, state: Mapping[str, Any]) -> None:
        for name, before in state["settings"].items():
            if (now := self._settings[name]) != before:
                raise ConfigurationError(
                    f"the state was saved with {name}={before!r}, and it is {now!r} now; give what "
                    "it was, or another folder to begin anew"
                )
        self._learner.load_state_dict(state["learner"])
        if (session := state.get("session")) is not None:
            self._tracker.load_state_dict(session["tracker"])


def _check(make_model: object, monitor_mode: object, memory: object) -> None:
    if not callable(make_model):
        raise ConfigurationError(
            f"make_model is {make_model!r}; it is a function that returns a LightningModule with "
            "fresh weights"
        )
    if monitor_mode not in ("max", "min"):
        raise ConfigurationError(f"monitor_mode is {monitor_mode!r}; allowed are 'max' and 'min'")
    if isinstance(memory, str) and memory != "all":
        raise ConfigurationError(
            f"memory is {memory!r}; it is 'all', a buffer such as ReservoirBuffer(2000), or None "
            "to keep nothing"
        )


def _policy(
    policy: Policy | None, floor: float | str | None, monitor_mode: Literal["max", "min"]
) -> Policy | None:
    if floor is None:
        return policy
    if policy is not None:
        raise ConfigurationError(
            f"policy is {policy!r} and floor is {floor!r}; a floor is an objective of its own, so "
            "give one of the two"
        )
    turned = -floor if isinstance(floor, (int, float)) and monitor_mode == "min" else floor
    return LeastEnergy(floor=turned)


def _memory(
    memory: Buffer | Literal["all"] | None, state: str | Path | None, seed: int
) -> Buffer | None:
    if not isinstance(memory, str):
        return memory
    return FullBuffer(folder=None if state is None else Path(state) / "memory", seed=seed)


def _budget(budget: str | Budget, horizon: int | None) -> Budget:
    if isinstance(budget, str):
        return Budget.parse(budget, horizon=1 if horizon is None else horizon)
    return budget if horizon is None else dataclasses.replace(budget, horizon=horizon)


def _tracker(tracking: str | Tracker | None) -> Tracker:
    if tracking is None:
        return NullTracker()
    return MlflowTracker(tracking) if isinstance(tracking, str) else tracking
