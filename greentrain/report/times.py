"""The moments in which a window's energy was used.

The ledger holds the start of a window and its seconds without the phases nested in it. Those phases
have their own windows. An hour of fitting may have only ten seconds outside its epochs, spread over
the whole hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from greentrain.errors import LedgerError
from greentrain.report.row_helpers import MeasuredWindow, Span, grouped
from greentrain.units import utc_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_SLACK_US = 50_000
"""Largest difference between the clock that dates windows and the one that measures them.

A remainder of a window below this is dropped when the next window follows.
"""


def with_times(windows: list[MeasuredWindow]) -> list[MeasuredWindow]:
    """Set the ``times`` of windows of any runs, and return the same windows.

    Raises:
        LedgerError: If a time cannot be read.
    """
    for of_run in grouped(windows, lambda window: window["run_id"]).values():
        for window, spans in zip(of_run, own_times(of_run), strict=True):
            window["times"] = spans
    return windows


def ended_utc(window: MeasuredWindow) -> str:
    """Return the end of a window with ``times``, as the ledger writes moments."""
    return utc_text(_EPOCH + window["times"][-1][1] * _US)


def own_times(windows: Sequence[MeasuredWindow]) -> list[tuple[Span, ...]]:
    """Find the moments of the windows of one run.

    Phases are nested, so a window that begins after another lies inside it or behind it. The last
    to begin has its seconds in one piece. An earlier one has the time that is left free from its
    start on, until its own seconds are used up.

    Args:
        windows: Windows with ``started_utc`` and ``duration_s``.

    Returns:
        The spans of each, at least one, in order.

    Example:
        >>> def row(started_s, duration_s):
        ...     started = datetime.fromtimestamp(started_s, UTC)
        ...     return {"started_utc": utc_text(started), "duration_s": duration_s}
        >>> own_times([row(0, 3), row(1, 4)])  # four seconds inside something of three
        [((0, 1000000), (5000000, 7000000)), ((1000000, 5000000),)]
    """
    starts = [started_us(window) for window in windows]
    lengths = [round(window["duration_s"] * 1e6) for window in windows]
    ends = [start + length_us for start, length_us in zip(starts, lengths, strict=True)]
    if all([end <= start for end, start in zip(ends, starts[1:], strict=False)]):
        return [(span,) for span in zip(starts, ends, strict=True)]  # nothing is nested
    # A nested window was closed, and recorded, before the one around it.
    order = sorted(range(len(windows)), key=lambda place: (-starts[place], place))
    taken: list[Span] = []  # disjoint, the earliest last
    found: list[tuple[Span, ...]] = [()] * len(windows)
    for place in order:
        start, left = starts[place], lengths[place]
        at = start
        spans: list[Span] = []
        while left > 0:
            if taken and taken[-1][0] <= at:
                if spans and left <= _SLACK_US:
                    break
                at = max(at, taken.pop()[1])
                continue
            end = at + left if not taken else min(at + left, taken[-1][0])
            spans.append((at, end))
            left -= end - at
            at = end
        if at > start:
            taken.append((start, at))
        found[place] = tuple(spans) or ((start, start),)
    return found


def length(spans: Sequence[Span]) -> int:
    """Return the total length of spans in microseconds.

    Example:
        >>> length([(0, 10), (20, 25)])
        15
    """
    return sum(end - start for start, end in spans)


def started_us(window: MeasuredWindow) -> int:
    """Return the start of a window in microseconds since 1970.

    Raises:
        LedgerError: If it cannot be read.
    """
    # The first may have been tampered with.
    for text in (window.get("started_utc"), window.get("recorded_utc")):
        try:
            since = datetime.fromisoformat(str(text)) - _EPOCH
            # Dividing by a microsecond takes longer.
            return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        except (TypeError, ValueError):
            continue
    raise LedgerError(f"cannot read the start of a window: {window['started_utc']!r:.80}")
