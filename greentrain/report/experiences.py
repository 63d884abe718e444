"""Experiences: what was decided about each, why, what it cost and what came of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from greentrain.control import Reason, UpdateMode
from greentrain.report.budget_status import BudgetHistory
from greentrain.report.row_helpers import Row, Rows, parse, total
from greentrain.units import J_PER_WH

_INTERRUPTIONS = {
    "failed": "failed",
    "unclosed": "killed, or still running",
}
_OPTION = (
    "update_mode",
    "step_fraction",
    "predicted_j",
    "upper_bound_j",
    "predicted_gain",
    "gain_sd",
    "why_lost",
)


def entries(rows: Mapping[str, Rows], statuses: Mapping[str, str]) -> list[dict[str, Any]]:
    """List every decision with its outcome, in the order decided.

    Args:
        rows: The ledger's rows by kind.
        statuses: Status by run id, which says why a decision has no outcome.
    """
    outcomes = Outcomes(rows)
    advising = advised_runs(rows["run"])
    windows: dict[str, list[Row]] = defaultdict(list)
    for window in rows["window"]:
        windows[window["reservation_id"]].append(window)
    overruns = {row["reservation_id"]: row["overrun_j"] for row in rows["settlement"]}
    names = {row["budget_id"]: row["name"] for row in rows["budget"]}
    history = BudgetHistory(rows)
    listed = []
    for decision in rows["decision"]:
        outcome = outcomes.of(decision)
        last = decision["entry_id"] if outcome is None else outcome["entry_id"]
        reservation_id = decision["reservation_id"]
        status = statuses.get(decision["run_id"], "unclosed")
        listed.append(
            {
                **_decided(decision),
                **_came(outcome, windows.get(reservation_id, []), status),
                "update_energy_j": _update_j(reservation_id, windows),
                **_advice(outcome, advised=decision["run_id"] in advising),
                "overrun_j": overruns.get(reservation_id),
                "budget": names.get(decision["budget_id"]),
                "budget_left_after_j": history.left_j(decision["budget_id"], last),
            }
        )
    return listed


class Outcomes:
    """Find what came of decisions: that of an experience, or that of a control beside it.

    Args:
        rows: The ledger's rows by kind.
    """

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        controls = {
            row["reservation_id"] for row in rows["decision"] if row["reason"] == Reason.BASELINE
        }
        self._of_updates, self._of_controls = {}, {}
        for row in rows["outcome"]:
            if row["reservation_id"] in controls:
                self._of_controls[row["reservation_id"]] = row
            else:
                self._of_updates[row["run_id"], row["position"]] = row

    def of(self, decision: Row) -> Row | None:
        """Return what came of a decision; ``None`` if nothing was recorded."""
        if decision["reason"] == Reason.BASELINE:
            return self._of_controls.get(decision["reservation_id"])
        return self.of_update(decision)

    def of_update(self, decision: Row) -> Row | None:
        """Return what came of the update of the experience that a decision is about."""
        return self._of_updates.get((decision["run_id"], decision["position"]))


def advised_runs(runs: Rows) -> set[str]:
    """Return the ids of runs whose decisions are advice: another job trained, and none of them."""
    return {row["run_id"] for row in runs if settings_of(row).get("shadow") is True}


def settings_of(run: Row) -> Row:
    """Return what a run says that it was configured with; nothing if it says nothing."""
    environment = run["environment"]
    told = parse(environment, {}) if isinstance(environment, str) else environment
    settings = told.get("settings") if isinstance(told, dict) else None
    return settings if isinstance(settings, dict) else {}


def summary(experiences: Sequence[Row], runs: Sequence[Row]) -> dict[str, Any]:
    """Sum up the experiences of all runs, and of each.

    Metrics of different runs are not averaged: with more than one run that has a metric, the
    figures over all of them are ``None`` and those of each run stand in ``by_run``.
    """
    by_run: dict[str, list[Row]] = defaultdict(list)
    for experience in experiences:
        by_run[experience["run_id"]].append(experience)
    each = [
        {"run_id": run["run_id"], "name": run["name"], **_summed(by_run[run["run_id"]])}
        for run in runs
        if run["run_id"] in by_run
    ]
    with_metric = [one for one in each if one["final_metric"] is not None]
    metrics = {"metric": None, "final_metric": None, "anytime_metric": None}
    if len(with_metric) == 1:
        metrics = {key: with_metric[0][key] for key in metrics}
    return {**_summed(experiences), **metrics, "by_run": each}


def _decided(row: Row) -> dict[str, Any]:
    price_per_j = row["price_per_j"]
    state = parse(row["state"], {})
    # Every table of earlier offers stands in its own decision already, as its alternatives.
    state.pop("tables", None)
    return {
        "run_id": row["run_id"],
        "position": row["position"],
        "experience_id": row["experience_id"],
        "reservation_id": row["reservation_id"],
        "decided_utc": row["recorded_utc"],
        "update_mode": row["update_mode"],
        "step_fraction": row["step_fraction"],
        "reason": row["reason"],
        "sentence": row["sentence"],
        "predicted_j": row["predicted_j"],
        "upper_bound_j": row["upper_bound_j"],
        "price_per_j": price_per_j,
        "price_per_wh": None if price_per_j is None else price_per_j * J_PER_WH,
        "state": state,
        "alternatives": [
            {key: one.get(key) for key in _OPTION}
            for one in parse(row["alternatives"], [])
            if isinstance(one, dict)
        ],
    }


def _came(outcome: Row | None, windows: Rows, run_status: str) -> dict[str, Any]:
    if outcome is None:
        return {
            "status": "interrupted",
            "interruption": _INTERRUPTIONS.get(run_status, "no outcome was recorded"),
            "finished_utc": None,
            "metric": None,
            "metric_before": None,
            "metric_after": None,
            "steps": None,
            "planned_steps": None,
            "energy_j": total(window["energy_j"] for window in windows),
            "kept": None,
        }
    same = ("metric", "metric_before", "metric_after", "steps", "planned_steps", "energy_j", "kept")
    return {
        "status": "done",
        "interruption": None,
        "finished_utc": outcome["recorded_utc"],
        **{key: outcome[key] for key in same},
    }


def _advice(outcome: Row | None, *, advised: bool) -> dict[str, Any]:
    """Say whether a decision is advice; what the other job drew is no figure of this ledger's."""
    if not advised:
        return {"advice": False, "told_energy_j": None}
    trained = outcome is not None and outcome["steps"] > 0
    told_j = outcome["energy_j"] if outcome is not None and trained else None
    unknown = {"energy_j": None, "update_energy_j": None}
    return {"advice": True, "told_energy_j": told_j, **unknown}


def _update_j(reservation_id: str | None, windows: Mapping[str, Rows]) -> float | None:
    """Joules of the update alone, without the look at the data: what a prediction is of."""
    if reservation_id is None:
        return 0.0
    of_it = windows.get(reservation_id, [])
    if not all(window["complete"] for window in of_it):
        return None
    return total(window["energy_j"] for window in of_it)


def _summed(experiences: Sequence[Row]) -> dict[str, Any]:
    done = [one for one in experiences if one["status"] == "done"]
    counts = Counter(one["update_mode"] for one in done if not one["advice"])
    reached = [one for one in done if one["metric_after"] is not None]
    values = [one["metric_after"] for one in reached]
    summed = total(values)
    return {
        "experiences": len(experiences),
        "done": len(done),
        "interrupted": len(experiences) - len(done),
        "not_kept": sum(one["kept"] is False for one in done),
        "update_modes": {str(mode): counts[mode] for mode in UpdateMode},
        "metric": reached[-1]["metric"] if reached else None,
        "final_metric": values[-1] if values else None,
        "anytime_metric": None if summed is None else summed / len(values),
    }
