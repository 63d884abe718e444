"""Find the metric that a model logs in validation, and its direction."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pytorch_lightning import LightningModule
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.evaluation.evaluator import (
    isolated_rng,
    of_steps_only,
    quiet,
    validation_trainer,
)
from greentrain.evaluation.fast_eval import MetricListener, ordered_loader
from greentrain.memory import size

Direction = Literal["max", "min"]

BATCH = 8
"""Samples that show the names: some metrics need more than one."""
MORE = 512
"""Samples that show the names if fewer did not."""
_MORE = ("acc", "auc", "auroc", "dice", "f1", "iou", "precision", "r2", "recall")
_LESS = ("err", "loss", "mae", "mse", "nll", "perplexity", "rmse")
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+[0-9]*(?![a-z])")


def logged_in_validation(
    model: LightningModule,
    dataset: Dataset[Any],
    *,
    options: Mapping[str, Any],
    loader: Mapping[str, Any],
    monitor: str | None = None,
) -> list[str]:
    """Return the names that a model logs when it is validated on a few samples.

    Args:
        model: The model.
        dataset: Held-out samples. Some that are spread over them are used, and more if the metric
            is not logged: a recall may be logged only for batches with a positive sample.
        options: The user's options of the Trainer.
        loader: The user's options of the loader, ``batch_size`` among them.
        monitor: The metric to look for; ``None`` for any.

    Raises:
        ConfigurationError: If the metric is logged with ``on_epoch=False``, or is NaN on all
            samples.
    """
    names: list[str] = []
    for tries, most in enumerate((BATCH, MORE, size(dataset))):
        samples = Subset(dataset, range(0, size(dataset), -(-size(dataset) // most)))
        listener = MetricListener("", [])
        with isolated_rng(), quiet():
            trainer = validation_trainer(options, listener)
            trainer.validate(model, dataloaders=ordered_loader(samples, loader), verbose=False)
        names = sorted(trainer.callback_metrics)
        steps_only = sorted(listener.of_steps_only - set(names))
        if steps_only and (monitor in steps_only or (monitor is None and not names)):
            raise ConfigurationError(of_steps_only(monitor or steps_only[0]))
        found = names if monitor is None else sorted({monitor} & set(names))
        if any(not math.isnan(float(trainer.callback_metrics[name])) for name in found):
            break
        if tries and not found:
            break
    else:
        raise ConfigurationError(
            f"the model's {found[0]!r} is NaN on all held-out samples, so no model could be "
            "compared; look for a division by zero in validation_step, and for missing labels"
        )
    return names


def choose_metric(
    logged: Iterable[str], monitor: str | None, mode: str | None
) -> tuple[str, Direction]:
    """Return the metric to compare models by, and its direction.

    Args:
        logged: The names that the model logs in validation.
        monitor: One of them; ``None`` if there is only one.
        mode: ``"max"`` or ``"min"``; ``None`` if the name shows it, as ``val_loss`` does.

    Raises:
        ConfigurationError: If either is missing, and cannot be found out.

    Example:
        >>> choose_metric(["val_acc"], None, None)
        ('val_acc', 'max')
        >>> choose_metric(["val_acc", "val_loss"], "val_loss", None)
        ('val_loss', 'min')
    """
    names = _distinct(logged)
    shown = ", ".join(f"`{name}`" for name in names)
    if not names:
        raise ConfigurationError(
            "the model logs nothing in validation; log a metric in validation_step, such as "
            "self.log('val_acc', accuracy)"
        )
    if monitor is None:
        if len(names) > 1:
            raise ConfigurationError(
                f"the model logs {len(names)} metrics in validation, and monitor is missing; give "
                f"the one that decides which model is better: monitor= one of {shown}"
            )
        monitor = names[0]
    elif monitor not in logged and (epoch := _of_the_epoch(monitor, logged)):
        raise ConfigurationError(
            f"{monitor!r} is the value of each batch, which decides nothing; the value of the "
            f"whole validation is {' or '.join(map(repr, epoch))}: give monitor={epoch[-1]!r}"
        )
    elif monitor not in {*names, *logged}:
        raise ConfigurationError(
            f"the model logs no {monitor!r} in validation. It logs {shown}: give one of these "
            "names as monitor, or log the metric in validation_step"
        )
    if mode is None:
        mode = _direction(monitor)
    if mode is None:
        raise ConfigurationError(
            f"mode is missing, and the name {monitor!r} shows no direction; give mode='max' if a "
            "larger value is better, or mode='min' if a smaller one is"
        )
    if mode not in ("max", "min"):
        raise ConfigurationError(f"mode is {mode!r}; allowed are 'max' and 'min'")
    return monitor, mode  # type: ignore[return-value]  # one of the two literals


def _distinct(logged: Iterable[str]) -> list[str]:
    """Return the names without ``_step`` and ``_epoch`` forms of other names."""
    names = sorted(logged)
    return [
        name
        for name in names
        if (plain := re.sub(r"_(step|epoch)$", "", name)) == name or plain not in names
    ]


def _of_the_epoch(monitor: str, logged: Iterable[str]) -> list[str]:
    plain = monitor.removesuffix("_step")
    return sorted({plain, f"{plain}_epoch"} & set(logged), reverse=True) if plain != monitor else []


def _direction(name: str) -> Direction | None:
    words = [word.lower() for word in _WORDS.findall(name)]
    more = any(word.startswith(_MORE) for word in words)
    less = any(word.startswith(_LESS) for word in words)
    return None if more == less else "max" if more else "min"
