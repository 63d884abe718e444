"""Evaluate a model on a few samples without a Trainer, which would cost more than the samples."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import wraps
from numbers import Real
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric

from greentrain.evaluation.comparison import Measured, mean
from greentrain.evaluation.metric_states import BlockStates, value_of
from greentrain.evaluation.signals.features import FeatureTap
from greentrain.memory import size
from greentrain.memory.datasets import item_columns
from greentrain.texts import get_logger

BLOCKS = 16
"""Largest number of blocks of a fast evaluation."""
_SMALLEST_BLOCK = 16
_FOR_WORKERS = ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory")
_TRAINING_ONLY = ("sampler", "drop_last")
_LOG = inspect.signature(LightningModule.log)
HOOKS = (
    "setup",
    "on_validation_model_eval",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
)
"""Hooks of a module around its ``validation_step``; one that has any of them needs a Trainer."""

_log = get_logger(__name__)


def fast_evaluation(
    model: LightningModule,
    datasets: Sequence[Dataset[Any]],
    *,
    monitor: str,
    loader: Mapping[str, Any],
    features: bool = False,
) -> list[Measured] | None:
    """Call a module's ``validation_step`` on some samples, and capture the metric that it logs.

    It runs on a copy, so that no metric object keeps the samples. A module with hooks around its
    validation is left to a Trainer, which calls them. A Trainer takes about 20 ms for the same, as
    long as some thousand samples of a small model.

    Args:
        model: The module, on the CPU.
        datasets: The samples, in their order; the same datasets give the same blocks.
        monitor: Name of the metric.
        loader: The user's options of the loader.
        features: Whether to capture the features of the samples.

    Returns:
        The metric on each dataset: the mean of its blocks, or that of a metric object over all
        samples. ``None`` if the module cannot be called like this. It needs its Trainer or another
        device, has hooks, or logs no value for a batch. Or it logs the value with ``reduce_fx=``,
        or with another ``batch_size=`` than the samples of the batch.
    """
    if any(each.device.type != "cpu" for each in model.parameters()):
        return None
    if any(is_overridden(hook, model, LightningModule) for hook in HOOKS):
        return None
    trainer = getattr(model, "_trainer", None)
    try:
        # The Trainer of the last fit, with its loaders and data, is not copied. Neither are the
        # weights, which a validation does not change.
        kept = {id(each): each for each in model.parameters()}
        module = copy.deepcopy(model, {id(trainer): None, **kept})
        module.eval()
        with torch.no_grad():
            found = [_evaluate(module, each, monitor, loader, features) for each in datasets]
    except Exception as error:  # the module may need anything that only a Trainer provides
        _log.debug("no fast evaluation of %s without a Trainer: %s", type(model).__name__, error)
        return None
    return None if any(not each.blocks for each in found) else found


def block_size(samples: int, loader: Mapping[str, Any]) -> int:
    """Return the number of samples in each block of a fast evaluation.

    Example:
        >>> block_size(512, {"batch_size": 64}), block_size(64, {"batch_size": 64})
        (32, 16)
    """
    most: int = loader["batch_size"]
    return max(1, min(most, max(_SMALLEST_BLOCK, math.ceil(samples / BLOCKS))))


def ordered_loader(dataset: Dataset[Any], loader: Mapping[str, Any]) -> DataLoader[Any]:
    """Build the loader of an evaluation: every sample once, in the order of the dataset."""
    rest = {key: value for key, value in loader.items() if key not in _TRAINING_ONLY}
    return DataLoader(dataset, **rest)


def loss_name(logged: Iterable[str], monitor: str) -> str | None:
    """Return the name of the loss among the names that a model logged in validation.

    Args:
        logged: The names, such as those of ``trainer.callback_metrics``.
        monitor: Name of the metric that the model is evaluated by.

    Returns:
        ``"val_loss"`` if there is one; else ``monitor`` if it contains "loss". Else the names that
        contain "loss", those that begin with "val" first, the shortest first: parts of a loss
        (``val_loss_box``) are seldom the shortest. ``None`` if there is none.

    Example:
        >>> loss_name(["val_acc", "val/loss_box", "val/loss"], "val_acc")
        'val/loss'
        >>> loss_name(["val_acc"], "val_acc") is None
        True
    """
    return min(
        (name for name in logged if "loss" in name.lower()),
        key=lambda name: (
            name != "val_loss",
            name != monitor,
            not name.lower().startswith("val"),
            len(name),
            name,
        ),
        default=None,
    )


class MetricListener(Callback):
    """Capture the value that a module logs for each batch of a validation, and its loss.

    During the validation the module's ``log`` is wrapped on the instance. The class is unchanged,
    and everything is logged as usual.

    Args:
        monitor: Name of the metric.
        sizes: Samples of each batch.
        forward: Whether calls of ``log`` also reach Lightning; ``False`` without a Trainer.
        split: Whether to split a metric object into its states on batches.

    Attributes:
        of_steps_only: Names that were logged with ``on_epoch=False``, so that a validation has no
            value of them.
        plain_mean: False once a value was logged whose epoch is no mean over the samples: with
            ``batch_size=`` or ``reduce_fx=``.
    """

    def __init__(
        self, monitor: str, sizes: Sequence[int], *, forward: bool = True, split: bool = True
    ) -> None:
        self.of_steps_only: set[str] = set()
        self.plain_mean = True
        self._split = split
        self._monitor = monitor
        self._sizes = sizes
        self._forward = forward
        self._values: list[float | None] = []
        self._losses: dict[str, list[float]] = {}
        self._in_batch = False
        self._module: LightningModule | None = None
        self._batches: float = 0
        self._metric: Metric | None = None
        self._states: BlockStates | None = None

    @property
    def states(self) -> tuple[Metric, ...]:
        """The torchmetrics object on each batch; empty unless one is logged that can be split."""
        states = () if self._states is None else self._states.states
        return states if len(states) == len(self._values) else ()

    @property
    def whole_only(self) -> bool:
        """True if a torchmetrics object is logged that cannot be split into batches."""
        return self._metric is not None and not self.states

    @property
    def blocks(self) -> tuple[tuple[int, float], ...]:
        """Samples and value of each batch; empty unless all batches logged a value."""
        values = [value for value in self._values if value is not None]
        if len(values) < len(self._values):
            return ()
        return tuple(zip(self._sizes, values, strict=False))

    @property
    def loss(self) -> float | None:
        """The mean loss over the samples; ``None`` unless each batch logged one."""
        name = loss_name(self._losses, self._monitor)
        if name is None or len(self._losses[name]) != len(self._values):
            return None
        pairs = zip(self._sizes, self._losses[name], strict=False)
        total = sum(size for size, _ in zip(self._sizes, self._values, strict=False))
        return math.fsum(size * value for size, value in pairs) / total if total else None

    def listen(self, pl_module: LightningModule) -> None:
        """Wrap a module's ``log``."""
        log = pl_module.log

        @torch.compiler.disable  # type: ignore[untyped-decorator]
        @wraps(log)
        def capture(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
            if self._forward:
                log(name, value, *args, **kwargs)
            if not self._in_batch:
                return
            given = _LOG.bind(pl_module, name, value, *args, **kwargs).arguments
            if given.get("on_epoch") is False:
                self.of_steps_only.add(name)
                return
            # A value that is logged for steps and epochs has two names.
            if self._monitor in (name, f"{name}_epoch"):
                self.plain_mean = self.plain_mean and self._averages(given)
                self._values[-1] = _number(value)
                self._metric = value if isinstance(value, Metric) else None
            elif "loss" in name.lower() and (number := _number(value)) is not None:
                self._losses.setdefault(name, []).append(number)

        pl_module.log = capture  # type: ignore[method-assign]
        self._module = pl_module

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the module's ``log``."""
        self._batches = sum(trainer.num_val_batches)
        self.listen(pl_module)

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Expect a value."""
        self._values.append(None)
        self._in_batch = True

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Ignore values that are logged from now on, and keep the states of a metric object."""
        self._in_batch = False
        if self._metric is None or self._module is None or not self._split:
            return
        if self._states is None:
            self._states = BlockStates(self._module, self._metric)
        if not self._states.mergeable:
            return
        self._states.take()
        if self._values[-1] is None:  # the object was only updated
            self._values[-1] = value_of(self._states.states[-1:])
        if len(self._values) == self._batches:  # Lightning computes it next
            self._states.restore()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Restore the module's ``log``."""
        self._close()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Restore the module's ``log``."""
        self._close()

    def _averages(self, given: Mapping[str, Any]) -> bool:
        """Return whether a value counts with its samples in a mean; a metric object does not."""
        if isinstance(given["value"], Metric):
            return True
        number, weight = len(self._values) - 1, given.get("batch_size")
        samples = self._sizes[number] if number < len(self._sizes) else None
        return given.get("reduce_fx", "mean") == "mean" and weight in (None, samples)

    def _close(self) -> None:
        if self._module is not None:
            del self._module.log
            self._module = None


def _evaluate(
    module: LightningModule,
    dataset: Dataset[Any],
    monitor: str,
    loader: Mapping[str, Any],
    features: bool,
) -> Measured:
    samples = size(dataset)
    block = block_size(samples, loader)
    sizes = [min(block, samples - start) for start in range(0, samples, block)]
    listener = MetricListener(monitor, sizes, forward=False)
    listener.listen(module)
    for each in module.modules():
        if isinstance(each, Metric):
            each.reset()
    tap = FeatureTap(samples) if features else None
    if tap is not None:
        tap.attach(module)
    # Workers would take longer to start than the samples take to evaluate.
    plain = {name: value for name, value in loader.items() if name not in _FOR_WORKERS}
    for number, batch in enumerate(_batches(dataset, {**plain, "batch_size": block})):
        listener.on_validation_batch_start()
        if tap is not None:
            tap.begin()
        module.validation_step(batch, number)
        if tap is not None:
            tap.add(batch)
        listener.on_validation_batch_end()
    if tap is not None:
        tap.close()
    states = listener.states
    blocks = () if listener.whole_only or not listener.plain_mean else listener.blocks
    return Measured(
        value=value_of(states) if states else mean(blocks),
        blocks=blocks,
        loss=listener.loss,
        features={} if tap is None else tap.features,
        states=states,
    )


def _batches(dataset: Dataset[Any], loader: Mapping[str, Any]) -> Iterable[Any]:
    """Return the batches of a loader; those of plain tensors are slices, equal to its stacks."""
    columns = item_columns(dataset) if loader.keys() == {"batch_size"} else None
    if columns is None:
        return ordered_loader(dataset, loader)
    parts = [torch.split(column, loader["batch_size"]) for column in columns]
    return (list(batch) for batch in zip(*parts, strict=True))


def _number(value: Any) -> float | None:
    """Return the value of a batch; ``None`` for a metric that has no value of the batch."""
    if isinstance(value, Metric):
        # The value that `forward` returned, which Lightning logs for a step. A metric that was only
        # updated has none.
        value = value._forward_cache
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, Real) else None
