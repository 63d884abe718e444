"""Estimate the energy of a fit from a few measured steps, before it begins."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from greentrain.callbacks.base import Callback
from greentrain.callbacks.measured_steps import FEWEST_STEPS, MeasuredSteps, check_seconds
from greentrain.callbacks.no_autolog import no_autolog
from greentrain.energy import (
    Forecast,
    Meter,
    StepForecast,
    WindowRecorder,
    close_meter,
    start_meter,
)
from greentrain.errors import ConfigurationError
from greentrain.units import format_carbon, format_energy, is_whole, utc_now

_WARM_UP_STEPS = 2
_MOST_STEPS = 20_000
_SET_HERE = ("callbacks", "enable_checkpointing", "logger", "max_epochs", "max_steps", "max_time")
_QUIET = {
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "logger": False,
    "num_sanity_val_steps": 0,
    "profiler": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitEstimate:
    """Expected energy of a fit.

    Args:
        fit: Joules of the fit, with its validations if they were measured.
        step: Joules of one batch, as the mean over the fit.
        steps: Batches of the fit.
        measured_steps: Number of measured batches.
        complete: Whether all sources of the meter gave joules; otherwise each figure is of the
            measured part.
        emissions_g: Grams of CO2 equivalent of ``fit``, by the intensity of the moment; ``None``
            without a zone.
        used_j: Joules that the estimate itself used.
        ledger_url: Ledger that has the estimate as a run; ``None`` if no ledger has it.
    """

    fit: Forecast
    step: Forecast
    steps: int
    measured_steps: int
    complete: bool
    emissions_g: float | None
    used_j: float | None
    ledger_url: str | None

    def __str__(self) -> str:
        """Return one line with the energy, its interval and the grams."""
        low, mean, high = (
            format_energy(each) for each in (self.fit.low_j, self.fit.mean_j, self.fit.high_j)
        )
        grams = "" if self.emissions_g is None else f", {format_carbon(self.emissions_g)}"
        part = "" if self.complete else " in the measured part"
        return f"{mean}{part} for {self.steps} steps (95 %: {low} to {high}){grams}"


def estimate_fit(
    model: Any,
    train_dataloaders: Any,
    val_dataloaders: Any = None,
    *,
    trainer: Mapping[str, Any],
    seconds: float = 3.0,
    meter: Meter | None = None,
    ledger: str | bool = True,
    zone: str | None = None,
    pue: float | None = None,
) -> FitEstimate:
    """Train some steps of a copy of a model, and predict the energy of the whole fit.

    The model, the global random state and the generators of the loaders are as before. The energy
    of the estimate is a separate run in the ledger, named ``estimate of`` the model's class. Your
    callbacks (those of the model too), loggers, profiler and ``mlflow.autolog()`` are left out.
    Hooks of the model run. A fit that ends early, such as by ``max_time``, uses less.

    Args:
        model: The model; a copy of it is trained.
        train_dataloaders: A loader with a length, as for ``Trainer.fit``.
        val_dataloaders: Loaders for the validation; each epoch is expected to have one. It is
            measured once, and is no part of the estimate if ``None``.
        trainer: Options of the Trainer, with ``max_epochs`` and perhaps ``max_steps``.
        seconds: Seconds to measure; at least 24 batches are measured.
        meter: The meter; by default the best one of this machine.
        ledger: As for :class:`EnergyMonitor`.
        zone: Electricity zone of this machine, such as ``"DE"``.
        pue: Power usage effectiveness of the building.

    Raises:
        ConfigurationError: If an argument cannot be used, the model cannot be copied, the training
            would run in several processes, or the meter gives no joules.

    Example:
        >>> estimate_fit(object(), [], trainer={"max_epochs": 1})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        greentrain.errors.ConfigurationError: model is of type object; it must be ...
    """
    from greentrain.callbacks.energy_monitor import EnergyMonitor

    package = _package_of(model)
    epochs = _check(trainer, train_dataloaders, seconds)
    given = {key: value for key, value in trainer.items() if key not in _SET_HERE} | _QUIET
    with isolate_rng(), _same_generators(train_dataloaders, val_dataloaders), no_autolog():
        trained = _copied(model)
        meter_in_use = start_meter(meter)
        try:
            monitor = EnergyMonitor(
                meter_in_use,
                name=f"estimate of {type(model).__name__}",
                ledger=ledger,
                zone=zone,
                pue=pue,
                log=False,
                summary=False,
            )
            steps = _AfterWarmUp(WindowRecorder(meter_in_use), seconds)
            callbacks = [monitor, steps]
            fitting = package.Trainer(
                **{**given, "limit_val_batches": 0}, max_epochs=-1, callbacks=callbacks
            )
            if fitting.num_devices * fitting.num_nodes > 1:
                raise ConfigurationError(
                    "trainer uses several processes, and an estimate measures a single one; set "
                    "devices=1 and num_nodes=1"
                )
            fitting.fit(trained, train_dataloaders=train_dataloaders)
            each = int(fitting.num_training_batches)
            batches = _batches(trainer, epochs, each)
            validation_j = 0.0
            if val_dataloaders is not None:
                validating = package.Trainer(**given, callbacks=[monitor])
                validating.validate(trained, val_dataloaders, verbose=False)
                validation_j = monitor.totals["validate"].total_j or 0.0
        finally:
            if meter is None:
                close_meter(meter_in_use)
    if steps.measured is None or monitor.total.total_j is None:
        raise ConfigurationError(
            "no meter of this machine gives joules, so there is no estimate; 'greentrain doctor' "
            "shows the reasons"
        )
    of_steps = steps.measured.step_forecast(0.0)
    whole = StepForecast(
        parts_j=of_steps.parts_j, part_steps=of_steps.part_steps, fixed_j=validation_j
    ).predict(batches, fits=max(1, batches // each))
    now = utc_now()
    return FitEstimate(
        fit=whole,
        step=of_steps.predict(batches).times(1 / batches),
        steps=batches,
        measured_steps=len(steps.measured.used_j),
        complete=monitor.total.complete,
        emissions_g=monitor.carbon.emissions(whole.mean_j, now, now).grams,
        used_j=monitor.total.total_j,
        ledger_url=monitor.ledger_url,
    )


class _AfterWarmUp(Callback):
    """Measure steps after two that warm up."""

    def __init__(self, recorder: WindowRecorder, seconds: float) -> None:
        self.measured: MeasuredSteps | None = None
        self._recorder = recorder
        self._seconds = seconds
        self._seen = 0

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Begin after the warm-up, and then read the meter at each step."""
        self._seen += 1
        if self._seen >= _MOST_STEPS:  # a meter whose clock does not move would never be enough
            trainer.should_stop = True
        if self.measured is not None:
            self.measured.on_train_batch_end(trainer)
        elif self._seen >= _WARM_UP_STEPS:
            self.measured = MeasuredSteps(
                self._recorder, enough_steps=FEWEST_STEPS, enough_s=self._seconds
            )


def _package_of(model: object) -> Any:
    """Return the Lightning package of a model: there are two, and each has its own Trainer."""
    if isinstance(model, pytorch_lightning.LightningModule):
        return pytorch_lightning
    if any(each.__module__.startswith("lightning.pytorch.") for each in type(model).__mro__):
        from lightning import pytorch

        return pytorch
    raise ConfigurationError(
        f"model is of type {type(model).__name__}; it must be a LightningModule"
    )


def _check(trainer: object, loader: object, seconds: object) -> int:
    """Return the epochs of the fit."""
    if not isinstance(trainer, Mapping):
        raise ConfigurationError(
            f"trainer is of type {type(trainer).__name__}; give the options of your Trainer "
            "instead: trainer={'max_epochs': 10, 'accelerator': 'auto'}"
        )
    epochs = trainer.get("max_epochs")
    if not is_whole(epochs, 1):
        raise ConfigurationError(
            f"trainer has max_epochs={epochs!r}; give the epochs of the fit, 1 or more"
        )
    check_seconds(seconds)
    try:
        length = len(loader)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigurationError(
            "train_dataloaders has no length, so the number of steps is unknown; give a loader "
            "with a length"
        ) from None
    if not length:
        raise ConfigurationError("train_dataloaders has no batch, so there is nothing to measure")
    return int(epochs)


def _copied(model: Any) -> Any:
    try:
        copied = copy.deepcopy(model)
        copied.configure_callbacks = list  # they may write files
        return copied
    except Exception as error:  # a module may hold anything
        raise ConfigurationError(
            f"the model cannot be copied, and an estimate must not change it: {error}"
        ) from error


def _batches(trainer: Mapping[str, Any], epochs: int, each: int) -> int:
    """Return the batches of the fit, which ``max_steps`` may end before its last epoch."""
    most = trainer.get("max_steps", -1)
    if not is_whole(most, 1):
        return epochs * each
    accumulated = int(trainer.get("accumulate_grad_batches", 1))
    updates = -(-each // accumulated)  # the last batches of an epoch are an update too
    whole, rest = divmod(int(most), updates)
    return min(epochs * each, whole * each + rest * accumulated)


def _each(loaders: Any) -> Iterator[Any]:
    """Yield all loaders in nested collections of them."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        for one in loaders:
            yield from _each(one)
    else:
        yield loaders


@contextmanager
def _same_generators(*loaders: Any) -> Iterator[None]:
    """Restore the random generators of loaders at the end of a block."""
    found = []
    for each in _each(loaders):
        samplers = [getattr(each, name, None) for name in ("sampler", "batch_sampler")]
        samplers.append(getattr(samplers[1], "sampler", None))
        for holder in (each, *samplers):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                found.append((generator, generator.get_state()))
    try:
        yield
    finally:
        for generator, state in found:
            generator.set_state(state)
