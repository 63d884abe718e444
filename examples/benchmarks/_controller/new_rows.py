"""Rows of the new streams: mean shares, copies without a limit, joules left, and units."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from _results import Better, Row

from _controller.jobs import APART, DESIGN, NEW, PLENTY, STREAMS, UNITS, UNITS_BUDGET
from _controller.shares import Run, gap, mean, pairs, score, share

MEANS = {5: 60.0, 15: 95.0}
"""Target of the mean share of the gap, by budget in %."""
CLOSED = 95.0
"""Share of the gap at the last arrival from which on no further update would gain."""
_IN_MEAN = tuple(stream for stream in NEW if stream != "f")


def mean_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the mean shares of the gap: of (g) to (m), of the design's half, and of the other."""
    groups: list[tuple[str, Sequence[str], bool]] = [
        ("(g) to (m)", _IN_MEAN, True),
        ("the design's half", DESIGN, False),
        ("the half apart", APART, False),
    ]
    return [
        _mean_row(runs, name, streams, budget, MEANS[budget] if held else None)
        for budget in MEANS
        for name, streams, held in groups
    ]


def plenty_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the joules on copies without a limit, and the share of the gap."""
    found = pairs(runs, PLENTY)
    what = "duplicates without a limit:"
    if not found:
        return [
            _not_run("plenty", f"{what} joules on exact copies", "% of all", 10.0),
            _not_run("plenty", f"{what} share of the gap closed", "%", 99.0, better="higher"),
        ]
    each = [100 * _used_j(run, copies=True) / _used_j(run) for run, _ in found]
    used = statistics.fmean(100 * _used_j(run) / full["update_j"] for run, full in found)
    skipped = sum(
        entry["mode"] == "SKIP" for run, _ in found for entry in run["experiences"] if _copy(entry)
    )
    copies = sum(_copy(entry) for run, _ in found for entry in run["experiences"])
    note = f"{skipped} of {copies} copies skipped; used {used:.1f} % of full's joules"
    closed = [share(*pair) for pair in found]
    return [
        _row("plenty", f"{what} joules on exact copies", each, "% of all", 10.0, note),
        _row("plenty", f"{what} share of the gap closed", closed, "%", 99.0, note, better="higher"),
    ]


def unspent_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the joules left at the end where another update would have gained."""
    return [
        _unspent_row(runs, name, streams)
        for name, streams in (("(a) to (e)", STREAMS), ("(f) to (m)", NEW))
    ]


def units_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Count the decisions that change if the metric is logged in another unit."""
    what = f"decisions that change if the loss of ({UNITS}) is logged times 0.01 or 1,000"
    found = [run for run in runs.values() if _of_units(run)]
    plain = {run["seed"]: run for run in found if run.get("logged") is None}
    others = [run for run in found if run.get("logged") is not None and run["seed"] in plain]
    if not others:
        return [_not_run("units", what, "decisions", 0.0, better="equal")]
    changed = {run["name"]: _changed(run, plain[run["seed"]]) for run in others}
    count = sum(len(run["experiences"]) for run in others)
    where = ", ".join(f"{number} in {name}" for name, number in changed.items() if number)
    return [
        Row(
            id="units",
            what=what,
            value=float(sum(changed.values())),
            unit="decisions",
            reach=0.0,
            better="equal",
            seeds=len(others),
            note=f"of {count} decisions; update mode, step fraction or steps; "
            f"{where or 'none changed'}",
        )
    ]


def _mean_row(
    runs: Mapping[str, Run], name: str, streams: Sequence[str], budget: int, reach: float | None
) -> Row:
    id, what = f"gap_new_{budget}", f"mean share of the gap closed at {budget} %: {name}"
    unsure = [each for each in streams if (found := gap(runs, each)) and not found.sure]
    by_seed = {
        stream: {run["seed"]: share(run, full) for run, full in pairs(runs, stream, budget=budget)}
        for stream in streams
        if stream not in unsure
    }
    missing = [stream for stream, shares in by_seed.items() if not shares]
    if missing or not by_seed:
        gone = ", ".join(missing) or ", ".join(streams)
        return _not_run(id, what, "%", reach, better="higher", note=f"not run: {gone}")
    seeds = sorted(set.intersection(*(set(shares) for shares in by_seed.values())))
    if not seeds:
        return _not_run(id, what, "%", reach, better="higher", note="not run: no seed on all")
    each = [statistics.fmean(shares[seed] for shares in by_seed.values()) for seed in seeds]
    means = {
        stream: statistics.fmean(shares[seed] for seed in seeds)
        for stream, shares in by_seed.items()
    }
    most = statistics.fmean(min(100.0, value) for value in means.values())
    note = ", ".join(f"{stream} {value:.1f}" for stream, value in means.items())
    note += f"; {most:.1f} if each counts as 100 at most"
    if unsure:
        note += f"; without {', '.join(unsure)}, whose gap is not significant"
    return _row(id, what, each, "%", reach, note, better="higher")


def _unspent_row(runs: Mapping[str, Run], name: str, streams: Iterable[str]) -> Row:
    what = f"joules left at the end where another update would have gained: {name}"
    cells: dict[str, list[float]] = {}
    for stream in streams:
        budgets = sorted({run["share"] for run in runs.values() if _limited(run, stream)})
        for budget in budgets:
            found = pairs(runs, stream, budget=budget)
            if found:
                cells[f"{stream} at {budget} %"] = [_unspent(*pair) for pair in found]
    each = [value for values in cells.values() for value in values]
    if not each:
        return _not_run("unspent", what, "% of the budget", 5.0)
    worst = max(cells, key=lambda cell: statistics.fmean(cells[cell]))
    return Row(
        id="unspent",
        what=what,
        value=statistics.fmean(each),
        unit="% of the budget",
        reach=5.0,
        seeds=len(each),
        interval=(min(each), max(each)),
        note=f"mean, lowest and highest run of the default; joules count unless the last model has "
        f"closed {CLOSED:g} % of the gap on the last test samples; most on {worst}: "
        f"{statistics.fmean(cells[worst]):.1f} %",
    )


def _unspent(run: Run, full: Run) -> float:
    """Return the joules left that an update could have used, in % of the budget."""
    last = len(full["experiences"]) - 1
    once, always = (score(full, full["experiences"][at]["trained"], last) for at in (0, last))
    reached = score(run, run["experiences"][last]["right"], last)
    if reached - once >= CLOSED / 100 * (always - once):
        return 0.0
    return float(100 * (run["budget_j"] - run["spent_j"]) / run["budget_j"])


def _limited(run: Run, stream: str) -> bool:
    return run.get("stream") == stream and run["policy"] == "default" and run["share"] is not None


def _of_units(run: Run) -> bool:
    wanted = (UNITS, "default", UNITS_BUDGET)
    return (run.get("stream"), run.get("policy"), run.get("share")) == wanted


def _changed(run: Run, plain: Run) -> int:
    """Count the experiences that were decided in another way."""
    keys = ("mode", "step_fraction", "planned")
    return sum(
        any(ours[key] != theirs[key] for key in keys)
        for ours, theirs in zip(run["experiences"], plain["experiences"], strict=True)
    )


def _copy(entry: Mapping[str, object]) -> bool:
    return bool(entry.get("copy"))


def _used_j(run: Run, *, copies: bool = False) -> float:
    """Return the joules of all experiences, or of the exact copies alone, probes included."""
    chosen = [entry for entry in run["experiences"] if _copy(entry) or not copies]
    return float(sum(entry["update_j"] + entry["beside_j"] for entry in chosen))


def _row(
    id: str,
    what: str,
    values: Sequence[float],
    unit: str,
    reach: float | None,
    note: str,
    *,
    better: Better = "lower",
) -> Row:
    found = mean(values)
    return Row(
        id=id,
        what=what,
        value=found.value,
        unit=unit,
        reach=reach,
        better=better,
        seeds=found.seeds,
        interval=found.interval,
        note=f"{note}; mean and 95 % interval over seeds",
    )


def _not_run(
    id: str,
    what: str,
    unit: str,
    reach: float | None,
    *,
    better: Better = "lower",
    note: str = "not run",
) -> Row:
    return Row(
        id=id,
        what=what,
        value=None,
        unit=unit,
        reach=reach,
        better=better,
        note=note,
    )
