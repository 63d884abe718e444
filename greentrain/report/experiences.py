"""Experiences: the decision about each, its reason, its energy and its outcome."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from greentrain.control import Reason
from greentrain.control.decision import chosen_method
from greentrain.ledger import DecisionRow, OutcomeRow, RunRow
from greentrain.report.budget_payments import NO_WINDOWS, PaidWindows
from greentrain.report.budget_status import BudgetHistory
from greentrain.report.document import (
    ExperienceEntry,
    ReportedDecision,
    ReportedOutcome,
)
from greentrain.report.row_helpers import parse
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


class UpdateFigures(ReportedOutcome):
    """The figures of an experience, without the texts and the budget of its decision."""

    run_id: str
    reason: str
    update_mode: str
    step_fraction: float
    update_energy_j: float | None
    shadow: bool
    reported_energy_j: float | None


class StreamKey(NamedTuple):
    """The identity of a stream: all runs of one kind and name in one ledger are parts of it.

    Args:
        ledger: Number of the ledger.
        kind: Kind of its runs.
        name: Its name.
    """

    ledger: int
    kind: str
    name: str


class Experiences:
    """The decisions of a report, each with its outcome.

    Args:
        outcomes: The outcomes.
        paid: The windows of each reservation.
        history: The amounts left in the budgets.
        budgets: Names of the budgets by id.
        overruns_j: Joules beyond the reservation, by id of each settled reservation that has any.
        statuses: Status by run id, which explains a missing outcome.
        shadow: Ids of the runs in shadow mode, in which another job trained.
        streams: The stream of each run, by the run's id.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        paid: Mapping[str, PaidWindows],
        history: BudgetHistory,
        *,
        budgets: Mapping[str, str],
        overruns_j: Mapping[str, float | None],
        statuses: Mapping[str, str],
        shadow: Collection[str],
        streams: Mapping[str, StreamKey],
    ) -> None:
        self._outcomes = outcomes
        self._paid = paid
        self._history = history
        self._budgets = budgets
        self._overruns_j = overruns_j
        self._statuses = statuses
        self._shadow = shadow
        self._streams = streams

    def entry(self, decision: DecisionRow) -> ExperienceEntry:
        """Return a decision with its outcome, as the report has it."""
        reservation_id = decision["reservation_id"]
        return {
            **_decision(decision),
            **self.figures(decision),
            "stream": self._streams[decision["run_id"]].name,
            "overrun_j": self._overruns_j.get(reservation_id or ""),
            "budget": self._budgets.get(decision["budget_id"]),
            "budget_left_after_j": self._history.left_j(
                decision["budget_id"], decision["entry_id"], reservation_id
            ),
        }

    def figures(self, decision: DecisionRow) -> UpdateFigures:
        """Return the part of :meth:`entry` that sums need, in a fraction of the time."""
        outcome = self._outcomes.of(decision)
        reservation_id = decision["reservation_id"]
        paid = self._paid.get(reservation_id or "", NO_WINDOWS)
        status = self._statuses.get(decision["run_id"], "unclosed")
        found: UpdateFigures = {
            "run_id": decision["run_id"],
            "reason": decision["reason"],
            "update_mode": decision["update_mode"],
            "step_fraction": decision["step_fraction"],
            **(_interrupted(paid, status) if outcome is None else _done(outcome)),
            "update_energy_j": 0.0 if reservation_id is None else _update_j(paid),
            "shadow": decision["run_id"] in self._shadow,
            "reported_energy_j": None,
        }
        if found["shadow"]:  # the energy of another job is no figure of this ledger
            if outcome is not None and outcome["steps"] > 0:
                found["reported_energy_j"] = outcome["energy_j"]
            found["energy_j"] = found["update_energy_j"] = None
        return found


class Outcomes:
    """Outcomes by decision: of the stream's updates, and of its baseline retrainings.

    An outcome belongs to the decision of its run at its position. The last outcome of a killed run
    may be in the next run of its stream. It then belongs to the decision with the same reservation.
    Without a reservation, stream, experience and position have to be the same.

    Args:
        runs: The runs.
        decisions: The decisions, without the columns of long texts.
        outcomes: The outcomes.
    """

    def __init__(
        self,
        runs: Iterable[RunRow],
        decisions: Iterable[DecisionRow],
        outcomes: Iterable[OutcomeRow],
    ) -> None:
        names = {row["run_id"]: row["name"] for row in runs}
        baselines: set[str | None] = set()
        self._of_baselines: dict[str | None, OutcomeRow] = {}
        self._of_updates: dict[tuple[str, int], OutcomeRow] = {}
        decided: set[tuple[str, int]] = set()
        earlier: dict[tuple[Any, ...], tuple[str, int]] = {}
        for decision in decisions:
            if is_baseline(decision):
                baselines.add(decision["reservation_id"])
            else:
                place = decision["run_id"], decision["position"]
                decided.add(place)
                earlier[_identity(decision, names)] = place
        for row in outcomes:
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


def is_baseline(row: DecisionRow | ExperienceEntry | UpdateFigures) -> bool:
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


def _decision(row: DecisionRow) -> ReportedDecision:
    min_gain_per_j = row["min_gain_per_j"]
    state = parse(row["state"], {})
    options = [one for one in parse(row["alternatives"], []) if isinstance(one, dict)]
    method = chosen_method(options)
    # Each table of earlier options is already in its own decision, as its alternatives.
    state.pop("tables", None)
    found: ReportedDecision = {
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
            | {key: one[key] for key in ("method",) if key in one}
            for one in options
        ],
        "waiting": _waiting(row["waiting"]),
    }
    return {**found, "method": method} if method else found


def _waiting(recorded: str | None) -> dict[str, Any] | None:
    """Return a wait without the starts that were compared, of which the ledger has each."""
    found: dict[str, Any] = parse(recorded, {})
    return (
        None
        if not found
        else {name: value for name, value in found.items() if name != "alternatives"}
    )


def _interrupted(paid: PaidWindows, run_status: str) -> ReportedOutcome:
    return {
        "status": "interrupted",
        "interruption": ENDINGS.get(run_status, "no outcome was recorded"),
        "finished_utc": None,
        "metric": None,
        "metric_before": None,
        "metric_after": None,
        "steps": None,
        "planned_steps": None,
        "energy_j": paid.energy.total,
        "kept": None,
        "gain": None,
        "gain_sd": None,
        "weights_sha256": None,
        "data_sha256": None,
        "data_samples": None,
        "data_hashed": None,
        "config_sha256": None,
        "flops": None,
        "flops_note": None,
        "shifted_g": None,
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
        "gain": outcome["gain"],
        "gain_sd": outcome["gain_sd"],
        "weights_sha256": outcome["weights_sha256"],
        "data_sha256": outcome["data_sha256"],
        "data_samples": outcome["data_samples"],
        "data_hashed": outcome["data_hashed"],
        "config_sha256": outcome["config_sha256"],
        "flops": outcome["flops"],
        "flops_note": outcome["flops_note"],
        "shifted_g": outcome["shifted_g"],
    }


def _update_j(paid: PaidWindows) -> float | None:
    """Return the joules of the update alone, without the probe, as predictions are."""
    return paid.energy.total if paid.complete else None
