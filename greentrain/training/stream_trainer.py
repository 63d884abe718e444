"""Take a model through a stream of experiences inside an energy budget."""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pytorch_lightning import LightningModule

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.control import Policy
from greentrain.decisions.stream_budget import StreamBudget, check_budgets, check_payer
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError
from greentrain.evaluation.held_out import EvalOn
from greentrain.ledger import DEFAULT_URL, Ledger
from greentrain.memory import Buffer
from greentrain.metrics import AccuracyMatrix
from greentrain.streams import Experience
from greentrain.tracking import Tracker
from greentrain.training import config as arguments
from greentrain.training import fit as trainers
from greentrain.training import shadow as advice
from greentrain.training.checkpoint import Checkpoint, NoCheckpoint
from greentrain.training.modes import AVERAGE, ModeConfig
from greentrain.training.result import UpdateResult
from greentrain.training.runner import RESULTS_KEPT, StreamRunner, go_on
from greentrain.training.update_loop import UpdateLoop
from greentrain.training.updater import Updater


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
        num_experiences: Experiences that the budget has to last for; a :class:`Budget` brings its own.
        monitor: Name of the metric that the model logs in validation.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better.
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
        shared_budget: Name of a budget that several streams pay from, which the first of them opens;
            ``num_experiences`` then counts the experiences of them all. The stream's own unless given.
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
        shadow: Whether to decide only, while a job of your own trains: :meth:`trained` is told of
            it. Nothing is reserved or drawn but for looks.
        baseline_every: At every so many experiences a model is retrained in full beside the stream,
            and paid from the budget, to measure what is saved and lost; ``None`` for never.

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
        num_experiences: int | None = None,
        mode: Literal["max", "min"] = "max",
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
        shared_budget: str | None = None,
        state: str | Path | None = None,
        objective: EvalOn = "seen",
        separately: bool = False,
        reuse_fraction: float = 0.2,
        shrink: float = 1.0,
        perturb: float = 0.0,
        average: float = AVERAGE,
        calibration_budget: str = "1 Wh",
        seed: int = 0,
        shadow: bool = False,
        baseline_every: int | None = None,
    ) -> None:
        arguments.check(make_model, mode, memory)
        check_payer(shared_budget)
        policy = arguments.policy_of(policy, floor, mode)
        asked = arguments.budget_of(budget, num_experiences)
        self.stream = stream
        if shadow:
            advice.check_advising(
                baseline_every=baseline_every, separately=separately, shared_budget=shared_budget
            )
        options = trainers.check_options(trainer or {})
        loader = {"batch_size": 32, **(loader or {})}
        modes = ModeConfig(
            epochs=options["max_epochs"],
            batch_size=loader["batch_size"],
            reuse_fraction=reuse_fraction,
            shrink=shrink,
            perturb=perturb,
            average=average,
        )
        settings = {
            "stream": stream,
            "shared_budget": shared_budget,
            "budget": str(asked),
            "num_experiences": asked.num_experiences,
            "monitor": monitor,
            "mode": mode,
            "objective": objective,
            "separately": separately,
            "memory": memory if isinstance(memory, str) else type(memory).__name__,
            "policy": repr(policy) if policy else "PricedPolicy()",
            "seed": seed,
            "shadow": shadow,
            "baseline_every": baseline_every,
            **dataclasses.asdict(modes),
        }
        grid: dict[str, Any] = {"zone": zone, "intensity": intensity, "pue": pue}
        self._learner = UpdateLoop(
            Updater(
                make_model, monitor=monitor, options=options, loader=loader, modes=modes, seed=seed
            ),
            memory=arguments.memory_of(memory, state, seed),
            objective=objective,
            more_is_better=mode == "max",
            policy=policy,
            separately=separately,
            grid=grid,
            seed=seed,
            baseline_every=baseline_every,
        )
        carbon = CarbonAccount(**grid)
        calibration = check_budgets(asked, calibration_budget, carbon)
        told = arguments.tracker_of(tracking)
        recorded = Ledger(ledger)
        saved = NoCheckpoint() if state is None else Checkpoint(Path(state))
        try:
            before = saved.load()
            if before is not None:
                go_on(before, settings, self._learner, told)
            known = None if state is None else self.known
            self._funds = StreamBudget(
                recorded,
                stream,
                asked,
                shared_budget=shared_budget,
                calibration=calibration,
                carbon=carbon,
                done=known,
            )
            paper = advice.paper_of(recorded, stream, self.budget, known) if shadow else None
        except BaseException:
            saved.close()
            raise
        finally:
            recorded.close()  # whoever never updates has nothing to close
        weakref.finalize(self, saved.close)
        self._run = StreamRunner(
            self._learner,
            self._funds,
            ledger=recorded,
            saved=saved,
            before=before,
            paper=paper,
            meter=meter,
            tracker=told,
            carbon=carbon,
            settings=settings,
        )

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
        session = self._run.session
        return None if session is None else session.run.run_id

    @property
    def results(self) -> deque[UpdateResult]:
        """What came of each experience, of the last thousand of this session."""
        return self._run.results

    @property
    def controls(self) -> deque[UpdateResult]:
        """What came of each control, of the last thousand of this session."""
        return self._run.controls

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
        return self._run.update(experience)

    def trained(
        self,
        model: LightningModule,
        *,
        update_mode: str = "FULL_RETRAIN",
        steps: int | None = None,
        energy_j: float | None = None,
    ) -> UpdateResult:
        """Tell what a job of your own made of the experience that was advised on last.

        The model becomes the current one, its metric is measured, and what it cost and gained is
        learned from. An experience of which nothing is told before the next one, or before
        :meth:`close`, counts as not trained on: its data wait.

        Args:
            model: The model, of which the weights are taken.
            update_mode: What the job did: ``"FULL_RETRAIN"``, ``"WARM_START"`` or ``"REPLAY"``.
            steps: Optimizer steps that it took, in batches of the stream's ``batch_size``; the
                usual ones of the update mode unless given.
            energy_j: Joules that it drew, such as ``EnergyMonitor`` counts; ``None`` if unknown.
                They are charged to no budget.

        Returns:
            What came of it, beside what was advised.

        Raises:
            ConfigurationError: If no advice waits for it, or an argument cannot be used.
        """
        turn = self._run.advised
        if turn is None:
            raise ConfigurationError(
                "trained was called and no advice waits for it; it follows an update of a "
                "StreamTrainer with shadow=True, once"
            )
        model = advice.check_model(self._learner.updater, model)
        modes = self._learner.updater.modes
        told = advice.check_told(modes, turn.batch, update_mode, steps, energy_j)
        turn.session.begin_update(turn.experience)
        return self._run.told(turn, model, told)

    def close(self) -> None:
        """Close the run in the ledger, the tracker and the meter; harmless the second time."""
        self._run.close()

    def __enter__(self) -> StreamTrainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._run.session is not None and kind is not None:
            self._run.session.failed = True
        self.close()
