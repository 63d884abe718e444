"""Joules until a model reaches a target, over one run or several."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from greentrain.errors import ConfigurationError

# Shares are products of fractions, so a half may have a rounding error.
_HALF = 0.5 + 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetEnergy:
    """Joules that half of the runs need to reach a target.

    Args:
        median_j: The least joules by which an estimated half of the runs have reached the target;
            ``None`` if fewer than half reach it.
        interval_j: Ends of the 95 % interval of that median; ``None`` for an end that the runs do
            not show.
        runs: Number of runs.
        reached: Number of runs that reached the target.
    """

    median_j: float | None
    interval_j: tuple[float | None, float | None]
    runs: int
    reached: int


def energy_to_target(
    energies_j: Sequence[float], values: Sequence[float], target: float
) -> float | None:
    """Return the joules that one run had used when it first reached a target.

    Args:
        energies_j: Joules used since the start of the run, at each measurement.
        values: The metric at each measurement; higher is better, and NaN reaches no target.
        target: Value to reach.

    Returns:
        The joules at the measurement, without interpolation; ``None`` if the target was never
        reached.

    Raises:
        ConfigurationError: If there is not one value for each energy, or the energies are not
            finite numbers of 0 or more that never fall.

    Example:
        >>> energy_to_target([10.0, 20.0, 30.0], [0.5, 0.9, 0.8], target=0.8)
        20.0
    """
    if len(energies_j) != len(values):
        raise ConfigurationError(
            f"there are {len(energies_j)} energies and {len(values)} values; give the joules used "
            "until each value was measured"
        )
    falls = any(later < earlier for earlier, later in pairwise(energies_j))
    if falls or not all(math.isfinite(energy) and energy >= 0 for energy in energies_j):
        raise ConfigurationError(
            f"energies_j is {list(energies_j)}; it counts from the start of the run, finite "
            "numbers of 0 or more that never fall"
        )
    pairs = zip(energies_j, values, strict=True)
    return next((float(energy) for energy, value in pairs if value >= target), None)


def median_energy_to_target(
    runs: Sequence[tuple[Sequence[float], Sequence[float]]], target: float
) -> TargetEnergy:
    """Estimate the joules that half of all runs need, including runs that never reach the target.

    A run that ended below the target is censored, not dropped: it needs more joules than it used.
    Dropping it would leave only the lucky runs. The share still below the target is the estimate
    of Kaplan and Meier (1958). Its 95 % interval is Greenwood's on the log(-log) scale (Kalbfleisch
    and Prentice 1980). The interval of the median contains every energy at which this interval
    contains a half (Brookmeyer and Crowley 1982). All of this assumes that the end of a run does
    not depend on its progress: a budget set beforehand, not a run that was stopped for bad results.

    Args:
        runs: For each run ``(energies_j, values)``, as :func:`energy_to_target` takes them.
        target: Value to reach.

    Returns:
        The median with its interval.

    Raises:
        ConfigurationError: If there is no run, a run without a measurement, or one that
            :func:`energy_to_target` refuses.

    Example:
        >>> runs = [([1.0, 2.0], [0.5, 0.9]), ([1.0, 3.0], [0.5, 0.9]), ([1.0, 4.0], [0.5, 0.6])]
        >>> median_energy_to_target(runs, target=0.8).median_j
        3.0
    """
    if not runs or not all(energies_j for energies_j, _ in runs):
        raise ConfigurationError(
            "there is no run, or one without a measurement; each has at least one"
        )
    needed = [energy_to_target(energies_j, values, target) for energies_j, values in runs]
    reached = [energy for energy in needed if energy is not None]
    censored = [run[0][-1] for run, energy in zip(runs, needed, strict=True) if energy is None]
    # Imported here because it takes a second.
    stats = importlib.import_module("scipy.stats")
    below = stats.ecdf(stats.CensoredData(uncensored=reached, right=censored)).sf
    with warnings.catch_warnings():
        # The interval has no width before the first run, and after the last one, reaches it.
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = below.confidence_interval(0.95, method="log-log")
    return TargetEnergy(
        median_j=_first_half(below),
        interval_j=(_first_half(interval.low), _first_half(interval.high)),
        runs=len(runs),
        reached=len(reached),
    )


def _first_half(curve: object) -> float | None:
    """Return the energy at which a falling curve first is a half or less; NaN does not count."""
    points = zip(curve.quantiles, curve.probabilities, strict=True)  # type: ignore[attr-defined]
    return next((float(energy) for energy, share in points if share <= _HALF), None)
