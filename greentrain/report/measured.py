"""Read the windows of a report once, and sum up those of each run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

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


class Part(NamedTuple):
    """The runs and the time of one report, of the several that are read at once.

    Args:
        scope: The scope of the report.
        chosen: Ids of its runs; ``None`` for all.
        sink: Takes each window.
        lists: Whether the last windows are listed.
    """

    scope: Scope
    chosen: Set[str] | None = None
    sink: Sink = NO_SINK
    lists: bool = True

    def has(self, run_id: str) -> bool:
        """Return whether a run is one of these."""
        return self.chosen is None or run_id in self.chosen


def read_windows(contents: LedgerContents, parts: Sequence[Part]) -> list[Windows]:
    """Read all windows once, run by run, for several reports.

    Those of runs that overlap are read once more, together.

    Args:
        contents: The ledgers.
        parts: The reports.

    Returns:
        The windows of each part; ``paid`` is the same for all.
    """
    paid: dict[str, PaidWindows] = {}
    found = [Windows(paid=paid) for _ in parts]
    latest = [Latest[MeasuredWindow](MOST_WINDOWS, itemgetter("entry_id")) for _ in parts]
    spans: dict[str, dict[str, Span]] = {}
    runs = {row["run_id"]: row for row in contents.rows["run"]}
    for windows in contents.windows():
        pay(paid, windows)  # a payment of grams stays as it was
        contents.restated(windows)
        run_id = windows[0]["run_id"]
        spans[run_id] = _spans(windows)
        ended = _ends(windows, parts)
        summed: dict[Scope, tuple[list[MeasuredWindow], RunWindows | None]] = {}
        for place, part in enumerate(parts):
            if not part.has(run_id):
                continue
            if part.scope not in summed:
                within = _within(windows, part.scope, ended)
                summed[part.scope] = within, RunWindows(within) if within else None
            within, sums = summed[part.scope]
            if sums is not None:
                found[place].measured[run_id] = sums
            latest[place].add(*within, keep=part.lists)
            if part.sink is not NO_SINK:
                for window in within:
                    part.sink.window(tagged(window_figures(window), runs.get(run_id)))
    shared = _Overlapping(contents, _metered(contents.rows, spans), spans)
    for part, one, last in zip(parts, found, latest, strict=True):
        one.listed = [window_figures(window) for window in last.listed()]
        one.left_out = last.count - len(one.listed)
        one.counted = dict(one.measured)
        # Found before the interval is cut out, so that two months sum to both.
        shared.count_once(one, part)
    return found


def host_of(row: RunRow) -> str | None:
    """Return the host of a run."""
    host = parse(row["environment"], {}).get("host", row["host"])
    return host if isinstance(host, str) else None


class _Overlapping:
    """The windows of runs that overlap, each of which is read once for all parts.

    Args:
        contents: The ledgers.
        runs: All runs with windows.
        spans: By run id and name of the source, the time from its first to its last joule.
    """

    def __init__(
        self,
        contents: LedgerContents,
        runs: Sequence[MeteredRun],
        spans: Mapping[str, Mapping[str, Span]],
    ) -> None:
        self._contents, self._runs, self._spans = contents, runs, spans
        self._windows: dict[str, list[MeasuredWindow]] = {}
        self._found: dict[frozenset[str], tuple[Overlaps, list[MeasuredWindow], list[str]]] = {}

    def count_once(self, found: Windows, part: Part) -> None:
        """Set the figures of a part in which energy that two runs measured counts once."""
        runs = [run for run in self._runs if part.has(run["run_id"])]
        together = frozenset(overlapping_runs(runs, self._spans))
        if not together:
            return
        if together not in self._found:
            windows = [
                window
                for run in runs
                if run["run_id"] in together
                for window in self._windows_of(run["run_id"])
            ]
            windows.sort(key=itemgetter("entry_id"))
            self._found[together] = Overlaps(runs, windows), windows, []
        overlaps, windows, ended = self._found[together]
        if not ended:
            ended += _ends(windows, [part])
        within = _within(windows, part.scope, ended)
        found.overlaps = overlaps.listed(within)
        found.finer_j = overlaps.finer_j(within)
        for run_id, held in grouped(overlaps.counted(within), itemgetter("run_id")).items():
            found.counted[run_id] = RunWindows(held)

    def _windows_of(self, run_id: str) -> list[MeasuredWindow]:
        if run_id not in self._windows:
            windows = self._contents.windows_of_run(run_id)
            self._windows[run_id] = self._contents.restated(windows)
        return self._windows[run_id]


def _ends(windows: Sequence[MeasuredWindow], parts: Sequence[Part]) -> list[str]:
    """Return the end of each window; nothing if no part is of some time only."""
    if not any(part.scope.of_some_time for part in parts):
        return []
    return [ended_utc(window) for window in windows]


def _within(
    windows: list[MeasuredWindow], scope: Scope, ended: Sequence[str]
) -> list[MeasuredWindow]:
    if not scope.of_some_time:
        return windows
    return [window for window, end in zip(windows, ended, strict=True) if scope.holds(end)]


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
