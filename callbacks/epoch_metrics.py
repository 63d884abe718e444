"""Compute the metrics of an epoch from the measured windows and the progress of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from greentrain.energy import Forecast, Reading, Source
from greentrain.tracking import names
from greentrain.units import wh


def energy_metrics(
    window: Reading, so_far_j: float | None, *, samples: int | None = None
) -> dict[str, float]:
    """Return the energy of an epoch in watt-hours and watts, without unknown values.

    Args:
        window: Energy that the epoch used.
        so_far_j: Joules that the fit has used up to now.
        samples: Samples trained on in the epoch.

    Example:
        >>> epoch = Reading(duration_s=36.0, energy_j={"cpu": 3600.0})
        >>> energy_metrics(epoch, 7200.0, samples=1800)  # 100 W for 36 s
        {'energy/epoch_wh': 1.0, 'energy/total_wh': 2.0, 'energy/cpu_epoch_wh': 1.0, \
'energy/power_w': 100.0, 'energy/samples_per_j': 0.5}
    """
    joules = {
        names.ENERGY_EPOCH: window.total_j,
        names.ENERGY_TOTAL: so_far_j,
        **{names.source_epoch(name): energy_j for name, energy_j in window.energy_j.items()},
    }
    metrics = {name: wh(energy_j) for name, energy_j in joules.items() if energy_j is not None}
    if window.power_w is not None:
        metrics[names.ENERGY_POWER] = window.power_w
    if samples and window.total_j:
        metrics[names.SAMPLES_PER_J] = samples / window.total_j
    return metrics


def epoch_samples(trainer: Any, first_batch: int) -> int | None:
    """Return the samples since a batch, in all processes; ``None`` if their number is unknown."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed - first_batch
    samples = samples_of(trainer.train_dataloader, batches)
    return None if samples is None else samples * int(trainer.world_size)


def forecast_metrics(forecast: Forecast | None) -> dict[str, float]:
    """Return the predicted energy of the whole run in watt-hours, with its 95 % interval."""
    if forecast is None:
        return {}
    return {
        names.ENERGY_PREDICTED_TOTAL: wh(forecast.mean_j),
        names.ENERGY_PREDICTED_LOW: wh(forecast.low_j),
        names.ENERGY_PREDICTED_HIGH: wh(forecast.high_j),
    }


def power_limits(sources: Iterable[Source]) -> dict[str, float]:
    """Return the present power limit of each source that has one, in watts."""
    return {
        names.source_power_limit(source.name): source.power_limit_w
        for source in sources
        if source.power_limit_w is not None
    }


def emission_metrics(epoch_g: float | None, total_g: float | None) -> dict[str, float]:
    """Return grams of CO2 equivalent, without unknown values."""
    grams = {names.EMISSIONS_EPOCH: epoch_g, names.EMISSIONS_TOTAL: total_g}
    return {name: value for name, value in grams.items() if value is not None}


def has_gpu(reading: Reading) -> bool:
    """Return whether a GPU is among the sources.

    Example:
        >>> has_gpu(Reading(duration_s=1.0, energy_j={"cpu": 1.0, "node1/gpu:0": None}))
        True
    """
    return any(name.rpartition("/")[2].startswith("gpu") for name in reading.energy_j)


def samples_of(loader: Any, batches: int) -> int | None:
    """Return the number of samples in the first batches of a loader; ``None`` if unknown.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(range(10), batch_size=4)
        >>> samples_of(loader, 2), samples_of(loader, 3), samples_of({"a": loader}, 3)
        (8, 10, None)
    """
    batch_size = getattr(loader, "batch_size", None)
    if not isinstance(batch_size, int):
        return None
    try:
        return min(batches * batch_size, len(loader.sampler))
    except (AttributeError, TypeError):  # an iterable dataset has no length
        return batches * batch_size


def epochs_left(trainer: Any, steps_per_epoch: int) -> float | None:
    """Return the number of epochs left at the end of an epoch; ``None`` if the fit has no end.

    Args:
        trainer: The Trainer, with its ``max_epochs`` and ``max_steps``.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    left: list[float] = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        left.append(trainer.max_epochs - trainer.current_epoch - 1)
    if trainer.max_steps >= 0 and steps_per_epoch > 0:
        left.append((trainer.max_steps - trainer.global_step) / steps_per_epoch)
    return max(0.0, min(left)) if left else None
