"""Measure the metric that a model logs in validation, without a Trainer where possible."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import Dataset, Subset

from greentrain.callbacks.auto_monitor import AutoBudgetGuard, AutoEnergyMonitor
from greentrain.errors import ConfigurationError
from greentrain.evaluation.comparison import Measured, combine
from greentrain.evaluation.fast_eval import MetricListener, fast_evaluation, ordered_loader
from greentrain.evaluation.signals.features import FeatureTap
from greentrain.memory import concat, size

PARTS = 10
"""Smallest number of blocks of a validation, if there are enough samples."""
_SMALLEST_BLOCK = 8
_LARGER = 2
_FULL_PRECISION = ("32", "32-true", "None")
_NOT_FOR_EVALUATION = (
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
_QUIET = tuple(
    f"{package}.{module}"
    for package in ("pytorch_lightning", "lightning.pytorch")  # both names are in use
    for module in ("utilities.rank_zero", "accelerators.cuda")
)
_NOISE = (
    r".*does not have many workers.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*you defined a `validation_step` but have no `val_dataloader`.*",
    r".*returned `None`, this fit will run with no optimizer.*",  # refused by greentrain itself
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


class Evaluator:
    """Measure models on datasets.

    Args:
        monitor: Name of the metric that the models log in validation.
        options: The user's options of the Trainer.
        loader: The user's options of the loader, ``batch_size`` among them.

    Attributes:
        monitor: As given.
        known: Whether the models are known to log the metric. Then data on which they log no value
            have the value NaN: a recall may be logged only for batches with a positive sample.
        logged: The names that the last validation by a Trainer logged.
    """

    def __init__(
        self, *, monitor: str, options: Mapping[str, Any], loader: Mapping[str, Any]
    ) -> None:
        self.monitor = monitor
        self._options = options
        self._loader = loader
        self._fast = _runs_plainly(options)
        self.known = False
        self.logged: frozenset[str] = frozenset()

    def check(self, model: LightningModule, dataset: Dataset[Any]) -> None:
        """Check that a model logs the metric, on one sample if possible.

        Raises:
            ConfigurationError: If the model does not log the metric.
        """
        try:
            self.metric(model, Subset(dataset, [0]))
        except ConfigurationError:
            self.metric(model, dataset)

    def metric(self, model: LightningModule, dataset: Dataset[Any]) -> float:
        """Return the metric of a model on a dataset, as ``Trainer.validate`` gives it.

        The batches are the user's own: some metrics depend on their size.

        Raises:
            ConfigurationError: If the model does not log the metric.
        """
        return self._validate(model, dataset, self._loader["batch_size"], split=False).value

    def measure(
        self,
        model: LightningModule,
        datasets: Sequence[Dataset[Any]],
        *,
        features: bool = False,
    ) -> list[Measured]:
        """Return the metric of a model on each dataset, with its values on blocks of samples.

        A few samples need no Trainer, if the module works without one. Otherwise each dataset is
        validated, and each batch for which the model logs a value is a block. If the model logs no
        value for a batch, the dataset is cut into ten parts that are validated one by one. The
        value of a metric that is no mean of its blocks is that of :meth:`metric`.

        Args:
            model: The model.
            datasets: The datasets; the same ones give the same blocks.
            features: Whether to capture the features of the samples.

        Raises:
            ConfigurationError: If the model does not log the metric.
        """
        parts = self._parts(model, datasets, features=features)
        return [
            part
            if part.blocks and part.is_mean
            else dataclasses.replace(part, value=self.metric(model, dataset))
            for part, dataset in zip(parts, datasets, strict=True)
        ]

    def measure_as_one(self, model: LightningModule, datasets: Sequence[Dataset[Any]]) -> Measured:
        """Return the metric of a model on several datasets as on one, see :func:`combine`."""
        measure = self.measure if len(datasets) == 1 else self._parts
        return self.as_one(model, datasets, measure(model, datasets))

    def as_one(
        self,
        model: LightningModule,
        datasets: Sequence[Dataset[Any]],
        parts: Sequence[Measured],
    ) -> Measured:
        """Return the metric on several datasets as on one, from the metric on each of them."""
        return combine(parts, whole=lambda: self.metric(model, concat(datasets)))

    def _parts(
        self,
        model: LightningModule,
        datasets: Sequence[Dataset[Any]],
        *,
        features: bool = False,
    ) -> list[Measured]:
        """Measure each dataset in blocks; the value is right only if it is their mean."""
        if self._fast:
            with isolated_rng():
                found = fast_evaluation(
                    model,
                    datasets,
                    monitor=self.monitor,
                    loader=self._loader,
                    features=features,
                )
            if found is not None:
                self.known = True
                return found
            self._fast = False  # the next call would fail in the same way
        return [self._in_blocks(model, dataset, features=features) for dataset in datasets]

    def _in_blocks(
        self, model: LightningModule, dataset: Dataset[Any], *, features: bool
    ) -> Measured:
        """Validate a model in at least ten blocks of at least 8 samples, if there are as many.

        No gradient is kept, so the blocks may be larger than the batches of training.
        """
        samples = size(dataset)
        most = _LARGER * self._loader["batch_size"]
        block = min(most, max(_SMALLEST_BLOCK, math.ceil(samples / PARTS)))
        found = self._validate(model, dataset, block, features=features)
        if found.blocks:
            return found
        length = max(1, -(-samples // PARTS))
        parts = [range(at, min(at + length, samples)) for at in range(0, samples, length)]
        blocks = [(len(part), self.metric(model, Subset(dataset, part))) for part in parts]
        return dataclasses.replace(found, blocks=tuple(blocks))

    def _validate(
        self,
        model: LightningModule,
        dataset: Dataset[Any],
        block: int,
        *,
        features: bool = False,
        split: bool = True,
    ) -> Measured:
        """Validate a model on one device; several would evaluate some samples twice."""
        samples = size(dataset)
        sizes = [min(block, samples - start) for start in range(0, samples, block)]
        listener = MetricListener(self.monitor, sizes, split=split)
        tap = FeatureTap(samples) if features else None
        callbacks: list[Callback] = [listener, *([] if tap is None else [tap])]
        if makes_layers_late(model):
            callbacks.append(KeepWeights())
        with isolated_rng(), quiet():
            trainer = validation_trainer(
                self._options,
                *callbacks,
            )
            loader = ordered_loader(dataset, {**self._loader, "batch_size": block})
            trainer.validate(model, dataloaders=loader, verbose=False)
        logged = trainer.callback_metrics
        self.logged = frozenset(logged)
        if self.monitor in listener.of_steps_only and self.monitor not in logged:
            raise ConfigurationError(of_steps_only(self.monitor))
        self.known = self.known or self.monitor in logged
        if not self.known:
            names = ", ".join(f"`{name}`" for name in sorted(logged)) or "nothing"
            raise ConfigurationError(
                f"the model logs no {self.monitor!r} in validation. It logs {names}: give one of "
                "these names as monitor, or log the metric in validation_step"
            )
        return Measured(
            value=float(logged.get(self.monitor, math.nan)),
            blocks=listener.blocks,
            loss=listener.loss,
            features={} if tap is None else tap.features,
            states=listener.states,
        )


def of_steps_only(name: str) -> str:
    """Return the error about a metric that has no value of a validation."""
    return (
        f"the model logs {name!r} in validation with on_epoch=False, so a validation has no value "
        "of it; log it with on_epoch=True, the default there"
    )


def validation_trainer(options: Mapping[str, Any], *callbacks: Callback) -> Trainer:
    """Return a Trainer that validates on one device, without the user's callbacks and loggers.

    Args:
        options: The user's options of the Trainer.
        *callbacks: Its callbacks.
    """
    given = without(options, *_NOT_FOR_EVALUATION)
    return make_trainer(
        {**given, "devices": _first_device(options.get("devices"))},
        enable_checkpointing=False,
        logger=False,
        callbacks=list(callbacks),
    )


class KeepWeights(Callback):
    """Keep the weights of a module that makes new layers at each ``setup``."""

    def __init__(self) -> None:
        self._weights: dict[str, torch.Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember the weights, before the module's own hook."""
        self._weights = dict(pl_module.state_dict())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load them; a module without any layers has nothing to keep."""
        if self._weights.keys() == pl_module.state_dict().keys():
            pl_module.load_state_dict(self._weights)


def makes_layers_late(model: LightningModule) -> bool:
    """Return whether a module has a hook in which it may make layers, after ``__init__``."""
    return any(is_overridden(hook, model, LightningModule) for hook in ("setup", "configure_model"))


def make_trainer(options: Mapping[str, Any], **ours: Any) -> Trainer:
    """Return a Trainer without progress bar, summary and the callbacks of ``GREENTRAIN_AUTO``.

    A stream measures and caps its own energy, so they would only repeat it.

    Args:
        options: The user's options.
        **ours: Options that take precedence.
    """
    silent = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**{**silent, **options, **ours})
    trainer.callbacks = [  # type: ignore[attr-defined]
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if not isinstance(callback, (AutoBudgetGuard, AutoEnergyMonitor))
    ]
    return trainer


def without(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return options without some names."""
    return {key: value for key, value in options.items() if key not in names}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages about each new Trainer: a stream creates dozens of them.

    Ctrl-C raises KeyboardInterrupt, as without a Trainer.
    """
    loggers = [logging.getLogger(name) for name in _QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message=message)
            with raising_interrupts():
                yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt where a Trainer ends the program, and restore its handler.

    After Ctrl-C, Lightning closes its callbacks, ignores each further Ctrl-C and exits.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        interrupt = error.__context__
        if not isinstance(interrupt, KeyboardInterrupt):
            raise
        if handler is not None:  # `None` if it was not installed from Python
            signal.signal(signal.SIGINT, handler)
        raise interrupt from None


def isolated_rng() -> AbstractContextManager[None]:
    """Restore the global random state of torch at the end of a block."""
    # Reading the state of CUDA before anything uses CUDA would start it in this process.
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices=range(torch.cuda.device_count() if started else 0))


def _first_device(devices: Any) -> Any:
    """Return the first of the devices that a Trainer was configured with."""
    if isinstance(devices, str) and "," in devices:
        devices = [int(each) for each in devices.split(",") if each.strip()]
    return list(devices[:1]) if isinstance(devices, (list, tuple)) else 1


def _runs_plainly(options: Mapping[str, Any]) -> bool:
    """Return whether a Trainer with these options changes nothing about a forward pass."""
    if options.get("plugins") or str(options.get("precision", 32)) not in _FULL_PRECISION:
        return False
    # Another device evaluates samples for less energy than the processor.
    accelerator = options.get("accelerator", "auto")
    others = (CUDAAccelerator, MPSAccelerator, XLAAccelerator)  # what "auto" chooses first
    return accelerator == "cpu" or (
        accelerator == "auto" and not any(other.is_available() for other in others)
    )
