"""The overview of many ledgers: one row for each stream, for a reader who decides what to do.

Each figure is from the report of the stream. The overview adds three things: a forecast, the
difference to an earlier overview, and actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from greentrain._about import DISTRIBUTION, VERSION
from greentrain.ledger import Ledger
from greentrain.report.burn_down import BudgetForecast, BurnDown, forecast
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import BudgetFigures, ExperienceEntry, Report
from greentrain.report.earlier_overview import Change, Earlier, change
from greentrain.report.experiences import settings_of
from greentrain.report.groups import (
    TOTAL,
    GroupFigures,
    GroupKey,
    figures,
    group_reports,
    ledger_names,
    scope_of,
)
from greentrain.report.ledger_reading import VerifiedContents, read
from greentrain.report.limits import Sink
from greentrain.report.model import document
from greentrain.report.next_actions import NextAction, next_actions
from greentrain.report.scope import Scope

OVERVIEW_VERSION = 1
"""The version of the form of ``overview.json``."""
OVERVIEW_MARK = "greentrain-overview"
"""Name of the meta tag of ``overview.html``."""
NOT_CHECKED = (
    "this is an overview, which is not checked; write a report of its ledgers and check that: "
    "greentrain verify report.json --ledger LEDGER"
)
"""The answer of ``greentrain verify`` to an overview."""


class BudgetState(TypedDict):
    """The budget of a stream after the last payment, and its forecast."""

    name: str
    given_as: str
    unit: str
    total_j: float | None
    total_g: float | None
    spent_j: float | None
    spent_g: float | None
    reserved_j: float | None
    reserved_g: float | None
    left_j: float | None
    left_g: float | None
    kept: bool
    overruns: int
    shared_with: list[str]
    forecast: BudgetForecast


class StreamRow(GroupFigures):
    """The row of a stream.

    ``first_metric`` is that before its first experience in the period, or after it if there was
    none. ``mode`` is ``"max"`` or ``"min"``: the better direction of the metric. ``budgets`` is the
    number of its budgets, and ``budget`` the last one that its decisions were made about.
    """

    team: str | None
    project: str | None
    interrupted: int
    first_metric: float | None
    mode: str | None
    budgets: int
    budget: BudgetState | None
    burn_down: list[tuple[int, float]]
    change: Change | None
    actions: list[NextAction]


class Overview(TypedDict):
    """The overview document: ``overview.json``."""

    overview_version: int
    generator: dict[str, str]
    scope: dict[str, str | None]
    period: dict[str, str | None]
    ledgers: list[str]
    verified: bool
    verify_command: str
    streams: list[StreamRow]
    others: list[GroupFigures]
    teams: list[GroupFigures]
    projects: list[GroupFigures]
    total: GroupFigures
    earlier: dict[str, Any] | None


def overview(
    ledgers: Sequence[Ledger],
    now: datetime,
    *,
    project: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    earlier: Earlier | None = None,
) -> Overview:
    """Build the overview of ledgers.

    Energy, metrics and differences are those of the period. Budgets and forecasts are always those
    after the last payment.

    Args:
        ledgers: The ledgers, which are only read.
        now: The present time. A run without a closing row that was silent for half a minute is
            dead, and its reservations can be released.
        project: Pattern of the names of the runs, as for :func:`greentrain.report.build`.
        since: Start of the period, as for :func:`greentrain.report.build`.
        until: The first moment after it.
        earlier: The report to compare with, see
            :func:`greentrain.report.earlier_overview.read_earlier`.

    Raises:
        ConfigurationError: If :func:`greentrain.report.build` refuses an argument.
        LedgerError: If a ledger cannot be read.
    """
    scope = scope_of(project=project, since=since, until=until)
    with read(ledgers) as contents:
        tried = _BudgetUse(contents)
        always = document(contents, Scope(project=project), Disclosures(), sink=tried)
        whole = always if not scope.of_some_time else document(contents, scope, Disclosures())
        names = ledger_names(contents)
        streams: list[StreamRow] = []
        others: list[GroupFigures] = []
        for key, one in group_reports(contents, "stream", scope, whole):
            row = figures(key, names, one)
            if key not in tried.budgets:
                others.append(row)
                continue
            budget = _budget(key, one["budgets"], tried)
            actions = next_actions(contents, ledgers[key.ledger or 0].name, key, one, budget, now)
            streams.append(_row(row, key, one, budget, tried, actions, earlier))
        return {
            "overview_version": OVERVIEW_VERSION,
            "generator": {"distribution": DISTRIBUTION, "version": VERSION},
            "scope": scope.as_dict(),
            "period": whole["period"],
            "ledgers": names,
            "verified": whole["verification"]["ok"],
            "verify_command": whole["verification"]["command"],
            "streams": streams,
            "others": others,
            "teams": _tagged(contents, "team", scope, whole),
            "projects": _tagged(contents, "project", scope, whole),
            "total": figures(GroupKey(TOTAL), names, whole),
            "earlier": None if earlier is None else {"name": earlier.name, **earlier.period},
        }


class _BudgetUse(Sink):
    """Notes the experiences of each budget and stream, at all times.

    Attributes:
        budgets: Names of the budgets of each stream with decisions, in order.
        burn_down: Experiences and amounts left of each budget, by its ledger and name.
    """

    def __init__(self, contents: VerifiedContents) -> None:
        self._keys = {
            row["run_id"]: GroupKey(row["name"], place, row["kind"])
            for place, ledger in enumerate(contents.ledgers)
            for row in ledger.kept["run"]
        }
        self.budgets: dict[GroupKey, dict[str, None]] = {}
        self.burn_down: dict[tuple[int | None, str], BurnDown] = {}

    def experience(self, one: ExperienceEntry) -> None:
        """Note an experience or a baseline retraining."""
        key = self._keys[one["run_id"]]
        budgets = self.budgets.setdefault(key, {})
        if one["budget"] is None:
            return
        budgets.pop(one["budget"], None)
        budgets[one["budget"]] = None
        about = self.burn_down.setdefault((key.ledger, one["budget"]), BurnDown())
        about.add((key, one["position"], one["experience_id"]), one["budget_left_after_j"])

    def sharing(self, key: GroupKey, budget: str) -> list[str]:
        """Return the names of the other streams that a budget pays for."""
        return [
            str(other.name)
            for other, budgets in self.budgets.items()
            if other != key and other.ledger == key.ledger and budget in budgets
        ]


def _tagged(
    contents: VerifiedContents, tag: Literal["team", "project"], scope: Scope, whole: Report
) -> list[GroupFigures]:
    """Return a row for each value of a tag; none if no run has the tag."""
    if all(run[tag] is None for run in whole["runs"]):
        return []
    names = ledger_names(contents)
    return [figures(key, names, one) for key, one in group_reports(contents, tag, scope, whole)]


def _budget(
    key: GroupKey, budgets: Sequence[BudgetFigures], tried: _BudgetUse
) -> tuple[BudgetState, BurnDown] | None:
    names = list(tried.budgets[key])
    found = [one for one in budgets if names and one["name"] == names[-1]]
    if not found:
        return None
    one, burn_down = found[-1], tried.burn_down[key.ledger, names[-1]]
    return {
        "name": one["name"],
        "given_as": one["given_as"],
        "unit": one["unit"],
        "total_j": one["total_j"],
        "total_g": one["total_g"],
        "spent_j": one["spent_j"],
        "spent_g": one["spent_g"],
        "reserved_j": one["reserved_j"],
        "reserved_g": one["reserved_g"],
        "left_j": one["left_j"],
        "left_g": one["left_g"],
        "kept": one["kept"],
        "overruns": len(one["overruns"]),
        "shared_with": tried.sharing(key, one["name"]),
        "forecast": forecast(one, burn_down.experiences),
    }, burn_down


def _row(
    row: GroupFigures,
    key: GroupKey,
    report: Report,
    budget: tuple[BudgetState, BurnDown] | None,
    tried: _BudgetUse,
    actions: list[NextAction],
    earlier: Earlier | None,
) -> StreamRow:
    last = report["runs"][-1]
    mode = settings_of(last["environment"]).get("mode")
    return {
        **row,
        "team": last["team"],
        "project": last["project"],
        "interrupted": report["summary"]["interrupted"],
        "first_metric": _first_metric(report["experiences"], row["metric"]),
        "mode": mode if mode in ("max", "min") else None,
        "budgets": len(tried.budgets[key]),
        "budget": None if budget is None else budget[0],
        "burn_down": [] if budget is None else budget[1].points(),
        "change": None if earlier is None else change(earlier, row, budget and budget[0]),
        "actions": actions,
    }


def _first_metric(experiences: Sequence[ExperienceEntry], name: str | None) -> float | None:
    """Return the metric at the start; experiences that the report leaves out are not seen."""
    found = (
        one["metric_after"] if one["metric_before"] is None else one["metric_before"]
        for one in experiences
        if one["metric"] == name
    )
    return next((value for value in found if value is not None), None)
