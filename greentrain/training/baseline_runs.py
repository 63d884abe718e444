"""Controls: measured full retrainings beside a stream, which say what it really saves and loses."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from pytorch_lightning import LightningModule

from greentrain.callbacks import BudgetGuard
from greentrain.control import (
    Action,
    BudgetController,
    Candidate,
    Decision,
    Estimate,
    Option,
    Reason,
    UpdateMode,
    decided,
)
from greentrain.control.decision import unweighed
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.evaluation.measured import Measured
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.evaluation.probe import Probe
from greentrain.memory import SampleList, size
from greentrain.payments import MIN_RESERVATION_J, paying
from greentrain.training.data import StreamData, UpdateData
from greentrain.training.fit_callbacks import StopOnNan, healthy
from greentrain.training.result import UpdateResult
from greentrain.training.update_context import UpdateContext
from greentrain.training.updater import Updater
from greentrain.units import format_energy

PHASE = "control"
_FULL = Action(mode=UpdateMode.FULL_RETRAIN)
_log = logging.getLogger(__name__)


class BaselineRuns:
    """Retrain in full beside the stream at every k-th experience, and keep the better model.

    A control trains on the data that the stream holds after the experience, from fresh weights and
    with a seed of its own, and both models are measured on the same held-out samples. It is paid
    from the stream's budget. What it trained is thrown away, unless it is better by more than one
    standard error: then it becomes the current model, as what has been paid for should be used.

    Args:
        every: How many experiences there are from one control to the next; ``None`` for none.
        updater: Has the current model, and trains.
        controller: Predicts what a full retraining draws, and learns what it drew.
        material: The data.
        probe: Knows what validations draw.
        progress: What was reached so far.
        on_kept: Is told of a model that became the current one, while it is still paid for.

    Raises:
        ConfigurationError: If ``every`` is no whole number, 1 or more.
    """

    def __init__(
        self,
        every: int | None,
        *,
        updater: Updater,
        controller: BudgetController,
        material: StreamData,
        probe: Probe,
        progress: MetricHistory,
        on_kept: Callable[[LightningModule], None] = lambda model: None,
    ) -> None:
        if every is not None and (
            isinstance(every, bool) or not isinstance(every, int) or every < 1
        ):
            raise ConfigurationError(
                f"baseline_every is {every!r}; it is a whole number of experiences, 1 or more, or "
                "None for no controls"
            )
        self._every = every
        self._updater = updater
        self._controller = controller
        self._material = material
        self._probe = probe
        self._progress = progress
        self._on_kept = on_kept

    def due(self, position: int) -> bool:
        """Tell whether the experience of this number, from 0, gets a control; the first gets none.

        Example:
            >>> from unittest.mock import Mock
            >>> parts = ("updater", "controller", "material", "probe", "progress")
            >>> controls = BaselineRuns(3, **dict.fromkeys(parts, Mock()))
            >>> [position for position in range(10) if controls.due(position)]
            [3, 6, 9]
        """
        return self._every is not None and position > 0 and position % self._every == 0

    def run(self, turn: UpdateContext) -> tuple[UpdateContext, UpdateResult] | None:
        """Train and measure the control of an experience that has had its update.

        Args:
            turn: The turn of the experience, over but for this.

        Returns:
            Its own turn, and what came of it: the metric before is that of the stream's model, the
            one after that of the control, whether it is kept or not. ``None`` where there is no
            control: nothing is trained yet or can be judged on, or it cannot be paid.
        """
        batch, judged_on = self._data(turn), turn.judged_on
        if (
            batch is None
            or judged_on is None
            or not size(judged_on)
            or not self._updater.trained
            or not self._controller.cost.calibrated
        ):
            return _left_out(turn, "there is nothing to train on or to compare with")
        steps = self._updater.modes.steps(_FULL, n_new=batch.n_new, n_stored=0)
        cost_j = self._controller.cost.predict(_FULL.mode, steps)
        look_j = max(2.0 * self._probe.validation_j, MIN_RESERVATION_J)
        decision = _decision(steps, cost_j, cost_j.upper + look_j)
        reserved_j = decision.cost_j.upper
        try:
            reservation = turn.account.reserve(reserved_j, f"control of {turn.experience.id}")
        except BudgetExceeded as error:
            return _left_out(turn, str(error))
        recorder = turn.session.recorder
        control = turn.control(reservation)
        control.decided(decision, turn.state)
        with paying(
            turn.account, recorder, reserved_j=reserved_j, reservation=reservation
        ) as payment:
            with recorder.phase("probe"):
                (before,) = self._updater.measured([judged_on])
            looked_j = payment.actual_j
            left_j = max(reserved_j - looked_j, MIN_RESERVATION_J)
            guard = BudgetGuard(
                left_j,
                meter=recorder,
                anneal=not self._updater.modes.average,
                keep_j=min(look_j, 0.5 * left_j),
            )
            health = StopOnNan()
            with recorder.phase(PHASE):
                model = self._updater.train(
                    Candidate(action=_FULL, steps=steps),
                    batch,
                    position=-2 - turn.position,  # no update of the stream has its random numbers
                    callbacks=[guard, health],
                )
                (after,) = self._updater.measured([judged_on], model)
                kept = not health.tripped and healthy(model) and self._better(before, after)
                if kept:
                    self._keep(model, after)
        self._controller.cost.observe(_FULL.mode, guard.steps, payment.actual_j - looked_j)
        return control, control.measured(
            decision, payment, before=before.value, after=after.value, steps=guard.steps, kept=kept
        )

    def _data(self, turn: UpdateContext) -> UpdateData | None:
        """Return all that the stream holds now, the experience at hand included."""
        memory = self._material.memory
        held = turn.experience.train if memory is None else memory.select(lambda origin: True)
        return UpdateData(new=held, stored=SampleList([]), held=held) if size(held) else None

    def _better(self, before: Measured, after: Measured) -> bool:
        """Tell whether what the stream has is worse by more than one standard error."""
        return math.isfinite(after.value) and self._progress.worse(after, before)

    def _keep(self, model: LightningModule, after: Measured) -> None:
        self._updater.keep(model, _FULL)
        self._progress.take(after.value)
        self._material.pending = []  # it was trained on what waited
        self._on_kept(model)


def _left_out(turn: UpdateContext, why: str) -> tuple[UpdateContext, UpdateResult] | None:
    _log.warning("no control at experience %s: %s", turn.experience.id, why)
    return None


def _decision(steps: int, cost_j: Estimate, upper_j: float) -> Decision:
    estimate = Estimate(mean=cost_j.mean, sd=cost_j.sd, upper=upper_j)
    option = Option(
        candidate=Candidate(action=_FULL, steps=steps),
        cost_j=estimate,
        gain=Estimate(mean=0.0, sd=0.0, upper=0.0),
    )
    sentence = (
        "a full retraining beside the stream, to measure what it saves and loses; it is expected "
        f"to draw {format_energy(cost_j.mean)}"
    )
    return decided(option, Reason.BASELINE, sentence, alternatives=unweighed([option]))
