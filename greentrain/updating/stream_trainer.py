"""Take a model through a stream of experiences inside an energy budget."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal

from pytorch_lightning import LightningModule

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.control import (
    BudgetController,
    Candidate,
    CostModel,
    Decision,
    Policy,
    State,
    broke,
)
from greentrain.energy import Meter
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.ledger import DEFAULT_URL, Ledger, LedgerAccount
from greentrain.memory import Buffer, FullBuffer
from greentrain.streams import Experience
from greentrain.tracking import MlflowTracker, NullTracker, Tracker
from greentrain.units import format_energy
from greentrain.updating import calibration, trainers
from greentrain.updating.funds import Funds, check_budgets
from greentrain.updating.material import Batch, Material
from greentrain.updating.modes import ModeOptions
from greentrain.updating.payments import paying
from greentrain.updating.probe import Look, Probe
from greentrain.updating.progress import Progress
from greentrain.updating.result import UpdateResult
from greentrain.updating.session import Session
from greentrain.updating.turn import Turn
from greentrain.updating.updater import Updater


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
        tracking: An MLflow tracking URI such as ``"sqlite:///mlflow.db"``, or a
            :class:`greentrain.tracking.Tracker`; ``None`` tells nobody.
        stream: Name of the stream and of its budget in the ledger: what was spent under this name
            stays spent, also after a crash.
        reuse_fraction: Share of the usual epochs that a warm start or a replay gets at effort 1.
        shrink: Factor of the last weights at a warm start.
        perturb: Factor of fresh weights that are added to them.
        calibration_budget: What the calibration of a budget given as a share may draw.
        seed: Seed of weights, order and sampling.

    Attributes:
        budget: The budget; its joules are known after the first experience at the latest.
        results: What came of each experience.

    Raises:
        ConfigurationError: If an argument cannot be used, or the ledger has another budget of this
            stream's name.
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
        tracking: str | Tracker | None = None,
        stream: str = "stream",
        reuse_fraction: float = 0.2,
        shrink: float = 1.0,
        perturb: float = 0.0,
        calibration_budget: str = "1 Wh",
        seed: int = 0,
    ) -> None:
        _check(make_model, monitor_mode, memory)
        asked = _budget(budget, horizon)
        self.stream = stream
        self.results: list[UpdateResult] = []
        options = trainers.check_options(trainer or {})
        loader = {"batch_size": 32, **(loader or {})}
        modes = ModeOptions(
            epochs=options["max_epochs"],
            batch_size=loader["batch_size"],
            reuse_fraction=reuse_fraction,
            shrink=shrink,
            perturb=perturb,
        )
        self._settings = {
            "budget": str(asked),
            "horizon": asked.horizon,
            "monitor": monitor,
            "monitor_mode": monitor_mode,
            "memory": memory if isinstance(memory, str) else type(memory).__name__,
            "policy": repr(policy) if policy else "PricedPolicy()",
            "seed": seed,
            **dataclasses.asdict(modes),
        }
        self._progress = Progress(more_is_better=monitor_mode == "max")
        self._updater = Updater(
            make_model, monitor=monitor, options=options, loader=loader, modes=modes, seed=seed
        )
        self._material = Material(FullBuffer(seed=seed) if isinstance(memory, str) else memory)
        self._probe = Probe(self._updater.measure, seed=seed)
        self._policy = policy
        self._cost = CostModel()
        self._controller: BudgetController | None = None
        self._meter = meter
        self._grid: dict[str, Any] = {"zone": zone, "intensity": intensity, "pue": pue}
        self._carbon = CarbonAccount(**self._grid)
        calibration = check_budgets(asked, calibration_budget, self._carbon)
        self._tracker = _tracker(tracking)
        self._session: Session | None = None
        self._ledger = Ledger(ledger)
        try:
            self._funds = Funds(
                self._ledger, stream, asked, calibration=calibration, carbon=self._carbon
            )
        finally:
            self._ledger.close()  # whoever never updates has nothing to close

    @property
    def budget(self) -> Budget:
        """The budget; of a share, with joules once the calibration has sized it."""
        return self._funds.budget

    @property
    def model(self) -> LightningModule:
        """The current model; with fresh weights before the first update."""
        return self._updater.model

    @property
    def run_id(self) -> str | None:
        """Id of this stream's run in the ledger; ``None`` before the first experience."""
        return None if self._session is None else self._session.run.run_id

    def update(self, experience: Experience) -> UpdateResult:
        """Decide what an experience is worth, and do it.

        Args:
            experience: What has arrived.

        Returns:
            What was decided and what came of it.

        Raises:
            ConfigurationError: If the experience cannot be used, or the model does not log the
                metric that is monitored.
        """
        batch = self._material.gather(experience)
        session = self._open()
        turn = Turn(
            experience=experience,
            position=self._funds.position,
            batch=batch,
            session=session,
            account=self._funds.account(session.run),
        )
        try:
            result = self._take(turn)
        except BaseException:
            session.failed = True
            raise
        self.results.append(result)
        session.tell(self.results)
        self._probe.take(experience)
        self._material.store(experience, trained=result.steps > 0 and result.kept)
        self._funds.took()
        return result

    def close(self) -> None:
        """Close the run in the ledger, the tracker and the meter; harmless the second time."""
        if self._session is not None:
            self._session.close()

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

    def _take(self, turn: Turn) -> UpdateResult:
        try:
            turn.look = self._look(turn)
        except BudgetExceeded:  # another run was faster
            turn.look = None
        if turn.look is None:
            return turn.skipped(_broke(turn.account))
        if not self._funds.sized:
            self._funds.size(self._cost, self._updater.modes, turn.batch.n_new)
            turn.account = self._funds.account(turn.session.run)
        controller = self._control(turn.account)
        state, decision = controller.decide(
            self._state(turn.look, turn.batch),
            self._updater.candidates(turn.batch, keeps_data=self._material.memory is not None),
            keep_j=turn.look.again_j * (self._funds.expected() - 1),
        )
        try:
            purpose = f"{decision.action} of {turn.experience.id}"
            reservation = controller.reserve(decision, purpose)
        except BudgetExceeded as error:  # another run was faster
            reservation, decision = None, broke(str(error))
        if reservation is None:
            return turn.skipped(decision, state)
        turn.decided(decision, state, reservation)
        return self._train(turn, turn.look, controller, state, decision, reservation)

    def _look(self, turn: Turn) -> Look | None:
        recorder, account = turn.session.recorder, turn.account
        new = turn.batch.new if self._updater.trained else None
        look = self._probe.look(turn.experience, new, recorder, account)
        if look is None or self._cost.calibrated:
            return look
        reserved_j = calibration.affordable_j(account, look.again_j)
        if reserved_j is None:
            return None
        payment = calibration.calibrate(
            self._updater,
            turn.batch,
            self._cost,
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
        controller: BudgetController,
        state: State,
        decision: Decision,
        reservation: str,
    ) -> UpdateResult:
        recorder, reserved_j = turn.session.recorder, decision.cost_j.upper
        # About half of what a fit draws besides its steps comes after them.
        closing_j = 0.5 * self._cost.predict(decision.action.mode, 0).mean + look.again_j
        guard = BudgetGuard(reserved_j, meter=recorder, anneal=True, keep_j=closing_j)
        logger = turn.session.begin_update(turn.experience.id)
        with (
            paying(
                turn.account, recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            recorder.phase("update"),
        ):
            model = self._updater.train(
                Candidate(action=decision.action, steps=decision.steps),
                turn.batch,
                position=turn.position,
                callbacks=[
                    EnergyMonitor(recorder, ledger=False, summary=False, **self._grid),
                    guard,
                ],
                logger=logger,
            )
            with recorder.phase("validation"):
                after = self._updater.measure(self._probe.seen(turn.experience), model)
        gain = self._progress.gain(before=look.metric, after=after)
        kept = math.isfinite(after) and (not self._updater.trained or not gain < 0)
        controller.learn(decision, state, steps=guard.steps, actual_j=payment.actual_j, gain=gain)
        if kept:
            self._updater.keep(model, decision.action)
            self._progress.take(after)
        return turn.trained(
            decision, payment, reservation, metric_after=after, steps=guard.steps, kept=kept
        )

    def _state(self, look: Look, batch: Batch) -> State:
        progress = self._progress
        return State(
            position=self._funds.position,
            horizon=self._funds.position + self._funds.expected(),
            has_model=self._updater.trained,
            metric_before=progress.oriented(look.metric),
            metric_new=progress.oriented(look.metric_new),
            metric_last=progress.last,
            metric_best=progress.best,
            metric_ceiling=progress.ceiling(look.metric),
            n_new=batch.n_new,
            n_stored=batch.n_stored,
            warm_starts=self._updater.warm_starts,
        )

    def _open(self) -> Session:
        if self._session is None:
            self._session = Session(
                self._ledger,
                self.stream,
                meter=self._meter,
                tracker=self._tracker,
                carbon=self._carbon,
                settings=self._settings,
            )
            # Whoever never calls `close` gets it when the stream is forgotten or the program ends.
            weakref.finalize(self, self._session.close)
        return self._session

    def _control(self, account: LedgerAccount) -> BudgetController:
        if self._controller is None:
            self._controller = BudgetController(account, policy=self._policy, cost=self._cost)
        return self._controller


def _broke(account: LedgerAccount) -> Decision:
    left_j = account.balance().left_j
    return broke(
        f"{format_energy(left_j)} are left, too little even to look at the data: nothing starts"
    )


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


def _budget(budget: str | Budget, horizon: int | None) -> Budget:
    if isinstance(budget, str):
        return Budget.parse(budget, horizon=1 if horizon is None else horizon)
    return budget if horizon is None else dataclasses.replace(budget, horizon=horizon)


def _tracker(tracking: str | Tracker | None) -> Tracker:
    if tracking is None:
        return NullTracker()
    return MlflowTracker(tracking) if isinstance(tracking, str) else tracking
