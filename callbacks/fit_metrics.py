"""Choose the final metrics of a fit for its ledger, and find out which of them matters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from greentrain.callbacks.messages import warn
from greentrain.errors import ConfigurationError
from greentrain.naming import check_name
from greentrain.texts import short_repr, storable, visible
from greentrain.tracking import names

MOST_METRICS = 32
"""Metrics of a fit that its ledger keeps; those with a known better direction come first."""
LONGEST_NAME = 100
"""Most characters of a metric's name: a longer one is left out, as it would be another name."""
Mode = Literal["max", "min"]
MODES = ("max", "min")
_OWN = frozenset(value for key, value in vars(names).items() if key.isupper())
_OWN_OF_SOURCE = ("_epoch_wh", "_power_limit_w")


class FitMetric(TypedDict):
    """The last value of a metric; ``mode`` is its better direction, ``None`` if unknown."""

    name: str
    value: float
    mode: str | None


def better_direction(metric: object, mode: object, owner: str) -> dict[str, str]:
    """Return the better direction of the metric that a user named; empty if none was named.

    Args:
        metric: Name of the metric, or ``None``.
        mode: ``"max"`` or ``"min"``, or ``None``.
        owner: Name of the callback, for the error.

    Raises:
        ConfigurationError: If only one of both is given, or one is not allowed.

    Example:
        >>> better_direction("val_acc", "max", "EnergyMonitor")
        {'val_acc': 'max'}
    """
    if metric is None and mode is None:
        return {}
    if mode not in MODES:
        raise ConfigurationError(
            f"{owner}(metric={short_repr(metric)}, mode={short_repr(mode)}) does not say whether "
            "more of the metric is better; give mode='max' or mode='min'"
        )
    if metric is None:
        raise ConfigurationError(
            f"{owner}(mode={mode!r}) names no metric; add the metric, such as metric='val_acc'"
        )
    name = check_name(metric, f"{owner}(metric=...)", "val_acc", longest=LONGEST_NAME)
    return {name: str(mode)}


def final_metrics(trainer: Any, better: Mapping[str, str]) -> list[FitMetric]:
    """Return the last values that a fit logged, those with a known better direction first.

    The better directions are those given. Then come those of the metrics that the checkpoints, the
    early stopping and the other callbacks of the Trainer monitor, in this order. Every process of a
    fit may call it: it needs no other process, because Lightning has reduced all values by then.

    Args:
        trainer: The Trainer, after its fit.
        better: Better directions by name, the most important metric first.

    Returns:
        At most :data:`MOST_METRICS` finite numbers, without those that greentrain logs.
    """
    try:
        logged = {
            str(name): number
            for name, value in dict(trainer.callback_metrics).items()
            if (number := finite(value)) is not None
        }
        modes = {**better, **{k: v for k, v in _monitored(trainer).items() if k not in better}}
        ordered = dict.fromkeys([*(name for name in modes if name in logged), *logged])
        kept = [name for name in ordered if is_kept(name)][:MOST_METRICS]
    except Exception as error:  # a metric that cannot be read must not lose a trained model
        warn(f"EnergyMonitor: the final metrics are not in the ledger: {error}")
        return []
    for name in better:
        if name not in kept:
            found = ", ".join(kept[:10]) or "no number"
            warn(
                f"EnergyMonitor(metric={name!r}): the fit logged no finite {name!r} at its end, so "
                f"the charts of a report do not show the fit. It logged {found}"
            )
    return [{"name": name, "value": logged[name], "mode": modes.get(name)} for name in kept]


def _monitored(trainer: Any) -> dict[str, str]:
    """Return the better direction of each metric that a callback monitors."""
    callbacks = [
        *getattr(trainer, "checkpoint_callbacks", ()),
        *getattr(trainer, "early_stopping_callbacks", ()),
        *getattr(trainer, "callbacks", ()),
    ]
    found: dict[str, str] = {}
    for callback in callbacks:
        monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        if isinstance(monitor, str) and mode in MODES:
            found.setdefault(monitor, str(mode))
    return found


def finite(value: Any) -> float | None:
    """Return a finite number as a float; ``None`` for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # several values, or a text
        return None
    return number if math.isfinite(number) else None


def is_kept(name: str) -> bool:
    """Return whether a ledger keeps a metric of this name: not if greentrain logs it itself."""
    own = name in _OWN or (name.startswith(names.ENERGY_PREFIX) and name.endswith(_OWN_OF_SOURCE))
    return not own and 0 < len(name) <= LONGEST_NAME and visible(storable(name)) == name
