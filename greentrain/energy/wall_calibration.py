"""Find the joules a node uses at the wall for each joule that software meters."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from greentrain.energy._calibration_spans import boundaries, phases, spans
from greentrain.energy._t_distribution import t_half_width
from greentrain.energy.boundary import NODE
from greentrain.energy.wall import WallMeter
from greentrain.energy.windows import Window
from greentrain.errors import ConfigurationError

_NORMAL = 1.959964  # standard errors of a 95 % interval if they are known


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Joules at the wall for each joule that software metered over the same spans of time.

    The factor holds for the node, the kind of work and the boundary that it was found with. The
    interval is that of the factor, so it applies to sums over many such spans, not to one of them.

    Args:
        factor: Joules at the wall for one joule of software.
        low: Lower end of its interval of 95 %; ``None`` if it is unknown.
        high: Upper end of the interval.
        spans: Number of spans of time that were compared.
        software_j: Joules by software in them.
        wall_j: Joules at the wall in them.
        boundary: Boundary of the software's figures, such as ``"gpu+cpu+ram"``.
        wall: Description of the wall meter.

    Raises:
        ConfigurationError: If a figure is not finite and positive, or the factor lies outside its
            interval.
    """

    factor: float
    low: float | None
    high: float | None
    spans: int
    software_j: float
    wall_j: float
    boundary: str | None = None
    wall: str = ""

    def __post_init__(self) -> None:
        for name in ("factor", "spans", "software_j", "wall_j"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"a calibration has {name}={value!r}; it must be above 0")
        if self.low is None and self.high is None:
            return
        if self.low is None or self.high is None or not self.low <= self.factor <= self.high:
            raise ConfigurationError(
                f"a calibration has low={self.low!r} and high={self.high!r}; the factor "
                f"{self.factor!r} has to lie between them, or both are None"
            )

    def node_j(self, software_j: float) -> float:
        """Return the joules at the wall that correspond to software's joules."""
        return self.factor * software_j

    @property
    def note(self) -> str:
        """Warning for users of the factor, in one sentence; empty if there is none."""
        if self.factor < 1:
            return (
                f"contradiction: software metered {self.software_j / self.wall_j:.3g} times what "
                "the wall shows, although the node uses all of it; check units, clocks and what "
                "is metered"
            )
        if self.low is None:
            return "the error of the factor is unknown"
        if self.spans == 1:
            return "from one span: the interval ignores how the factor varies"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, fit for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """Return the calibration that :meth:`as_dict` wrote.

        Raises:
            ConfigurationError: If a field is missing or unknown.
        """
        try:
            return cls(**fields)
        except TypeError:
            names = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ConfigurationError(
                f"a calibration has the fields {sorted(fields)}; allowed are {names}"
            ) from None


def calibrate(
    pairs: Iterable[tuple[float, float]],
    *,
    resolution_j: float = 0.0,
    wall_uncertainty: float | None = None,
    boundary: str | None = None,
    wall: str = "",
) -> Calibration | None:
    """Compare joules by software with joules at the wall in the same spans of time.

    The factor is the ratio of the sums, ``R = sum(y) / sum(x)``. From ``n`` spans its standard
    error is ``sqrt(sum((y - R x)^2) / (n (n - 1))) / mean(x)`` (Cochran 1977, Sampling Techniques,
    3rd ed., sections 2.11 and 6.4, without the correction for finite populations). Student's t
    with ``n - 1`` degrees of freedom turns it into an interval. That scatter includes the wall's
    resolution; if by chance it is smaller, the resolution alone is used. A difference of two
    readings in steps of ``r`` has an error of ``r / sqrt(6)``, so the sum of ``n`` differences has
    ``sqrt(n) r / sqrt(6)``. The error of the wall's own scale is added in quadrature.

    Args:
        pairs: Joules by software and at the wall, span by span; spans do not overlap.
        resolution_j: Step in which the wall shows its joules; 0 if it is fine or unknown.
        wall_uncertainty: Relative standard uncertainty of the wall meter; ``None`` if it is
            unknown: then the interval is that of what the wall *shows*.
        boundary: Boundary of the software's figures.
        wall: Description of the wall meter.

    Returns:
        The calibration; ``None`` if there is no span, or one of the sums is 0. One span has an
        interval only if the resolution is given.

    Raises:
        ConfigurationError: If a figure is negative or not finite.

    Example:
        >>> calibrate([(700.0, 1000.0), (1400.0, 2000.0)]).node_j(7.0)
        10.0
        >>> one = calibrate([(7000.0, 10000.0)], resolution_j=360.0)  # 360 J / sqrt(6) is 147 J
        >>> round(one.factor, 2), round(one.low, 2), round(one.high, 2)
        (1.43, 1.39, 1.47)
    """
    known = list(pairs)
    figures = [*itertools.chain(*known), resolution_j, wall_uncertainty or 0.0]
    if not all(math.isfinite(figure) and figure >= 0 for figure in figures):
        raise ConfigurationError(
            f"calibrate got pairs={known[:5]!r}, resolution_j={resolution_j!r} and "
            f"wall_uncertainty={wall_uncertainty!r}; all of them are finite, 0 or more"
        )
    software_j = math.fsum(software for software, _ in known)
    wall_j = math.fsum(shown for _, shown in known)
    if software_j == 0 or wall_j == 0:
        return None
    factor = wall_j / software_j
    half_width = _half_width(known, factor, resolution_j)
    if half_width is not None and wall_uncertainty is not None:
        half_width = math.hypot(half_width, _NORMAL * wall_uncertainty * factor)
    return Calibration(
        factor=factor,
        low=None if half_width is None else max(0.0, factor - half_width),
        high=None if half_width is None else factor + half_width,
        spans=len(known),
        software_j=software_j,
        wall_j=wall_j,
        boundary=boundary,
        wall=wall,
    )


def calibrate_windows(windows: Iterable[Window], wall: WallMeter) -> Calibration | None:
    """Compare windows with the joules at the wall over the same time.

    Adjacent windows are joined to spans of at least ten of the wall's sampling intervals. Then the
    lag at the edges and a coarse resolution matter little. A counter in steps of 1 Wh moves every
    12 s at 300 W, and a span lasts two minutes. Phases are cut at the edges of those inside them if
    that gives two spans or more. A phase's energy around those inside it is then left out, because
    its time is unknown. Windows with an unknown source and times that the wall does not cover are
    left out too.

    Args:
        windows: Windows of one software meter, in any order.
        wall: A wall meter that ran meanwhile, or whose file covers that time; it may be closed.

    Returns:
        The calibration; ``None`` if no span is long enough or known. The interval of a single span
        assumes an error at its edges of the wall's joules in one sampling interval.

    Raises:
        ConfigurationError: If the windows are of different boundaries, or already the node's.
    """
    wall.poll()
    windows = list(windows)
    within = boundaries(windows)
    if len(within) > 1 or NODE in within:
        raise ConfigurationError(
            f"the windows were measured within {', '.join(sorted(within))}; calibrate one boundary "
            "below the node"
        )
    every_s = wall.interval_s
    if every_s is None:
        return None
    outermost = phases(windows)
    found = spans([piece for phase in outermost for piece in phase.pieces()], wall, every_s)
    if len(found) < 2:
        found = spans([phase.span for phase in outermost], wall, every_s)
    source = wall.sources[0]
    share = source.relative_uncertainty
    own = "uncertainty unknown" if share is None else f"uncertainty {share:.2g} of it"
    return calibrate(
        [(span.software_j or 0.0, wall_j) for span, wall_j in found],
        resolution_j=found[0][1] * every_s / found[0][0].length_s if len(found) == 1 else 0.0,
        wall_uncertainty=share,
        boundary=next(iter(within), None),
        wall=f"{source.note} ({source.method}, {own})",
    )


def _half_width(
    pairs: list[tuple[float, float]], factor: float, resolution_j: float
) -> float | None:
    """Return the half width of the interval; ``None`` if it is unknown."""
    count, software_j = len(pairs), math.fsum(software for software, _ in pairs)
    resolution = _NORMAL * math.sqrt(count / 6.0) * resolution_j / software_j
    if count == 1:
        return resolution if resolution_j > 0 else None
    squares = math.fsum((shown - factor * software) ** 2 for software, shown in pairs)
    standard = math.sqrt(squares * count / (count - 1)) / software_j
    return max(t_half_width(count - 1.0) * standard, resolution)
