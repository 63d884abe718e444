"""Measure a training of the Hugging Face Trainer, and stop it before a cap."""

from __future__ import annotations

import atexit
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from greentrain._about import DISTRIBUTION
from greentrain.budget import Budget, format_amount
from greentrain.callbacks.cap_arguments import check_budget, parse_cap
from greentrain.callbacks.fit_metrics import FitMetric, finite, is_kept
from greentrain.callbacks.run_record import RunRecord
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.energy import (
    NOTHING,
    Meter,
    Reading,
    Source,
    UnknownMeter,
    check_meter,
    energy_html,
)
from greentrain.errors import ConfigurationError
from greentrain.integrations.capped_training import CappedTraining
from greentrain.ledger import DEFAULT_URL
from greentrain.naming import check_name
from greentrain.texts import get_logger
from greentrain.tracking import names
from greentrain.units import wh

if not TYPE_CHECKING and find_spec("transformers") is not None:
    from transformers import TrainerCallback
else:
    TrainerCallback = object

_ENERGY_KEY = "greentrain.TransformersCallback.energy"
_log = get_logger(__name__)


class TransformersCallback(TrainerCallback):
    """Measure each epoch and evaluation of a Hugging Face ``Trainer``, and keep it within a cap.

    The energy of the training is divided into windows, which are recorded in a ledger: each epoch,
    each evaluation with its saving, and the time around them. The cap works as that
    of :class:`greentrain.callbacks.BudgetGuard`. It sets energy aside for one step, the most
    expensive evaluation so far and the lag of the meter. At least one step is taken, and the first
    evaluation is not known in advance. A training that is resumed from a checkpoint continues under
    the same cap.

    With several processes, the main process measures all GPUs that it can see, CPU and RAM. It
    decides for all processes. GPUs of other hosts are not measured.

    The ledger keeps the final value of the Trainer's ``metric_for_best_model``, so that reports
    compare the training with others. It is the best value if the Trainer loads the best model at
    its end, and the last one if not.

    Args:
        cap: The most that the training may use, such as ``"0.5 kWh"`` or ``"500 gCO2e"``. Omit it
            to measure only.
        meter: The source of joules, which is started and closed; by default the best meter.
        name: Name of the runs in reports; the class of the model if ``None``.
        ledger: URL of the ledger; ``None`` to record nothing.
        budget: As for :class:`greentrain.callbacks.BudgetGuard`: the name of a budget in the ledger
            that several trainings pay from.
        num_fits: Number of trainings that the budget is for.
        zone: Electricity zone of this machine, such as ``"DE"``; grams are unknown without it.
        intensity: A provider of carbon intensities, instead of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        pue_source: Source of the PUE figure.

    Attributes:
        total: Seconds and joules by source, up to the end of the last window.
        emissions_g: Grams of CO2 equivalent of ``total``; ``None`` if any are unknown.
        sources: The metered sources, known at the end of the training.
        stopped: Whether the cap ended the training.
        reason: The reason in one sentence, with amounts; empty while the cap holds.

    Raises:
        ConfigurationError: If ``transformers`` is missing, or an argument is not allowed. Also when
            the training begins, if the ledger or the present intensity cannot be used.
        BudgetExceeded: When the training begins, if the budget has nothing left.
        LedgerError: When the training begins, if the ledger cannot be written.

    Example:
        Pass it to the Trainer: ``Trainer(..., callbacks=[TransformersCallback("0.5 kWh")])``.
    """

    def __init__(
        self,
        cap: str | Budget | None = None,
        *,
        meter: Meter | None = None,
        name: str | None = None,
        ledger: str | None = DEFAULT_URL,
        budget: str | None = None,
        num_fits: int = 1,
        zone: str | None = None,
        intensity: IntensityProvider | str | None = None,
        pue: float | None = None,
        pue_source: str | None = None,
    ) -> None:
        if TrainerCallback is object:
            raise ConfigurationError(
                "TransformersCallback needs the package transformers; install the extra: "
                f"pip install '{DISTRIBUTION}[transformers]'"
            )
        check_meter(meter, "TransformersCallback(meter=...)")
        self._cap = None if cap is None else parse_cap(cap, several=budget is not None)
        if budget is not None and self._cap is None:
            raise ConfigurationError(
                f"TransformersCallback(budget={budget!r}) has no amount; give the cap too, such as "
                "cap='1 kWh'"
            )
        check_budget(ledger, budget, num_fits, "stop")
        self.carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue, pue_source=pue_source)
        if self._cap is not None and self._cap.unit == "g" and self.carbon.provenance is None:
            raise ConfigurationError(
                f"TransformersCallback(cap={str(cap)!r}) limits carbon, and the carbon intensity "
                "is unknown; add a zone such as zone='DE', or an intensity"
            )
        self.name = None if name is None else check_name(name, "name", "bert on imdb")
        self.meter = meter
        self.ledger = ledger
        self.budget = budget
        self.num_fits = int(num_fits)
        self.total: Reading = NOTHING
        self.emissions_g: float | None = None
        self.sources: tuple[Source, ...] = ()
        self.stopped = False
        self.reason = ""
        self._training: CappedTraining | None = None

    def __str__(self) -> str:
        """Return one line with energy, grams, seconds and the reason of a stop."""
        energy = "an unknown energy"
        if self.total.total_j is not None:
            energy = format_amount(self.total.total_j, "J")
            energy = energy if self.total.complete else f"at least {energy}"
        grams = self.emissions_g
        emitted = "" if grams is None else f" and emitted {format_amount(grams, 'g')}"
        used = f"the training used {energy}{emitted} in {self.total.duration_s:.2f} s"
        return f"{used}; stopped: {self.reason}" if self.stopped else used

    def _repr_html_(self) -> str:
        methods = {source.name: source.method for source in self.sources}
        return energy_html(str(self), self.total.energy_j, methods=methods, grams=self.emissions_g)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to measure, and reserve the cap."""
        self.close()  # a training that failed calls no hook at its end
        self.total, self.emissions_g, self.sources = NOTHING, None, ()
        self.stopped, self.reason = False, ""
        model = kwargs.get("model")
        name = self.name or ("training" if model is None else type(model).__name__)
        main = bool(state.is_world_process_zero)
        self._training = CappedTraining(
            self.meter if main else UnknownMeter(),
            RunRecord(self.ledger if main else None, self.carbon, required=True),
            self.carbon,
            name,
        )
        atexit.register(self.close)
        if state.global_step > 0:  # resumed
            held = state.stateful_callbacks.get(_ENERGY_KEY)
            self._training.resume_after(finite(held.get("j")) if isinstance(held, dict) else None)
        if self._cap is not None:
            try:
                before = state.stateful_callbacks.get(self._state_key, {})
                self._training.begin_cap(self._cap, self.budget, self.num_fits, before)
            except BaseException:
                self.close()
                raise

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the window of an epoch."""
        if self._training is not None:
            self._training.resume()
            self._training.recorder.enter("train_epoch", epoch=int(state.epoch or 0))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the window of the evaluation before the step."""
        if self._training is not None:
            self._training.resume()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the training if the cap does not pay for another step."""
        training = self._training
        if training is None:
            return
        training.steps += 1
        if training.is_due():
            self._check(training, state, control)
        self._note(state, control)
        training.pause(control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the training if the cap does not pay for another step and evaluation."""
        training = self._training
        if training is not None and training.resume():
            self._check(training, state, control)
            self._note(state, control, always=True)  # a best model is saved from here on
            training.pause(control, saves=True)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the window of the epoch; evaluation and saving follow."""
        if self._training is not None:
            self._training.resume()
            self._training.recorder.leave()
            self._note(state, control)
            self._training.pause(control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the energy so far to what is logged."""
        training = self._training
        if training is None or logs is None:
            return
        known_j = training.used_reading().total_j
        metrics = {} if known_j is None else {names.ENERGY_TOTAL: round(wh(known_j), 6)}
        logs.update(metrics)
        if state.log_history:
            state.log_history[-1].update(metrics)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the measurement, and report a cap that was exceeded."""
        if self._training is None:
            return
        training = self._training
        if training.knows_all:
            training.record.metrics = _final_metric(args, state)
        self.close("completed")
        if self._cap is not None and training.use.left < -1e-9:
            self.reason = training.use.exceeded
            _log.warning("TransformersCallback: %s", self.reason)

    def close(self, status: str = "failed") -> None:
        """End the measurement of a training that raised an exception; harmless if repeated."""
        training, self._training = self._training, None
        if training is None:
            return
        atexit.unregister(self.close)
        training.record.stopped = self.stopped
        training.close(status)
        self.total, self.emissions_g = training.total, training.emissions_g
        self.sources = training.sources

    @property
    def _state_key(self) -> str:
        unit = None if self._cap is None else self._cap.unit
        return f"greentrain.TransformersCallback of {unit}"

    def _note(self, state: Any, control: Any, *, always: bool = False) -> None:
        """Add the use so far to the state of the Trainer, which a checkpoint includes."""
        if self._training is None or not (control.should_save or always):
            return
        if self._cap is not None:
            state.stateful_callbacks[self._state_key] = self._training.state()
        state.stateful_callbacks[_ENERGY_KEY] = {"j": self._training.used_since_begin_j()}

    def _check(self, training: CappedTraining, state: Any, control: Any) -> None:
        last = control.should_training_stop or state.global_step >= state.max_steps
        if self._cap is None or last:
            return
        needed_j, stops = training.check()
        if stops:
            control.should_training_stop = self.stopped = True
            self.reason = training.use.no_room(training.steps, "an evaluation", needed_j)
            if state.is_world_process_zero:
                _log.warning("TransformersCallback stops the training: %s", self.reason)


def _final_metric(args: Any, state: Any) -> list[FitMetric]:
    """Return the metric that the Trainer chooses models by, of the model that it ends with."""
    metric = getattr(args, "metric_for_best_model", None)
    if not isinstance(metric, str):
        return []
    name = metric if metric.startswith("eval_") else f"eval_{metric}"
    value = next((one[name] for one in reversed(state.log_history) if name in one), None)
    if args.load_best_model_at_end and state.best_model_checkpoint is not None:
        value = state.best_metric
    number = finite(value)
    if number is None or not is_kept(name):
        return []
    greater = args.greater_is_better
    mode = None if greater is None else "max" if greater else "min"
    return [{"name": name, "value": number, "mode": mode}]
