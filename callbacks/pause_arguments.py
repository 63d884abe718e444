"""Check the arguments of ``CarbonAwarePause``, and find its provider and the record of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer

from greentrain.callbacks.energy_monitor import EnergyMonitor
from greentrain.callbacks.exact_resume import ExactResume
from greentrain.callbacks.run_record import RunRecord
from greentrain.carbon import CarbonAccount, IntensityProvider, StaticIntensity, named_intensity
from greentrain.errors import ConfigurationError
from greentrain.units import is_number


def check_intensity(intensity: Any) -> IntensityProvider | None:
    """Return the provider that was given or named; ``None`` without one.

    Raises:
        ConfigurationError: If it is no provider, or one that is the same at every hour.
    """
    if intensity is None:
        return None
    found = named_intensity(intensity) if isinstance(intensity, str) else intensity
    if not callable(getattr(found, "history", None)):
        raise ConfigurationError(
            f"CarbonAwarePause(intensity={intensity!r}) is no provider; give one of "
            "greentrain.carbon, such as CsvIntensity('de.csv', zone='DE')"
        )
    if isinstance(found, StaticIntensity):
        raise ConfigurationError(
            f"CarbonAwarePause got StaticIntensity({found.provenance.zone!r}), which is the "
            "same at every hour, so a pause saves nothing; give a provider of hourly values"
        )
    return found


def provider_of(trainer: Any, own: IntensityProvider | None) -> IntensityProvider:
    """Return the provider of a pause, or else that of the Trainer's ``EnergyMonitor``.

    Raises:
        ConfigurationError: If there is none, or it is the same at every hour.
    """
    if own is not None:
        return own
    for callback in trainer.callbacks:
        if isinstance(callback, EnergyMonitor) and callback.carbon.provider is not None:
            found = check_intensity(callback.carbon.provider)
            assert found is not None
            return found
    raise ConfigurationError(
        "CarbonAwarePause has no intensity, and neither has an EnergyMonitor of this Trainer; give "
        "one of them a provider, such as EnergyMonitor(intensity='electricitymaps:DE')"
    )


def record_of(trainer: Any) -> RunRecord | None:
    """Return the record of the run that an ``EnergyMonitor`` of the Trainer measures."""
    monitors = (each for each in trainer.callbacks if isinstance(each, EnergyMonitor))
    return next((each.record for each in monitors if each.record is not None), None)


def carbon_of_record(trainer: Any) -> CarbonAccount | None:
    """Return the average intensities that the report of a monitored run is made of.

    Returns:
        ``None`` if they are unknown, or one value for all hours. Also with several processes, of
        which each has measured a part.
    """
    monitors = (each for each in trainer.callbacks if isinstance(each, EnergyMonitor))
    carbon = next((each.carbon for each in monitors if each.record is not None), None)
    if carbon is None or carbon.provider is None or isinstance(carbon.provider, StaticIntensity):
        return None
    return carbon if trainer.world_size == 1 else None


def check_number(
    name: str, value: object, allowed: str, *, low: float = 0.0, high: float = float("inf")
) -> None:
    """Check a number among the arguments.

    Raises:
        ConfigurationError: If it is out of range.
    """
    if value is None and name == "duration_s":
        return
    if not (is_number(value) and low <= value <= high and value < float("inf")):  # type: ignore[operator]
        raise ConfigurationError(
            f"CarbonAwarePause({name}={value!r}) is not allowed; give {allowed}"
        )


def check_path(checkpoint: object) -> Path:
    """Return the file of a pause.

    Raises:
        ConfigurationError: If it is no path.
    """
    if not isinstance(checkpoint, (str, Path)):
        raise ConfigurationError(
            f"CarbonAwarePause(checkpoint={checkpoint!r}) is no path; give one, as 'paused.ckpt'"
        )
    return Path(checkpoint)


def check_requeue(trainer: Trainer, others: list[Any]) -> None:
    """Check that a fit can end its process and continue in another one.

    Raises:
        MisconfigurationException: If it cannot.
    """
    if not any(isinstance(each, ExactResume) for each in others):
        raise MisconfigurationException(
            "CarbonAwarePause(pause='requeue') continues in another process; add ExactResume() to "
            "the callbacks"
        )
    launcher = trainer.strategy.launcher
    if hasattr(launcher, "_start_method"):  # it trains in processes that it starts in this one
        raise MisconfigurationException(
            "CarbonAwarePause(pause='requeue') cannot end the processes of ddp_fork, ddp_spawn and "
            "ddp_notebook; use strategy='ddp', or pause='wait'"
        )
