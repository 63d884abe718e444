"""Fresh Lightning Trainers, one for each fit and each look, from the user's options."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from greentrain.callbacks.auto_monitor import AutoEnergyMonitor
from greentrain.errors import ConfigurationError
from greentrain.evaluation.measured import Measured, MetricListener
from greentrain.evaluation.signals.features import FeatureTap
from greentrain.memory import size
from greentrain.training.fit_callbacks import Begin
from greentrain.training.loaders import MixedBatches, look_loader

OURS = (
    "limit_train_batches",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "use_distributed_sampler",
)
"""Trainer options that greentrain sets, because they are what it decides."""
PARTS = 10
"""Blocks of a look, at least, where there are samples for them."""
_SMALLEST_BLOCK = 8
_LARGER = 2

_QUIET = tuple(
    f"{package}.{module}"
    for package in ("pytorch_lightning", "lightning.pytorch")  # whose names both are in use
    for module in ("utilities.rank_zero", "accelerators.cuda")
)
_NOISE = (
    r".*does not have many workers.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*you defined a `validation_step` but have no `val_dataloader`.*",
    r".*returned `None`, this fit will run with no optimizer.*",  # which is refused below
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


def ranks(options: Mapping[str, Any]) -> int:
    """Return how many processes a Trainer with these options trains in.

    Raises:
        ConfigurationError: If a Trainer does not know one of the options, or refuses its value.
    """
    given = _without(options, "max_epochs", "logger", "callbacks", "enable_checkpointing")
    with _quiet():
        try:
            trainer = Trainer(**{**_SILENT, **given}, enable_checkpointing=False, logger=False)
        except (TypeError, ValueError, MisconfigurationException) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(
                f"a Trainer refuses the options of trainer: {reason}"
            ) from error
    return _ranks(trainer)


def fit(
    model: LightningModule,
    loader: DataLoader[Any],
    *,
    steps: int,
    options: Mapping[str, Any],
    callbacks: Sequence[Callback],
    logger: Any = None,
) -> Trainer:
    """Train a model for a number of batches with one fresh Trainer, and return the Trainer.

    Args:
        model: The model.
        loader: The loader, with :class:`MixedBatches`, which it tells the number of ranks.
        steps: Batches to train on, on each rank. Where gradients are accumulated, fewer optimizer
            steps are made of them.
        options: The user's options of the Trainer.
        callbacks: Callbacks besides the user's own.
        logger: A logger, besides the user's own.

    Raises:
        ConfigurationError: If there is no batch, or the model has no optimizer.
    """
    given = _without(options, "max_epochs")
    loggers = [*_as_list(given.pop("logger", None)), *_as_list(logger)]
    callbacks = [*_as_list(given.pop("callbacks", None)), Begin(steps), *callbacks]
    with _quiet():
        trainer = Trainer(
            **{**_SILENT, "enable_checkpointing": False, **given},
            max_steps=steps,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=loggers or False,
            callbacks=callbacks,
        )
        _only_ours(trainer)
        batches = _share_out(loader, _ranks(trainer))  # which only a Trainer can tell
        trainer.fit_loop.max_epochs = math.ceil(steps / batches)
        trainer.fit_loop.epoch_loop.max_steps = optimizer_steps(
            steps, batches=batches, accumulate=trainer.accumulate_grad_batches
        )
        trainer.fit(model, train_dataloaders=loader)
    return trainer


def optimizer_steps(steps: int, *, batches: int, accumulate: int) -> int:
    """Return how many optimizer steps a number of batches makes.

    Gradients are accumulated over some batches; what is left at the end of an epoch makes a step.

    Args:
        steps: Batches to train on.
        batches: Batches of an epoch.
        accumulate: Batches that gradients are accumulated over.

    Example:
        >>> optimizer_steps(25, batches=10, accumulate=4)  # 4 + 4 + 2, 4 + 4 + 2, 4 + 1
        8
    """
    epochs, rest = divmod(steps, batches)
    return epochs * math.ceil(batches / accumulate) + math.ceil(rest / accumulate)


def look(
    model: LightningModule,
    dataset: Dataset[Any],
    *,
    monitor: str,
    options: Mapping[str, Any],
    loader: Mapping[str, Any],
    features: bool = False,
) -> Measured:
    """Return the metric that a model logs in validation on a dataset.

    It is read on one device: several would have to look at some samples twice to share them evenly.
    The batches are at most so large that there are ten of them, but 8 samples may be in each; no
    gradient is kept, so they may be larger than those of training.

    Args:
        model: The model.
        dataset: The dataset; its samples are looked at in their order.
        monitor: Name of the metric.
        options: The user's options of the Trainer.
        loader: The user's options of the loader.
        features: Whether to note what the model makes of the samples.

    Returns:
        The metric, with the value of each batch as a block; without blocks where the model logs
        it at the end only.

    Raises:
        ConfigurationError: If the model does not log it.
    """
    samples = size(dataset)
    most = _LARGER * loader["batch_size"]
    block = min(most, max(_SMALLEST_BLOCK, math.ceil(samples / PARTS)))
    sizes = [min(block, samples - start) for start in range(0, samples, block)]
    listener, tap = MetricListener(monitor, sizes), FeatureTap(samples)
    given = _without(options, *_NOT_FOR_A_LOOK)
    with _quiet():
        trainer = Trainer(
            **{**_SILENT, **given, "devices": _one_device(options.get("devices"))},
            enable_checkpointing=False,
            logger=False,
            callbacks=[listener, tap] if features else [listener],
        )
        _only_ours(trainer)
        blocks_of = look_loader(dataset, {**loader, "batch_size": block})
        trainer.validate(model, dataloaders=blocks_of, verbose=False)
    logged = trainer.callback_metrics
    if monitor not in logged:
        names = ", ".join(sorted(logged)) or "nothing"
        raise ConfigurationError(
            f"the model logs {names} in validation, and monitor={monitor!r} is not among it"
        )
    return Measured(
        value=float(logged[monitor]),
        blocks=listener.blocks,
        loss=listener.loss,
        features=tap.features,
    )


_SILENT = {"enable_progress_bar": False, "enable_model_summary": False}
_NOT_FOR_A_LOOK = (
    "accumulate_grad_batches",
    "callbacks",
    "devices",
    "enable_checkpointing",
    "logger",
    "max_epochs",
    "num_nodes",
    "strategy",
    "sync_batchnorm",
)


def _share_out(loader: DataLoader[Any], ranks: int) -> int:
    """Tell the batches of a loader how many ranks there are, and return how many each gets."""
    sampler = loader.batch_sampler
    if isinstance(sampler, MixedBatches):
        sampler.ranks = ranks
    if not len(loader):
        among = f" among {ranks} ranks" if ranks > 1 else ""
        raise ConfigurationError(
            f"{size(loader.dataset)} samples{among} make no full batch, and loader has "
            "drop_last=True; take a smaller batch_size, or leave the last batch in"
        )
    return len(loader)


def _ranks(trainer: Trainer) -> int:
    return trainer.num_devices * trainer.num_nodes


def _one_device(devices: Any) -> Any:
    """Return the first of the devices that a Trainer was asked for."""
    if isinstance(devices, str) and "," in devices:
        devices = [int(each) for each in devices.split(",") if each.strip()]
    return list(devices[:1]) if isinstance(devices, (list, tuple)) else 1


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
