"""Rows of the shares of the gap, of the reuse premium, and of the cells against other policies."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from _results import Row

from _controller.jobs import IN_NEW, RIVALS, STREAMS
from _controller.shares import (
    SURE,
    Mean,
    Run,
    anytime,
    best_fixed,
    gap,
    mean,
    once_and_always,
    pairs,
    samples,
    share,
)
from _controller.tables import simulated

STREAM_NAMES = {
    "a": "half of Fashion-MNIST in 10 iid arrivals",
    "b": "half of Fashion-MNIST in 5 arrivals of two classes",
    "c": "MNIST with abrupt, gradual or recurring drift",
    "d": "MNIST, eight stationary arrivals, then two turned by 45 degrees",
    "e": "MNIST, a mixture of new classes, a turn and a recurrence",
    "a_cnn": "a sixth of Fashion-MNIST in 10 iid arrivals, small CNN",
    "f": "US flights of 2013 by month, late or not, area under the ROC curve",
    "g": "MNIST, five arrivals and four exact copies of them",
    "h": "Fashion-MNIST, 20 to 40 % wrong labels in half of ten arrivals",
    "i": "Fashion-MNIST, four labels swapped and swapped back, judged on the present labels",
    "j": "Fashion-MNIST, arrivals of 40 to 4,000 samples",
    "k": "Fashion-MNIST, 40 arrivals of 60 samples",
    "l": "regression, Friedman's function with a drifting season",
    "m": "CIFAR-10 (JPEG) in 8 iid arrivals of 500 samples, small CNN",
}
REACH = {
    **{("a", 10): 92.0, ("a", 5): 75.0, ("b", 15): 98.0, ("c", 15): 99.0, ("c", 5): 95.0},
    **{("d", 10): 95.0, ("d", 5): 85.0, ("e", 10): 97.0, ("f", 10): 95.0},
}
BUDGETS = (2, 5, 10, 15, 20, 50)
CELLS = (
    *((stream, budget) for stream in STREAMS for budget in BUDGETS),
    *((stream, budget) for stream in IN_NEW for budget in (5, 15)),
)
IN_PREMIUM = (5, 10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fight:
    cell: str
    policy: str
    behind: Mean

    @property
    def lost(self) -> bool:
        return self.behind.interval is not None and self.behind.interval[0] > 0


def gap_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the share of the gap closed, for each stream and budget."""
    rows = []
    for stream in STREAM_NAMES:
        for budget in BUDGETS:
            found, reach = pairs(runs, stream, budget=budget), REACH.get((stream, budget))
            if found or reach is not None or budget in IN_NEW.get(stream, ()):
                rows.append(_gap_row(runs, stream, budget, reach, found))
    return rows


def premium_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the lead of the controller over the best schedule of FULL and SKIP."""
    rows = []
    for stream in STREAMS:
        for budget in IN_PREMIUM:
            what = f"share closed beyond the best FULL/SKIP schedule at {budget} %: "
            what += STREAM_NAMES[stream]
            found, null = pairs(runs, stream, budget=budget), _null(runs, stream)
            if not found or null:
                note = null or "not run"
                rows.append(_row("premium", what, None, "points", 10.0, note))
                continue
            each, best = [], []
            for run, full in found:
                once, always = once_and_always(full)
                best.append(100 * (best_fixed(full, run["budget_j"])[0] - once) / (always - once))
                each.append(share(run, full) - best[-1])
            note = (
                "the best of all schedules in hindsight, within the same budget, by the accuracy "
                f"on test data itself; it closes {statistics.fmean(best):.1f} %"
            )
            rows.append(_row("premium", what, mean(each), "points", 10.0, note))
    return rows


def cell_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Count the cells in which the controller is the best policy, or not significantly worse."""
    cells = [
        (stream, budget)
        for stream, budget in CELLS
        if not _null(runs, stream) and len(pairs(runs, stream, budget=budget)) > 1
    ]
    fights = {cell: _fights(runs, *cell) for cell in cells}
    best = [_best(each) for each in fights.values()]
    real = [fight for each in fights.values() for fight in each if fight.policy in RIVALS]
    lost = [fight for fight in real if fight.lost]
    method = "95 % intervals of Student's t, paired by seed"
    return [
        _cell_row(
            "cells in which the default is best, or not significantly worse than the best policy",
            [not fight.lost for fight in best],
            95.0,
            f"{method}; lost: {_list(fight for fight in best if fight.lost)}",
        ),
        _cell_row(
            "cells in which the default has the highest mean of all policies",
            [fight.behind.value <= 0 for fight in best],
            None,
            f"not so: {_list(fight for fight in best if fight.behind.value > 0)}",
        ),
        Row(
            id="cells",
            what="times that Greedy, a fixed update mode or evenly spread warm starts is "
            "significantly better",
            value=float(len(lost)) if real else None,
            unit="comparisons",
            reach=0.0,
            seeds=len(real) or 1,
            note=f"real runs on {_seeds(real)} seeds a cell; {method}; {_list(lost)}"
            if real
            else "not run",
        ),
    ]


def _gap_row(
    runs: Mapping[str, Run],
    stream: str,
    budget: int,
    reach: float | None,
    found: Sequence[tuple[Run, Run]],
) -> Row:
    id = f"gap_{stream}_{budget}"
    what = f"share of the gap closed at {budget} % of full's joules: {STREAM_NAMES[stream]}"
    null = _null(runs, stream)
    if not found or null:
        return _row(id, what, None, "%", reach, null or "not run")
    once, always = (statistics.fmean(each) for each in zip(*map(_ends, found), strict=True))
    used = statistics.fmean(100 * run["spent_j"] / full["update_j"] for run, full in found)
    trained = statistics.fmean(100 * samples(run) / samples(full) for run, full in found)
    note = (
        f"once {once:.4f}, full {always:.4f}, this {_anytime(found):.4f}; used {used:.1f} % of "
        f"full's joules, trained on {trained:.1f} % of its samples; seed by seed "
        f"{', '.join(f'{share(*pair):.1f}' for pair in found)}"
    )
    return _row(id, what, mean([share(*pair) for pair in found]), "%", reach, note)


def _fights(runs: Mapping[str, Run], stream: str, budget: int) -> list[_Fight]:
    """Compare the controller with each other policy in a cell, by simulation or by real runs."""
    found = pairs(runs, stream, budget=budget)
    ours = {run["seed"]: anytime(run) for run, _ in found}
    rivals = {
        name: dict(zip(ours, values, strict=True))
        for name, values in simulated([full for _, full in found], budget).items()
    }
    for policy in RIVALS:
        each = {run["seed"]: anytime(run) for run, _ in pairs(runs, stream, policy, budget)}
        if len(each.keys() & ours.keys()) > 1:
            rivals[policy] = each
    return [
        _Fight(
            cell=f"{stream} at {budget} %",
            policy=policy,
            behind=mean(
                [theirs[seed] - ours[seed] for seed in sorted(ours.keys() & theirs.keys())]
            ),
        )
        for policy, theirs in rivals.items()
    ]


def _best(fights: Sequence[_Fight]) -> _Fight:
    """Return the comparison with the best policy: the one with the largest deficit."""
    return max(fights, key=lambda fight: fight.behind.value)


def _seeds(fights: Sequence[_Fight]) -> str:
    seeds = sorted({fight.behind.seeds for fight in fights})
    return " or ".join(map(str, seeds))


def _list(fights: Iterable[_Fight]) -> str:
    lost = [f"{fight.cell} to {fight.policy} by {100 * fight.behind.value:.2f}" for fight in fights]
    return f"{'; '.join(lost)} points of accuracy (of R2 on l)" if lost else "none"


def _null(runs: Mapping[str, Run], stream: str) -> str:
    """Return the reason why a share of a stream's gap has no meaning; empty if it has one."""
    found = gap(runs, stream)
    if found is None:
        return "not run: there is no reference"
    if found.sure:
        return ""
    error = "unknown" if found.standard_error is None else f"{100 * found.standard_error:.2f}"
    return (
        f"not significant: the gap is {100 * found.value:.2f} points, its standard error {error}, "
        f"and {SURE:g} of them are needed"
    )


def _ends(pair: tuple[Run, Run]) -> tuple[float, float]:
    return once_and_always(pair[1])


def _anytime(found: Sequence[tuple[Run, Run]]) -> float:
    return statistics.fmean(anytime(run) for run, _ in found)


def _cell_row(what: str, held: Sequence[bool], reach: float | None, note: str) -> Row:
    return Row(
        id="cells",
        what=what,
        value=100 * statistics.fmean(held) if held else None,
        unit="% of cells",
        reach=reach,
        better="higher",
        seeds=len(held) or 1,
        note=note if held else "not run",
    )


def _row(id: str, what: str, found: Mean | None, unit: str, reach: float | None, note: str) -> Row:
    if found is not None:
        note = f"{note}; mean and 95 % interval over seeds"
    return Row(
        id=id,
        what=what,
        value=None if found is None else found.value,
        unit=unit,
        reach=reach,
        better="higher",
        seeds=1 if found is None else found.seeds,
        interval=None if found is None else found.interval,
        note=note,
    )
