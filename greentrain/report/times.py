"""When a window's energy was drawn: the moments that were its own.

The ledger holds when a window began and how many seconds were its own. Phases inside it, which have
windows of their own, lie in between: an hour of fitting around its epochs may have ten seconds of
its own, spread over the whole hour.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from greentrain.errors import LedgerError
from greentrain.report.row_helpers import Row, Rows
from greentrain.units import utc_text

Span = tuple[int, int]
"""From when to when, in microseconds since 1970; without the last."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_SLACK_US = 50_000
"""How far the clock that dates windows and the one that measures them may be apart: what is left of
a window after less than this is not looked for behind the next one."""


def with_times(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give windows their moments.

    Args:
        windows: Windows of any runs; they are changed.

    Returns:
        The same, each with ``times``: the spans that were its own, in order.

    Raises:
        LedgerError: If a time cannot be read at all.
    """
    by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for window in windows:
        by_run[window["run_id"]].append(window)
    for of_it in by_run.values():
        for window, spans in zip(of_it, own_times(of_it), strict=True):
            window["times"] = spans
    return windows


def ended_utc(window: Row) -> str:
    """Return when a window with ``times`` ended, as the ledger writes moments."""
    return utc_text(_EPOCH + window["times"][-1][1] * _US)


def own_times(windows: Rows) -> list[tuple[Span, ...]]:
    """Find the moments of the windows of one run.

    Phases are nested, so a window that begins after another lies inside it or behind it. The last
    to begin has its seconds in one piece; one that began before it has those that are left free,
    from its beginning on, until its own seconds are full.

    Args:
        windows: Rows with ``started_utc`` and ``duration_s``.

    Returns:
        The spans of each, at least one, in order.

    Example:
        >>> def row(started_s, duration_s):
        ...     started = datetime.fromtimestamp(started_s, UTC)
        ...     return {"started_utc": utc_text(started), "duration_s": duration_s}
        >>> own_times([row(0, 3), row(1, 4)])  # four seconds inside something of three
        [((0, 1000000), (5000000, 7000000)), ((1000000, 5000000),)]
    """
    starts = [_us(window) for window in windows]
    # What is inside another window was closed, and recorded, before it.
    order = sorted(range(len(windows)), key=lambda place: (-starts[place], place))
    taken: list[Span] = []  # disjoint, the earliest last
    found: list[tuple[Span, ...]] = [()] * len(windows)
    for place in order:
        start, left = starts[place], round(windows[place]["duration_s"] * 1e6)
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
    """Return how long spans are together, in microseconds.

    Example:
        >>> length([(0, 10), (20, 25)])
        15
    """
    return sum(end - start for start, end in spans)


def _us(window: Row) -> int:
    for name in ("started_utc", "recorded_utc"):  # the first may have been tampered with
        try:
            return (datetime.fromisoformat(window[name]) - _EPOCH) // _US
        except (KeyError, TypeError, ValueError):
            continue
    raise LedgerError(f"cannot read when a window began: {window['started_utc']!r:.80}")
