"""Keep a model up to date on a stream of experiences, within an energy budget."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule

from greentrain.budget import Budget
from greentrain.control import BudgetController, Policy, UtilityModel
from greentrain.control.priors import read_priors
from greentrain.decisions.budget_arguments import (
    check_intensity,
    check_names,
    parse_budget,
    parse_calibration_budget,
)
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError
from greentrain.evaluation.comparison import MetricHistory
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.per_experience import PerExperienceMetrics
from greentrain.evaluation.probe import Probe
from greentrain.launch import find_launch
from greentrain.ledger import DEFAULT_URL
from greentrain.memory import Buffer
from greentrain.metrics import AccuracyMatrix
from greentrain.naming import check_tag
from greentrain.streams import Experience
from greentrain.tracking import Tracker
from greentrain.training import config
from greentrain.training import shadow as shadow_mode
from greentrain.training.baseline_runs import check_baseline_every
from greentrain.training.config import CarbonConfig, EvaluationConfig, ModeConfig
from greentrain.training.data import StreamData
from greentrain.training.fit import ModelTrainer, number_of_ranks, trainer_options
from greentrain.training.follower import Follower
from greentrain.training.leader import Leader
from greentrain.training.module_checks import check_callbacks, check_learned, check_module
from greentrain.training.offered_methods import check_methods
from greentrain.training.ranks_opening import check_parts, check_ranks, open_on_ranks
from greentrain.training.result import UpdateResult
from greentrain.training.runner import RESULTS_KEPT, StreamRunner
from greentrain.training.start_by import StartBy, check_start_by
from greentrain.training.stream_opening import open_runner
from greentrain.training.stream_ranks import open_ranks
from greentrain.training.stream_state import CurrentModel, StreamState
from greentrain.units import whole_seed


class StreamTrainer:
    """Keep a model up to date as experiences arrive, within a budget.

    For each experience, the current model is probed. A controller then decides whether to skip it,
    or to train by replay, warm start or full retraining, and with how many steps. The upper bound
    of the update's energy is reserved in the ledger before it starts, and the update stops at it.
    Use it as a context manager, or call :meth:`close` at the end.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights, such as its class. It is
            called once at construction, so that a module which cannot be used is refused there.
        budget: An energy such as ``"20 Wh"``, emissions such as ``"500 gCO2e"`` (with ``carbon``),
            a share such as ``"40 % of full"``, or a :class:`Budget`. A share is one of the energy
            of full retraining at each experience. A calibration measures that energy first, paid
            from ``calibration_budget``.
        monitor: Name of the metric that the model logs in validation.
        num_experiences: Number of experiences that the budget has to last for. Required, unless the
            budget is a :class:`Budget`, which has its own number.
        mode: ``"max"`` if a larger metric is better, ``"min"`` if a smaller one is.
        buffer: Past data that may be kept: ``"all"``, a buffer such as ``ReservoirBuffer(2000)``,
            or ``None`` for none.
        ledger: URL of the ledger.
        trainer: Options of each fresh Trainer. ``max_epochs`` is the usual number of epochs of a
            full retraining (10 unless given).
        loader: Options of each ``DataLoader``, such as ``{"batch_size": 64}`` (32 unless given).
        meter: The meter; by default the best one of this machine.
        policy: The policy; :class:`greentrain.control.PricedPolicy` unless given.
        priors: File of priors of the gain, as ``greentrain priors fit`` writes it; without one,
            the default ones.
        target_metric: In place of a policy, a metric to reach with the least energy, such as
            ``0.97`` or ``"full - 0.5"`` (:class:`greentrain.control.LeastEnergy`).
        tracking_uri: An MLflow tracking URI such as ``"sqlite:///mlflow.db"``, or a
            :class:`greentrain.tracking.Tracker`; ``None`` disables tracking.
        name: Name of the stream, and of its budget in the ledger. Energy spent under this name
            stays spent, also after a crash.
        shared_budget: Name of a budget that several streams share, which the first of them opens.
            ``num_experiences`` then counts the experiences of all of them.
        state_dir: Folder in which model, buffer, held-out data and everything learned are saved
            after each experience. A later process resumes from it. Without one, they end with the
            process.
        carbon: Conversion of joules to grams of CO2 equivalent; none without a zone or intensity.
        evaluation: Data that models are evaluated on.
        modes: Work and weights of the update modes.
        calibration_budget: Energy that the calibration of a share may use.
        seed: Seed of weights, order and sampling.
        shadow: Whether to run in shadow mode: decisions are only recorded while your own job
            trains, and :meth:`report_training` reports its training. Only probes use energy.
        start_by: Longest wait of an update for cleaner electricity after its experience arrived,
            such as ``"24 h"`` or ``"24 h in slices"``, or a :class:`StartBy`. It needs a provider
            of forecasts in ``carbon``. ``None`` starts each update at once.
        methods: Callbacks by name that the controller may add to a warm start, such as
            ``{"cached": FeatureCache("backbone")}``: each is offered next to the plain warm start.
        baseline_every: Number of experiences between two baseline retrainings: full retrainings
            next to the stream, paid from the budget, that measure its savings and losses. ``None``
            for none.
        team: Tag of the team in the ledger.
        project: Tag of the project in the ledger.

    Attributes:
        name: As given.
        rank: Number of this process among those of ``torchrun`` or ``srun``, 0 without them. Rank
            0 decides, measures and records, and all ranks train.

    Raises:
        ConfigurationError: If an argument or the module cannot be used, the ledger has another
            budget of this name, or the saved state is in use, unreadable or of another stream.
    """

    def __init__(
        self,
        make_model: Callable[[], LightningModule],
        *,
        budget: str | Budget,
        monitor: str,
        num_experiences: int | None = None,
        mode: Literal["max", "min"] = "max",
        buffer: Buffer | Literal["all"] | None = "all",
        ledger: str = DEFAULT_URL,
        trainer: Mapping[str, Any] | None = None,
        loader: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
        policy: Policy | None = None,
        priors: str | Path | None = None,
        target_metric: float | str | None = None,
        tracking_uri: str | Tracker | None = None,
        name: str = "stream",
        shared_budget: str | None = None,
        state_dir: str | Path | None = None,
        carbon: CarbonConfig = CarbonConfig(),  # noqa: B008 (frozen)
        evaluation: EvaluationConfig = EvaluationConfig(),  # noqa: B008 (frozen)
        modes: ModeConfig = ModeConfig(),  # noqa: B008 (frozen)
        calibration_budget: str = "1 Wh",
        seed: int = 0,
        shadow: bool = False,
        start_by: str | StartBy | None = None,
        methods: Mapping[str, Callback] | None = None,
        baseline_every: int | None = None,
        team: str | None = None,
        project: str | None = None,
    ) -> None:
        config.check_arguments(make_model, buffer, policy, meter, carbon)
        check_names(name, shared_budget, monitor, mode)
        baseline_every, seed = check_baseline_every(baseline_every), whole_seed(seed)
        if shadow:
            shadow_mode.check_shadow(
                baseline_every=baseline_every,
                eval_each_experience=evaluation.eval_each_experience,
                shared_budget=shared_budget,
            )
        waits = check_start_by(start_by, carbon.account(), shadow=shadow)
        policy = config.choose_policy(policy, target_metric, mode)
        known = None if priors is None else read_priors(priors)
        asked = parse_budget(budget, num_experiences)
        options = trainer_options(config.check_trainer_options(trainer))
        if not shadow:  # there, your own job trains
            check_learned(buffer, options)
        options, ranks = open_ranks(options, find_launch())
        check_parts(buffer)
        offered = check_methods(
            methods,
            ranks=number_of_ranks(options),
            shadow=shadow,
            callbacks=options.get("callbacks"),
        )
        leader = Leader(ranks) if ranks is not None and ranks.leads else None
        model_trainer = ModelTrainer(
            make_model,
            options=options,
            loader=loader or {},
            modes=modes,
            seed=seed,
            together=None if leader is None else leader.together,
        )
        settings = {
            "name": name,
            "shared_budget": shared_budget,
            "budget": str(asked),
            "num_experiences": asked.num_experiences,
            "monitor": monitor,
            "mode": mode,
            **dataclasses.asdict(evaluation),
            "buffer": buffer if isinstance(buffer, str) else type(buffer).__name__,
            "policy": repr(policy) if policy else "PricedPolicy()",
            "priors": None if known is None else known.as_dict()["modes"],
            "seed": seed,
            "shadow": shadow,
            "baseline_every": baseline_every,
            "start_by": None if waits is None else str(waits),
            "team": check_tag(team, "team"),
            "project": check_tag(project, "project"),
            "epochs": options["max_epochs"],
            "batch_size": model_trainer.plan.batch_size,
            **dataclasses.asdict(modes),
            **({"methods": offered.settings} if offered.names else {}),
        }
        check_intensity(asked, carbon.account())
        evaluator = Evaluator(monitor=monitor, options=options, loader=model_trainer.loader)
        appends = ranks is None or ranks.leads
        kept = config.open_buffer(buffer, state_dir, seed, appends=appends)
        held_out = HeldOut(evaluation.eval_on, seed=seed)
        more_is_better = mode == "max"
        state = StreamState(
            model=CurrentModel(model_trainer.fresh_model),
            data=StreamData(kept),
            held_out=held_out,
            probe=Probe(evaluator, held_out, seed=seed),
            history=MetricHistory(more_is_better=more_is_better),
            controller=BudgetController(policy=policy, utility=UtilityModel(known)),
            per_experience=PerExperienceMetrics(more_is_better=more_is_better)
            if evaluation.eval_each_experience
            else None,
            methods=offered,
        )
        if not shadow:
            check_callbacks(options.get("callbacks"), monitor=monitor)
            check_module(state.model.module, monitor=monitor)
        self.name = name
        parts = (state, model_trainer, evaluator, asked)
        given: dict[str, Any] = {
            "ledger": ledger,
            "state_dir": state_dir,
            "calibration": parse_calibration_budget(calibration_budget, asked),
            "meter": meter,
            "carbon": carbon,
            "settings": settings,
        }
        self._runner: StreamRunner | Follower
        if ranks is None:
            tracker = config.open_tracker(tracking_uri)
            self._runner = open_runner(*parts, tracker=tracker, start_by=waits, **given)
        else:
            check_ranks(ranks, settings, state.model.module, options, buffer, state_dir)
            tracker = config.open_tracker(tracking_uri if ranks.leads else None)
            self._runner = open_on_ranks(
                ranks, leader, *parts, tracker=tracker, options=options, **given
            )
        self.rank = 0 if ranks is None else ranks.rank

    @property
    def budget(self) -> Budget:
        """The budget; a share has joules once the calibration has sized it."""
        return self._runner.budget.budget

    @property
    def model(self) -> LightningModule:
        """The current model: saved or updated, or with fresh weights before the first update."""
        return self._runner.state.model.module

    @property
    def matrix(self) -> AccuracyMatrix | None:
        """Scores after each experience on each; ``None`` unless ``eval_each_experience``."""
        metrics = self._runner.state.per_experience
        return None if metrics is None else metrics.matrix

    @property
    def run_id(self) -> str | None:
        """Id of this stream's run in the ledger; ``None`` before the first experience."""
        run = self._runner.run
        return None if run is None else run.run.run_id

    @property
    def results(self) -> deque[UpdateResult]:
        """The results of the last thousand experiences of this process."""
        return self._runner.results

    @property
    def baselines(self) -> deque[UpdateResult]:
        """The results of the last thousand baseline retrainings of this process."""
        return self._runner.baselines

    @property
    def known(self) -> Collection[str]:
        """Ids of the experiences so far, those of a saved state included."""
        return self._runner.state.data.known

    def run(
        self,
        stream: Iterable[Experience],
        *,
        on_result: Callable[[Experience, UpdateResult], None] = lambda experience, result: None,
    ) -> list[UpdateResult]:
        """Update on each experience of a stream, one after the other.

        Experiences with a known id are skipped.

        Args:
            stream: The experiences; it may never end.
            on_result: Called after each update.

        Returns:
            The results, the last thousand at most.

        Raises:
            ConfigurationError: As for :meth:`update`.
        """
        results: deque[UpdateResult] = deque(maxlen=RESULTS_KEPT)
        for experience in stream:
            if experience.id not in self.known:
                results.append(self.update(experience))
                on_result(experience, results[-1])
        return list(results)

    def update(self, experience: Experience) -> UpdateResult:
        """Decide about an experience, and carry the decision out.

        With a ``state_dir``, a killed update has no effect except the joules that it used, and a
        finished one is saved.

        Args:
            experience: The new experience.

        Returns:
            The decision, and its outcome.

        Raises:
            ConfigurationError: If the experience cannot be used, or the model does not log the
                monitored metric.
        """
        return self._runner.update(experience)

    def report_training(
        self,
        model: LightningModule,
        *,
        update_mode: str = "FULL_RETRAIN",
        steps: int | None = None,
        energy_j: float | None = None,
    ) -> UpdateResult:
        """Report your job's training on the last experience, in shadow mode.

        The model becomes the current one, its metric is measured, and the controller learns from
        its cost and gain. If nothing is reported before the next experience, or before
        :meth:`close`, the job counts as having trained nothing, and the data remain pending.

        Args:
            model: The trained model, of which only the weights are used.
            update_mode: The job's update mode: ``"FULL_RETRAIN"``, ``"WARM_START"``,
                ``"REPLAY"`` or ``"FINE_TUNE"``.
            steps: Its optimizer steps, in batches of the stream's ``batch_size``; by default the
                usual steps of the update mode.
            energy_j: Joules that it used, such as ``EnergyMonitor`` measures; ``None`` if unknown.
                They are charged to no budget.

        Returns:
            The decision of shadow mode, and the outcome of the job.

        Raises:
            ConfigurationError: If no decision is pending, or an argument cannot be used.
        """
        asked = self._runner.pending
        if asked is None:
            raise ConfigurationError(
                "report_training was called and no decision is pending; call it once after each "
                "update of a StreamTrainer with shadow=True"
            )
        model = shadow_mode.check_model(self.model, model)
        reported = shadow_mode.check_report(
            self._runner.trainer.plan, asked.context.data, update_mode, steps, energy_j
        )
        return self._runner.report(model, reported)

    def close(self) -> None:
        """Close the run, the ledger, the meter and the tracker; calling it again is harmless."""
        self._runner.close()

    def __enter__(self) -> StreamTrainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self._runner.run is not None:
            self._runner.run.failed = True
        self.close()
