"""Experiences: the decision about each, its reason, its energy and its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from greentrain.control import Reason, UpdateMode
from greentrain.ledger import DecisionRow, OutcomeRow, RunRow
from greentrain.report.budget_status import BudgetHistory
from greentrain.report.document import (
    ExperienceCounts,
    ExperienceEntry,
    ReportedDecision,
    ReportedOutcome,
    RunFigures,
    RunSummary,
    Summary,
)
from greentrain.report.row_helpers import MeasuredWindow, ReportRows, grouped, parse, total
from greentrain.units import J_PER_WH

ENDINGS = {
    "failed": "failed",
    "stopped": "stopped at the cap",
    "unclosed": "killed, or still running",
}
"""Words for a run that was not completed, by its status."""
_OPTION = (
    "update_mode",
    "step_fraction",
    "predicted_j",
    "upper_bound_j",
    "predicted_gain",
    "gain_sd",
    "why_lost",
)


def entries(rows: ReportRows, statuses: Mapping[str, str]) -> list[ExperienceEntry]:
    """List every decision with its outcome, in the order decided.

    Args:
        rows: The ledger's rows by kind.
        statuses: Status by run id, which explains a missing outcome.
    """
    outcomes = Outcomes(rows)
    shadow = shadow_runs(rows["run"])
    windows = grouped(rows["window"], lambda window: window["reservation_id"])
    overruns = {row["reservation_id"]: row["overrun_j"] for row in rows["settlement"]}
    names = {row["budget_id"]: row["name"] for row in rows["budget"]}
    history = BudgetHistory(rows)
    listed: list[ExperienceEntry] = []
    for decision in rows["decision"]:
        outcome = outcomes.of(decision)
        last = decision["entry_id"] if outcome is None else outcome["entry_id"]
        reservation_id = decision["reservation_id"]
        paid = windows.get(reservation_id, [])
        status = statuses.get(decision["run_id"], "unclosed")
        entry: ExperienceEntry = {
            **_decision(decision),
            **(_interrupted(paid, status) if outcome is None else _done(outcome)),
            "update_energy_j": 0.0 if reservation_id is None else _update_j(paid),
            "shadow": decision["run_id"] in shadow,
            "reported_energy_j": None,
            "overrun_j": overruns.get(reservation_id or ""),
            "budget": names.get(decision["budget_id"]),
            "budget_left_after_j": history.left_j(decision["budget_id"], last),
        }
        if entry["shadow"]:  # the energy of another job is no figure of this ledger
            if outcome is not None and outcome["steps"] > 0:
                entry["reported_energy_j"] = outcome["energy_j"]
            entry["energy_j"] = entry["update_energy_j"] = None
        listed.append(entry)
    return listed


class Outcomes:
    """Outcomes by decision: of the stream's updates, and of its baseline retrainings.

    An outcome belongs to the decision of its run at its position. The last outcome of a killed run
    may be in the next run of its stream. It then belongs to the decision with the same reservation.
    Without a reservation, stream, experience and position have to be the same.

    Args:
        rows: The ledger's rows by kind.
    """

    def __init__(self, rows: ReportRows) -> None:
        baselines = {row["reservation_id"] for row in rows["decision"] if is_baseline(row)}
        names = {row["run_id"]: row["name"] for row in rows["run"]}
        self._of_baselines: dict[str | None, OutcomeRow] = {}
        self._of_updates: dict[tuple[str, int], OutcomeRow] = {}
        decided: set[tuple[str, int]] = set()
        earlier: dict[tuple[Any, ...], tuple[str, int]] = {}
        for decision in rows["decision"]:
            if not is_baseline(decision):
                place = decision["run_id"], decision["position"]
                decided.add(place)
                earlier[_identity(decision, names)] = place
        for row in rows["outcome"]:
            if row["reservation_id"] in baselines:
                self._of_baselines[row["reservation_id"]] = row
                continue
            place = row["run_id"], row["position"]
            if place not in decided:
                place = earlier.get(_identity(row, names), place)
            self._of_updates.setdefault(place, row)

    def of(self, decision: DecisionRow) -> OutcomeRow | None:
        """Return the outcome of a decision; ``None`` if none was recorded."""
        if is_baseline(decision):
            return self._of_baselines.get(decision["reservation_id"])
        return self.of_update(decision)

    def of_update(self, decision: DecisionRow) -> OutcomeRow | None:
        """Return the outcome of the update at the experience that a decision is about."""
        return self._of_updates.get((decision["run_id"], decision["position"]))


def _identity(row: DecisionRow | OutcomeRow, names: Mapping[str, str]) -> tuple[Any, ...]:
    """Return what a decision and its outcome have in common, also in different runs."""
    if row["reservation_id"] is not None:
        return (row["reservation_id"],)
    return names.get(row["run_id"]), row["experience_id"], row["position"]


def is_baseline(row: DecisionRow | ExperienceEntry) -> bool:
    """Return whether a decision is about a baseline retraining."""
    return bool(row["reason"] == Reason.BASELINE)


def shadow_runs(runs: Sequence[RunRow]) -> set[str]:
    """Return the ids of the runs in shadow mode, in which another job trained."""
    return {
        row["run_id"]
        for row in runs
        if settings_of(parse(row["environment"], {})).get("shadow") is True
    }


def settings_of(environment: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings that a run recorded in its environment; empty if there are none."""
    settings = environment.get("settings")
    return settings if isinstance(settings, dict) else {}


def summary(experiences: Sequence[ExperienceEntry], runs: Sequence[RunFigures]) -> Summary:
    """Sum up the experiences of all runs, and of each.

    Metrics of different runs are not averaged. If more than one run has a metric, the figures over
    all runs are ``None``, and ``by_run`` has those of each run.
    """
    by_run = grouped(experiences, lambda experience: experience["run_id"])
    each: list[RunSummary] = [
        {"run_id": run["run_id"], "name": run["name"], **_counts(by_run[run["run_id"]])}
        for run in runs
        if run["run_id"] in by_run
    ]
    found: Summary = {**_counts(experiences), "by_run": each}
    with_metric = [one for one in each if one["final_metric"] is not None]
    alone = with_metric[0] if len(with_metric) == 1 else None
    found["metric"] = None if alone is None else alone["metric"]
    found["final_metric"] = None if alone is None else alone["final_metric"]
    found["anytime_metric"] = None if alone is None else alone["anytime_metric"]
    return found


def _decision(row: DecisionRow) -> ReportedDecision:
    min_gain_per_j = row["min_gain_per_j"]
    state = parse(row["state"], {})
    # Each table of earlier options is already in its own decision, as its alternatives.
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
        "min_gain_per_j": min_gain_per_j,
        "min_gain_per_wh": None if min_gain_per_j is None else min_gain_per_j * J_PER_WH,
        "state": state,
        "alternatives": [
            {key: one.get(key) for key in _OPTION}
            for one in parse(row["alternatives"], [])
            if isinstance(one, dict)
        ],
    }


def _interrupted(windows: Sequence[MeasuredWindow], run_status: str) -> ReportedOutcome:
    return {
        "status": "interrupted",
        "interruption": ENDINGS.get(run_status, "no outcome was recorded"),
        "finished_utc": None,
        "metric": None,
        "metric_before": None,
        "metric_after": None,
        "steps": None,
        "planned_steps": None,
        "energy_j": total(window["energy_j"] for window in windows),
        "kept": None,
    }


def _done(outcome: OutcomeRow) -> ReportedOutcome:
    return {
        "status": "done",
        "interruption": None,
        "finished_utc": outcome["recorded_utc"],
        "metric": outcome["metric"],
        "metric_before": outcome["metric_before"],
        "metric_after": outcome["metric_after"],
        "steps": outcome["steps"],
        "planned_steps": outcome["planned_steps"],
        "energy_j": outcome["energy_j"],
        "kept": outcome["kept"],
    }


def _update_j(windows: Sequence[MeasuredWindow]) -> float | None:
    """Return the joules of the update alone, without the probe, as predictions are."""
    if not all(window["complete"] for window in windows):
        return None
    return total(window["energy_j"] for window in windows)


def _counts(experiences: Sequence[ExperienceEntry]) -> ExperienceCounts:
    done = [one for one in experiences if one["status"] == "done"]
    modes = Counter(one["update_mode"] for one in done if not one["shadow"])
    reached = [one for one in done if one["metric_after"] is not None]
    summed = total(one["metric_after"] for one in reached)
    return {
        "experiences": len(experiences),
        "done": len(done),
        "interrupted": len(experiences) - len(done),
        "not_kept": sum(one["kept"] is False for one in done),
        "update_modes": {str(mode): modes[mode] for mode in UpdateMode},
        "metric": reached[-1]["metric"] if reached else None,
        "final_metric": reached[-1]["metric_after"] if reached else None,
        "anytime_metric": None if summed is None else summed / len(reached),
    }
