"""Cut nested windows into spans of time to compare software with the wall."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from greentrain.energy.boundary import boundary
from greentrain.energy.wall import WallMeter
from greentrain.energy.windows import Window

SPAN_INTERVALS = 10.0
"""Least sampling intervals of the wall in a span, so that an edge is a tenth of it."""

_MAX_HOLES = 0.02  # largest share of a span outside all windows
_MIN_INSIDE = 0.8  # least share of nested phases in a phase that is cut at them


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredSpan:
    """A span of time filled by windows, and its joules.

    Args:
        started: Its beginning.
        ended: Its end.
        filled_s: Seconds of it that lie in windows.
        software_j: Joules by software; ``None`` if a part is unknown.
    """

    started: datetime
    ended: datetime
    filled_s: float
    software_j: float | None

    @property
    def length_s(self) -> float:
        """Seconds from beginning to end."""
        return (self.ended - self.started).total_seconds()

    def joined(self, later: MeteredSpan) -> MeteredSpan:
        """Return one span from the start of this one to the end of a later one."""
        known = self.software_j is not None and later.software_j is not None
        return MeteredSpan(
            started=self.started,
            ended=max(self.ended, later.ended),
            filled_s=self.filled_s + later.filled_s,
            software_j=(self.software_j or 0.0) + (later.software_j or 0.0) if known else None,
        )


@dataclass(slots=True)
class NestedPhase:
    """A phase with the phases inside it.

    Args:
        span: Its time and joules, with those of the phases inside it.
        inside: The phases inside it, in order of time.
    """

    span: MeteredSpan
    inside: list[NestedPhase] = field(default_factory=list)

    def pieces(self) -> Iterator[MeteredSpan]:
        """Cut the phase at those inside it if they make up most of it; else keep it whole."""
        inner_s = sum(phase.span.length_s for phase in self.inside)
        if self.inside and inner_s >= _MIN_INSIDE * self.span.length_s:
            for phase in self.inside:
                yield from phase.pieces()
        else:
            yield self.span


def boundaries(windows: Iterable[Window]) -> set[str]:
    """Return the measurement boundaries of the complete windows."""
    named = (boundary(window.reading.energy_j) for window in windows if window.reading.complete)
    return {name for name in named if name is not None}


def phases(windows: Iterable[Window]) -> list[NestedPhase]:
    """Nest windows in the ones that enclose them; return the outermost, by time."""
    outermost: list[NestedPhase] = []
    around: list[NestedPhase] = []
    for window in sorted(windows, key=lambda one: (one.started, -one.ended.timestamp())):
        while around and around[-1].span.ended <= window.started:
            around.pop()
        phase = NestedPhase(
            MeteredSpan(
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


def spans(
    pieces: Iterable[MeteredSpan], wall: WallMeter, every_s: float
) -> list[tuple[MeteredSpan, float]]:
    """Join adjacent pieces of time to spans that are long enough for the wall.

    Args:
        pieces: Pieces in order of time that do not overlap.
        wall: The wall meter.
        every_s: Its sampling interval in seconds.

    Returns:
        Spans with their joules at the wall, without unknown ones, short ones and ones with holes.
    """
    shortest_s = SPAN_INTERVALS * every_s
    runs: list[list[MeteredSpan]] = []  # adjacent spans; all but the last one long enough
    for piece in pieces:
        if piece.software_j is None or wall.energy_between(piece.started, piece.ended) is None:
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
    return [
        (span, wall_j)
        for run in runs
        for span in _without_rest(run, shortest_s)
        if (wall_j := wall.energy_between(span.started, span.ended)) is not None
        and span.length_s >= shortest_s
        and span.filled_s >= (1.0 - _MAX_HOLES) * span.length_s
    ]


def _without_rest(run: Sequence[MeteredSpan], shortest_s: float) -> list[MeteredSpan]:
    """Join a short rest at the end of a run to the span before it."""
    if len(run) > 1 and run[-1].length_s < shortest_s:
        return [*run[:-2], run[-2].joined(run[-1])]
    return list(run)
