"""Fresh Lightning Trainers, one for each fit and each look, from the user's options."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from greentrain.callbacks.auto import AutoEnergyMonitor
from greentrain.errors import ConfigurationError

OURS = ("max_steps", "min_steps", "max_time", "limit_train_batches")
"""Trainer options that greentrain sets, because they are what it decides."""

_QUIET = tuple(
    f"{package}.{module}"
    for package in ("pytorch_lightning", "lightning.pytorch")  # whose names both are in use
    for module in ("utilities.rank_zero", "accelerators.cuda")
)
_NOISE = (
    r".*does not have many workers.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*you defined a `validation_step` but have no `val_dataloader`.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the user's Trainer options.

    Raises:
        ConfigurationError: If one of them is greentrain's to set, or ``max_epochs`` is no number.
    """
    taken = sorted(set(OURS) & set(options))
    if taken:
        raise ConfigurationError(
            f"trainer has {', '.join(taken)}, which the controller decides; give max_epochs, the "
            "usual number of epochs of a full retraining"
        )
    epochs = options.get("max_epochs", 10)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ConfigurationError(
            f"trainer has max_epochs={epochs!r}; it is the usual number of epochs of a full "
            "retraining, 1 or more"
        )
    return {**options, "max_epochs": epochs}


def fit(
    model: LightningModule,
    loader: DataLoader[Any],
    *,
    steps: int,
    options: Mapping[str, Any],
    callbacks: Sequence[Callback],
    logger: Any = None,
) -> Trainer:
    """Train a model for a number of steps with one fresh Trainer, and return the Trainer."""
    given = _without(options, "max_epochs")
    loggers = [*_as_list(given.pop("logger", None)), *_as_list(logger)]
    callbacks = [*_as_list(given.pop("callbacks", None)), *callbacks]
    with _quiet():
        trainer = Trainer(
            **{
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **given,
            },
            max_steps=steps,
            max_epochs=math.ceil(steps / len(loader)),
            num_sanity_val_steps=0,
            logger=loggers or False,
            callbacks=callbacks,
        )
        _only_ours(trainer)
        trainer.fit(model, train_dataloaders=loader)
    return trainer


def look(
    model: LightningModule,
    dataset: Dataset[Any],
    *,
    monitor: str,
    options: Mapping[str, Any],
    loader: Mapping[str, Any],
) -> float:
    """Return the metric that a model logs in validation on a dataset.

    Raises:
        ConfigurationError: If the model does not log it.
    """
    given = _without(options, "max_epochs", "logger", "callbacks", "enable_checkpointing")
    with _quiet():
        trainer = Trainer(
            **{"enable_progress_bar": False, "enable_model_summary": False, **given},
            enable_checkpointing=False,
            logger=False,
        )
        _only_ours(trainer)
        results = trainer.validate(model, dataloaders=DataLoader(dataset, **loader), verbose=False)
    logged = results[0] if results else {}
    if monitor not in logged:
        names = ", ".join(sorted(logged)) or "nothing"
        raise ConfigurationError(
            f"the model logs {names} in validation, and monitor={monitor!r} is not among it"
        )
    return float(logged[monitor])


def _only_ours(trainer: Trainer) -> None:
    """Take out the monitor of ``GREENTRAIN_AUTO``: a stream measures itself."""
    trainer.callbacks = [  # type: ignore[attr-defined]
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if not isinstance(callback, AutoEnergyMonitor)
    ]


def _without(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in names}


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


@contextmanager
def _quiet() -> Iterator[None]:
    # Lightning tells at each Trainer which accelerators there are; a stream has dozens of them.
    loggers = [logging.getLogger(name) for name in _QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
