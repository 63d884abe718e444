"""Estimate the energy of a stream from a few measured steps, before its budget is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytorch_lightning import LightningModule

from greentrain.callbacks.measured_steps import FEWEST_STEPS, MeasuredSteps, check_seconds
from greentrain.callbacks.no_autolog import no_autolog
from greentrain.control import Action, Candidate, UpdateMode
from greentrain.energy import Forecast, StepForecast, WindowRecorder
from greentrain.errors import ConfigurationError
from greentrain.evaluation.evaluator import Evaluator, isolated_rng
from greentrain.memory import Buffer, size
from greentrain.streams import Experience
from greentrain.training.config import ModeConfig, check_trainer_options
from greentrain.training.cost_calibration import WARM_UP_STEPS
from greentrain.training.data import StreamData
from greentrain.training.fit import ModelTrainer, number_of_ranks, trainer_options
from greentrain.training.module_checks import check_callbacks, check_module

MOST_STEPS = 20_000
SECONDS = 3.0
"""Most steps of an estimate, and its seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEstimate:
    """Expected energy of full retrainings of a stream.

    Args:
        measured: Energy of the measured steps.
        steps: Number of measured steps.
        seconds: Seconds that they took.
        complete: Whether all sources of the meter gave joules; otherwise each figure is of the
            measured part.
        full_steps: Steps of a full retraining at each experience.
        arrived: Number of experiences that have arrived; later ones are expected to be as large as
            the mean of these.
    """

    measured: StepForecast
    steps: int
    seconds: float
    complete: bool
    full_steps: tuple[int, ...]
    arrived: int

    @property
    def step(self) -> Forecast:
        """Joules of one step, as the mean over a full retraining."""
        steps = self.full_steps[0]
        whole = StepForecast(
            parts_j=self.measured.parts_j, part_steps=self.measured.part_steps
        ).predict(steps)
        return whole.times(1 / steps)

    @property
    def one(self) -> Forecast:
        """Joules of a full retraining on the first experience, its validation included."""
        return self.measured.predict(self.full_steps[0])

    @property
    def always(self) -> Forecast:
        """Joules of a full retraining at each experience, on all data so far: 100 % of full."""
        return self.measured.predict(sum(self.full_steps), fits=len(self.full_steps))

    def share(self, share: float) -> Forecast:
        """Return the joules of a share of always retraining, such as 0.25."""
        return self.always.times(share)


class StreamEstimator:
    """Train a few steps of a discarded model, and predict what full retrainings would use.

    No state is saved, and no budget is opened. The global random state of torch is restored.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights.
        experiences: The experiences that have arrived, in order.
        monitor: Name of the metric that the model logs in validation.
        num_experiences: Experiences to estimate; those that have arrived unless given.
        buffer: Past data that would be kept: ``"all"``, a buffer, or ``None`` for none.
        trainer: Options of each Trainer, as for ``StreamTrainer``.
        loader: Options of each ``DataLoader``.
        modes: Work and weights of the update modes.
        seed: Seed of weights and order.
        seconds: Seconds to measure.

    Raises:
        ConfigurationError: If an argument cannot be used, no experience has arrived, or the
            training would run in several processes.
    """

    def __init__(
        self,
        make_model: Callable[[], LightningModule],
        experiences: Sequence[Experience],
        *,
        monitor: str,
        num_experiences: int | None = None,
        buffer: Buffer | Literal["all"] | None = "all",
        trainer: Mapping[str, Any] | None = None,
        loader: Mapping[str, Any] | None = None,
        modes: ModeConfig = ModeConfig(),  # noqa: B008 (frozen)
        seed: int = 0,
        seconds: float = SECONDS,
    ) -> None:
        self._seconds = check_seconds(seconds)
        if not experiences:
            raise ConfigurationError(
                "the stream has no experience yet, so there is nothing to measure; estimate again "
                "when the first one has arrived"
            )
        self._first, self._data = experiences[0], StreamData(None).gather(experiences[0])
        options = trainer_options(check_trainer_options(trainer))
        ranks = number_of_ranks(options)
        if ranks > 1:
            raise ConfigurationError(
                f"trainer uses {ranks} processes, and an estimate measures a single one; run a "
                "short stream with a budget such as '25 % of full', whose calibration measures them"
            )
        check_callbacks(options.get("callbacks"), monitor=monitor)
        self._trainer = ModelTrainer(
            make_model, options=options, loader=loader or {}, modes=modes, seed=seed
        )
        check_module(self._trainer.fresh_model(), monitor=monitor)
        self._evaluator = Evaluator(monitor=monitor, options=options, loader=self._trainer.loader)
        self._arrived = len(experiences)
        self._full_steps = self._steps(experiences, num_experiences or len(experiences), buffer)

    def measure(self, recorder: WindowRecorder) -> StreamEstimate:
        """Train until enough is measured, and return the estimate.

        Args:
            recorder: Reads a started meter.

        Raises:
            ConfigurationError: If the meter gives no joules.
        """
        _ = recorder.sources  # waits for a meter that is being set up
        with isolated_rng(), no_autolog(), recorder.phase("estimate"):
            self._train(WARM_UP_STEPS)
            steps = MeasuredSteps(recorder, enough_steps=FEWEST_STEPS, enough_s=self._seconds)
            before = recorder.read()
            self._train(MOST_STEPS, steps)
            self._evaluator.metric(self._trainer.fresh_model(), self._first.val)
            used = recorder.read() - before
        if used.total_j is None:
            raise ConfigurationError(
                "no meter of this machine gives joules, so there is no estimate; "
                "'greentrain doctor' shows the reasons, and 'meter' in the file sets another meter"
            )
        return StreamEstimate(
            measured=steps.step_forecast(used.total_j),
            steps=len(steps.used_j),
            seconds=steps.seconds,
            complete=used.complete,
            full_steps=self._full_steps,
            arrived=self._arrived,
        )

    def _train(self, steps: int, *callbacks: MeasuredSteps) -> None:
        candidate = Candidate(action=Action(mode=UpdateMode.FULL_RETRAIN), steps=steps)
        self._trainer.train(
            candidate, self._data, weights=None, position=-1, callbacks=callbacks, discarded=True
        )

    def _steps(
        self,
        experiences: Sequence[Experience],
        count: int,
        buffer: Buffer | Literal["all"] | None,
    ) -> tuple[int, ...]:
        sizes = [size(each.train) for each in experiences[:count]]
        sizes += [round(sum(sizes) / len(sizes))] * (count - len(sizes))
        plan = self._trainer.plan
        if buffer is None:
            return tuple(plan.full_retraining_steps([each])[0] for each in sizes)
        most = None if isinstance(buffer, str) else buffer.max_size
        return tuple(plan.full_retraining_steps(sizes, max_size=most))
