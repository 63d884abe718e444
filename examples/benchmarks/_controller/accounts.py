"""Rows on the joules of runs: exceeded budgets, joules besides training, and predictions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from _results import Row

from _controller.gaps import BUDGETS
from _controller.shares import Run

_LEARNED = 3
"""Updates of a run before its predictions are judged."""


def violation_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Count the exceeded budgets of all runs."""
    budgeted = [run for run in runs.values() if run.get("budget_j") is not None]
    every = [run for run in runs.values() if "violations" in run]
    over_j = [run["overrun_j"] for run in budgeted]
    return [
        Row(
            id="violations",
            what="budgets exceeded, or ledgers that do not verify",
            value=float(sum(run["violations"] for run in every)) if every else None,
            unit="runs",
            reach=0.0,
            better="equal",
            seeds=len(every) or 1,
            note=f"{len(budgeted)} of the runs under a budget that binds; reservations were "
            f"overdrawn by {sum(over_j):.2f} J in all of {sum(_spent(budgeted)):,.0f} J"
            if budgeted
            else "not run",
        )
    ]


def overhead_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the joules of probes and decisions, in % of the budget, for each budget."""
    rows = []
    for budget in BUDGETS:
        shares = [
            100 * run["phases_j"].get("probe", 0.0) / run["budget_j"]
            for run in _default(runs)
            if run["share"] == budget
        ]
        if not shares:
            continue
        rows.append(
            Row(
                id="overhead",
                what=f"joules for probes and decisions at {budget} % of full's joules",
                value=statistics.fmean(shares),
                unit="% of the budget",
                reach=2.0,
                seeds=len(shares),
                interval=(min(shares), max(shares)),
                note="mean, lowest and highest run; an experience without a probe uses no metered "
                "joules, and its decision takes some milliseconds",
            )
        )
    return rows or [_not_run("overhead", "joules for probes and decisions", "% of the budget", 2.0)]


def cost_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the error of predicted joules after three updates, and the share of uncut updates."""
    late = [entry for run in _default(runs) for entry in _after_learning(run)]
    uncut = [entry for entry in late if entry["steps"] == entry["planned"]]
    if not uncut:
        return [
            _not_run("cost_error", "error of the cost model", "%", 5.0),
            _not_run("cost_cover", "updates that are not cut", "%", 97.0),
        ]
    errors = [100 * abs(entry["predicted_j"] / entry["update_j"] - 1) for entry in uncut]
    low, _, high = statistics.quantiles(errors, n=4) if len(errors) > 1 else errors * 3
    covered = 100 * len(uncut) / len(late)
    note = "processor time at 10 W, which other processes lengthen by up to a third here"
    return [
        Row(
            id="cost_error",
            what="median error of the predicted joules, after three updates",
            value=statistics.median(errors),
            unit="%",
            reach=5.0,
            seeds=len(errors),
            interval=(low, high),
            note=f"updates of the default that ran to their end; with quartiles; {note}",
        ),
        Row(
            id="cost_cover",
            what="updates that finish their planned steps uncut, after three updates",
            value=covered,
            unit="%",
            reach=97.0,
            better="higher",
            seeds=len(late),
            note=f"updates of the default; {note}",
        ),
    ]


def _default(runs: Mapping[str, Run]) -> list[Run]:
    return [
        run
        for run in runs.values()
        if run.get("policy") == "default"
        and run.get("memory", "all") == "all"
        and not run.get("counted")
    ]


def _after_learning(run: Run) -> Iterator[Mapping[str, Any]]:
    updates = [entry for entry in run["experiences"] if entry["steps"]]
    yield from updates[_LEARNED:]


def _spent(runs: list[Run]) -> list[float]:
    return [run["spent_j"] for run in runs]


def _not_run(id: str, what: str, unit: str, reach: float) -> Row:
    return Row(id=id, what=what, value=None, unit=unit, reach=reach, note="not run")
