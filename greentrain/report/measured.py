"""Read the windows of a report once, and sum up those of each run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from operator import itemgetter

from greentrain.ledger import RunRow, last_descriptions
from greentrain.report.budget_payments import PaidWindows, pay
from greentrain.report.document import Overlap, WindowFigures
from greentrain.report.ledger_reading import LedgerContents
from greentrain.report.limits import MOST_WINDOWS, NO_SINK, Latest, Sink
from greentrain.report.overlaps import MeteredRun, Overlaps, overlapping_runs
from greentrain.report.row_helpers import MeasuredWindow, ReportRows, Span, grouped, parse
from greentrain.report.run_windows import RunWindows
from greentrain.report.scope import Scope
from greentrain.report.times import ended_utc
from greentrain.report.window_list import tagged, window_figures


@dataclass(slots=True, kw_only=True)
class Windows:
    """The windows of a report: sums, and the last ones.

    Args:
        measured: Sums over the windows of each run with any, as measured.
        counted: The same, with energy that two runs measured counted once.
        paid: Sums over the windows of each reservation, of all runs.
        listed: The last windows.
        left_out: Number of windows before these.
        overlaps: Energy that two runs measured at once.
        finer_j: Joules by phase that are counted in a use of ``measure``.
    """

    measured: dict[str, RunWindows] = field(default_factory=dict)
    counted: dict[str, RunWindows] = field(default_factory=dict)
    paid: dict[str, PaidWindows] = field(default_factory=dict)
    listed: list[WindowFigures] = field(default_factory=list)
    left_out: int = 0
    overlaps: list[Overlap] = field(default_factory=list)
    finer_j: dict[str, float] = field(default_factory=dict)


def read_windows(
    contents: LedgerContents, scope: Scope, chosen: Collection[str] | None, sink: Sink
) -> Windows:
    """Read all windows, run by run. Those of runs that overlap are read once more, together.

    Args:
        contents: The ledgers.
        scope: The scope of the report.
        chosen: Ids of its runs; ``None`` for all.
        sink: Takes each window.
    """
    found = Windows()
    latest: Latest[MeasuredWindow] = Latest(MOST_WINDOWS, itemgetter("entry_id"))
    spans: dict[str, dict[str, Span]] = {}
    runs = {row["run_id"]: row for row in contents.rows["run"]}
    for windows in contents.windows():
        pay(found.paid, windows)
        run_id = windows[0]["run_id"]
        if chosen is not None and run_id not in chosen:
            continue
        spans[run_id] = _spans(windows)
        within = _within(windows, scope)
        if within:
            found.measured[run_id] = RunWindows(within)
        latest.add(*within)
        if sink is not NO_SINK:
            for window in within:
                sink.window(tagged(window_figures(window), runs.get(run_id)))
    found.listed = [window_figures(window) for window in latest.listed()]
    found.left_out = latest.count - len(found.listed)
    found.counted = dict(found.measured)
    # Found before the interval is cut out, so that the reports of two months sum to that of both.
    _count_once(found, contents, scope, spans)
    return found


def host_of(row: RunRow) -> str | None:
    """Return the host of a run."""
    host = parse(row["environment"], {}).get("host", row["host"])
    return host if isinstance(host, str) else None


def _count_once(
    found: Windows, contents: LedgerContents, scope: Scope, spans: dict[str, dict[str, Span]]
) -> None:
    runs = _metered(contents.rows, spans)
    together = overlapping_runs(runs, spans)
    windows = [
        window
        for run in runs
        if run["run_id"] in together
        for window in contents.windows_of_run(run["run_id"])
    ]
    windows.sort(key=itemgetter("entry_id"))
    overlaps = Overlaps(runs, windows)
    within = _within(windows, scope)
    found.overlaps = overlaps.listed(within)
    found.finer_j = overlaps.finer_j(within)
    for run_id, held in grouped(overlaps.counted(within), itemgetter("run_id")).items():
        found.counted[run_id] = RunWindows(held)


def _within(windows: list[MeasuredWindow], scope: Scope) -> list[MeasuredWindow]:
    if not scope.of_some_time:
        return windows
    return [window for window in windows if scope.holds(ended_utc(window))]


def _metered(rows: ReportRows, among: Collection[str]) -> list[MeteredRun]:
    sources = last_descriptions(rows["source"])
    return [
        {
            "run_id": row["run_id"],
            "kind": row["kind"],
            "opened_utc": row["recorded_utc"],
            "host": host_of(row),
            "sources": list(sources.get(row["run_id"], {}).values()),
        }
        for row in rows["run"]
        if row["run_id"] in among
    ]


def _spans(windows: list[MeasuredWindow]) -> dict[str, Span]:
    """Return the time from the first to the last joule of each source."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for window in windows:
        start, end = window["times"][0][0], window["times"][-1][1]
        for name, joules in window["joules"].items():
            if joules is not None:
                if start < starts.get(name, start + 1):
                    starts[name] = start
                if end > ends.get(name, end - 1):
                    ends[name] = end
    return {name: (start, ends[name]) for name, start in starts.items()}
