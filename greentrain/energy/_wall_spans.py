"""Spans of time in which software and the wall measured the same, cut from nested windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from greentrain.energy.boundary import boundary
from greentrain.energy.wall import WallMeter
from greentrain.energy.windows import Window

SPAN_INTERVALS = 10.0
"""Sampling intervals of the wall that a span lasts at least, so that an edge is a tenth of it."""

_MAX_HOLES = 0.02  # share of a span that may lie in no window
_MIN_INSIDE = 0.8  # share of a phase that the phases inside it make up where it is cut at them


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time that windows fill, and what was metered in it.

    Args:
        started: Its beginning.
        ended: Its end.
        filled_s: Seconds of it that lie in windows.
        software_j: What software metered; ``None`` if a part of that is unknown.
        wall_j: What the wall showed; ``None`` if it is not known.
    """

    started: datetime
    ended: datetime
    filled_s: float
    software_j: float | None
    wall_j: float | None = None

    @property
    def length_s(self) -> float:
        """Seconds from beginning to end."""
        return (self.ended - self.started).total_seconds()

    def joined(self, later: Span) -> Span:
        """Return this span and a later one as one, with whatever lies between them."""
        known = self.software_j is not None and later.software_j is not None
        return Span(
            started=self.started,
            ended=max(self.ended, later.ended),
            filled_s=self.filled_s + later.filled_s,
            software_j=(self.software_j or 0.0) + (later.software_j or 0.0) if known else None,
        )


@dataclass(slots=True)
class Phase:
    """A window with those inside it.

    Args:
        span: Its time, and what was metered in it and in those inside it.
        inside: The phases inside it, in the order of time.
    """

    span: Span
    inside: list[Phase] = field(default_factory=list)

    def pieces(self) -> Iterator[Span]:
        """Cut the phase at those inside it where they make up most of it; else keep it whole."""
        inner_s = sum(phase.span.length_s for phase in self.inside)
        if self.inside and inner_s >= _MIN_INSIDE * self.span.length_s:
            for phase in self.inside:
                yield from phase.pieces()
        else:
            yield self.span


def boundaries(windows: Iterable[Window]) -> set[str]:
    """Return the boundaries that the complete ones among windows were measured within."""
    named = (boundary(window.reading.energy_j) for window in windows if window.reading.complete)
    return {name for name in named if name is not None}


def phases(windows: Iterable[Window]) -> list[Phase]:
    """Put windows inside those that were open around them; return the outermost, by time."""
    outermost: list[Phase] = []
    around: list[Phase] = []
    for window in sorted(windows, key=lambda one: (one.started, -one.ended.timestamp())):
        while around and around[-1].span.ended <= window.started:
            around.pop()
        phase = Phase(
            Span(
                started=window.started,
                ended=window.ended,
                filled_s=window.reading.duration_s,
                software_j=window.reading.total_j if window.reading.complete else None,
            )
        )
        (around[-1].inside if around else outermost).append(phase)
        for outer in around:
            outer.span = outer.span.joined(phase.span)
        around.append(phase)
    return outermost


def spans(pieces: Iterable[Span], wall: WallMeter, every_s: float) -> list[Span]:
    """Join adjacent pieces of time to spans that the wall can be read over.

    Args:
        pieces: Pieces in the order of time that do not overlap.
        wall: The wall meter.
        every_s: Its sampling interval in seconds.

    Returns:
        Spans with both figures known; too short ones, and those with holes, are left out.
    """
    shortest_s = SPAN_INTERVALS * every_s
    runs: list[list[Span]] = []  # adjacent spans; all but the last one long enough
    for piece in pieces:
        if piece.software_j is None or _at_wall(piece, wall).wall_j is None:
            runs.append([])
            continue
        hole_s = (piece.started - runs[-1][-1].ended).total_seconds() if runs and runs[-1] else 0.0
        if not runs or hole_s > _MAX_HOLES * shortest_s:
            runs.append([])
        run = runs[-1]
        if run and run[-1].length_s < shortest_s:
            run[-1] = run[-1].joined(piece)
        else:
            run.append(piece)
    found = [_at_wall(span, wall) for run in runs for span in _without_rest(run, shortest_s)]
    return [
        span
        for span in found
        if span.wall_j is not None
        and span.length_s >= shortest_s
        and span.filled_s >= (1.0 - _MAX_HOLES) * span.length_s
    ]


def _without_rest(run: Sequence[Span], shortest_s: float) -> list[Span]:
    """Join what is left at the end of a run to the span before it."""
    if len(run) > 1 and run[-1].length_s < shortest_s:
        return [*run[:-2], run[-2].joined(run[-1])]
    return list(run)


def _at_wall(span: Span, wall: WallMeter) -> Span:
    return dataclasses.replace(span, wall_j=wall.energy_between(span.started, span.ended))
