"""Refuse a module or a callback that an update cannot work with, before anything is paid."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import EarlyStopping
from torch.optim.lr_scheduler import ReduceLROnPlateau

from greentrain.callbacks import LearnBuffer
from greentrain.errors import ConfigurationError
from greentrain.evaluation.evaluator import isolated_rng, quiet
from greentrain.memory import LearnedBuffer
from greentrain.texts import get_logger
from greentrain.training.colliding_callbacks import collide
from greentrain.training.fit import as_list
from greentrain.training.fit_callbacks import has_finite_weights
from greentrain.training.stream_state import weight_norm

_NO_VALIDATION = "and the fits of an update run no validation"
_log = get_logger(__name__)


def check_validation_step(model: LightningModule) -> None:
    """Refuse a ``validation_step`` that cannot be called with one loader.

    Raises:
        ConfigurationError: If it has a ``dataloader_idx`` without a default. ``Trainer.validate``
            raises an error for it, too.
    """
    index = inspect.signature(model.validation_step).parameters.get("dataloader_idx")
    if index is not None and index.default is inspect.Parameter.empty:
        raise ConfigurationError(
            f"validation_step of {type(model).__name__} needs a dataloader_idx, which Lightning "
            "does not pass for a single loader; give it a default: dataloader_idx=0"
        )


def check_module(model: LightningModule, *, monitor: str, logged: Collection[str] = ()) -> None:
    """Refuse a module whose weights or learning rate an update cannot work with.

    Args:
        model: The module with its layers.
        monitor: The metric, which is logged in validation.
        logged: All names that are logged in validation, if they are known.

    Raises:
        ConfigurationError: If its weights have no norm, its learning rate follows a metric of
            validation, or its ``validation_step`` needs several loaders.
    """
    check_validation_step(model)
    name = type(model).__name__
    try:
        weight_norm(model)
        has_finite_weights(model)
    except (RuntimeError, TypeError) as error:
        types = ", ".join(sorted({str(each.dtype) for each in model.parameters()}))
        raise ConfigurationError(
            f"the weights of {name} ({types}) cannot be compared between updates: {error}; give "
            "it weights of real or complex numbers"
        ) from error
    if not model.automatic_optimization:
        return  # it steps its schedules itself
    for plateau in _plateaus(_configured(model)):
        followed = plateau.get("monitor")
        if plateau.get("strict", True) and (
            followed in logged or _is_of_validation(followed, monitor)
        ):
            raise ConfigurationError(
                f"configure_optimizers of {name} returns a ReduceLROnPlateau of "
                f"{followed!r}, {_NO_VALIDATION}; give it a metric that training_step alone logs, "
                "or use a schedule of steps, such as OneCycleLR"
            )


def check_learned(buffer: object, options: Mapping[str, Any]) -> None:
    """Refuse a buffer that learns from its data, if no callback of the Trainer lets it learn.

    Args:
        buffer: The buffer.
        options: Options of the Trainer.

    Raises:
        ConfigurationError: If there is no ``LearnBuffer`` of this buffer.
    """
    if not isinstance(buffer, LearnedBuffer):
        return
    callbacks = as_list(options.get("callbacks"))
    if not any(isinstance(each, LearnBuffer) and each.buffer is buffer for each in callbacks):
        raise ConfigurationError(
            f"buffer is a {type(buffer).__name__} that nothing trains, so it would keep all data "
            "as they are; give trainer={'callbacks': [LearnBuffer(buffer)]} with the same buffer"
        )


def check_callbacks(callbacks: object, *, monitor: str) -> None:
    """Refuse an ``EarlyStopping`` on a metric of validation, and callbacks that collide.

    Args:
        callbacks: The option ``callbacks`` of the Trainer.
        monitor: The stream's metric, which is logged in validation.

    Raises:
        ConfigurationError: If there is one, or one callback is given twice, or two have one
            ``state_key``.
    """
    given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    for place, each in enumerate(given):
        if any(collide(each, other) for other in given[:place]):
            raise ConfigurationError(
                f"trainer has a {type(each).__name__} twice in its callbacks, or two with one "
                "state_key; give it once, or each another state_key"
            )
        if (
            isinstance(each, EarlyStopping)
            and each.strict
            and _is_of_validation(each.monitor, monitor)
        ):
            raise ConfigurationError(
                f"trainer has an EarlyStopping on {each.monitor!r}, {_NO_VALIDATION}; omit it, or "
                "give it a metric that training_step logs"
            )


def _configured(model: LightningModule) -> Any:
    """Return the optimizers and schedulers of a module; ``None`` if they need a Trainer."""
    try:
        with isolated_rng(), quiet():
            return model.configure_optimizers()
    except Exception as error:  # a fit calls it again, with a Trainer
        _log.debug("configure_optimizers of %s needs a Trainer: %s", type(model).__name__, error)
        return None


def _plateaus(configured: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the configuration of each ``ReduceLROnPlateau``, however it is nested."""
    if isinstance(configured, Mapping):
        if isinstance(configured.get("scheduler"), ReduceLROnPlateau):
            yield configured
        if isinstance(configured.get("lr_scheduler"), ReduceLROnPlateau):
            yield {**configured, "scheduler": configured["lr_scheduler"]}
        configured = list(configured.values())
    if isinstance(configured, (list, tuple)):
        for each in configured:
            yield from _plateaus(each)


def _is_of_validation(name: object, monitor: str) -> bool:
    return isinstance(name, str) and (name == monitor or name.lower().startswith("val"))
