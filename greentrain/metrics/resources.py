"""Resources that learning uses: samples, labels, memory and joules, and their growth."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean, linear_regression

from greentrain.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUse:
    """Resources used to learn one experience; ``None`` for unknown amounts.

    Args:
        samples: Samples trained on, counted each time.
        labels: Labels that had to be bought for it.
        memory_bytes: Bytes stored from past experiences, after it.
        energy_j: Joules used by the whole update.

    Raises:
        ConfigurationError: If one is negative or not finite.
    """

    samples: int | None = None
    labels: int | None = None
    memory_bytes: int | None = None
    energy_j: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(
                    f"{field.name} is {value}; it must be a finite number, 0 or more, or None"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Growth of a quantity from one experience to the next.

    Args:
        per_experience: The least-squares slope; ``None`` with fewer than 2 known values.
        interval: Its 95 % interval; ``None`` with fewer than 3 known values. If the interval
            contains 0, the stream shows no growth.
    """

    per_experience: float | None
    interval: tuple[float, float] | None


def slope(values: Sequence[float | None]) -> Slope:
    """Fit a straight line through one value for each experience, in order.

    Ordinary least squares on the position of the experience. The interval is Student's t with
    two degrees of freedom fewer than values (Montgomery, Peck and Vining 2012, section 2.4.1).
    It assumes that the values scatter independently around the line.

    Args:
        values: One value for each experience. Unknown values (``None``) are left out of the fit,
            and the positions of the others stay.

    Returns:
        The slope, in units of the values per experience.

    Raises:
        ConfigurationError: If a value is not finite.

    Example:
        >>> slope([5.0, 5.0, 5.0, 5.0])
        Slope(per_experience=0.0, interval=(0.0, 0.0))
        >>> slope([1.0, None, 3.0])
        Slope(per_experience=1.0, interval=None)
    """
    known = [(at, float(value)) for at, value in enumerate(values) if value is not None]
    if not all(math.isfinite(value) for _, value in known):
        raise ConfigurationError(f"the values are {list(values)}; each is a finite number or None")
    if len(known) < 2:
        return Slope(per_experience=None, interval=None)
    # Counted from the first value, so that a constant has a slope of exactly 0.
    points = [(float(at), value - known[0][1]) for at, value in known]
    line = linear_regression(*zip(*points, strict=True))
    if len(points) < 3:
        return Slope(per_experience=line.slope, interval=None)
    centre, degrees = fmean(at for at, _ in points), len(points) - 2
    spread = math.fsum((at - centre) ** 2 for at, _ in points)
    residuals = [height - line.slope * at - line.intercept for at, height in points]
    # Importing scipy takes a third of a second.
    student = float(importlib.import_module("scipy.special").stdtrit(degrees, 0.975))
    half = student * math.hypot(*residuals) / math.sqrt(degrees * spread)
    return Slope(per_experience=line.slope, interval=(line.slope - half, line.slope + half))


def resource_slopes(uses: Sequence[ResourceUse]) -> dict[str, Slope]:
    """Fit :func:`slope` to each resource over a stream.

    Args:
        uses: Resources of each experience, in order.

    Returns:
        The slopes by the names of the fields of :class:`ResourceUse`.

    Example:
        >>> uses = [ResourceUse(samples=100 * step, memory_bytes=64) for step in (1, 2, 3)]
        >>> found = resource_slopes(uses)
        >>> found["samples"].per_experience, found["memory_bytes"].interval
        (100.0, (0.0, 0.0))
    """
    return {
        field.name: slope([getattr(use, field.name) for use in uses])
        for field in fields(ResourceUse)
    }


def frugality_score(performance: float, resource: float, *, scale: float, weight: float) -> float:
    """Return a performance less a penalty for the resource used.

    ``P - w * R / (1 + R)``, the ``P - w / (1 + 1 / R)`` of Evchenko et al. 2021 ("Frugal Machine
    Learning", arXiv 2111.03731), written so that ``R = 0`` is allowed. Their R is in CPU
    milliseconds. A score in Wh would differ from one in kWh, so here ``R = resource / scale`` has
    no unit. The penalty is half the weight if the resource equals the scale, and never reaches
    the weight. Compare scores only with the same scale and weight.

    Args:
        performance: P, such as an accuracy from 0 to 1.
        resource: Amount used: joules, bytes or labels.
        scale: A large amount, in the same unit, such as the usual method's.
        weight: w, the performance that unbounded use would cost.

    Returns:
        The score.

    Raises:
        ConfigurationError: If the scale is not positive, the resource or the weight negative, or
            one of the four not finite.

    Example:
        >>> frugality_score(0.9, 500.0, scale=1500.0, weight=0.4)
        0.8
    """
    given = {"performance": performance, "resource": resource, "scale": scale, "weight": weight}
    for name, value in given.items():
        if not math.isfinite(value):
            raise ConfigurationError(f"{name} is {value}; it must be a finite number")
    if scale <= 0:
        raise ConfigurationError(f"scale is {scale}; it must be an amount of the resource, above 0")
    for name in ("resource", "weight"):
        if given[name] < 0:
            raise ConfigurationError(f"{name} is {given[name]}; it must be 0 or more")
    # Equal to R / (1 + R), but a tiny scale would make R infinite.
    return performance - weight * (resource / (scale + resource))
