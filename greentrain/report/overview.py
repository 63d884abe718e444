"""The overview of many ledgers: one row for each stream, for a reader who decides what to do.

Each figure is from the report of the stream. The overview adds three things: a forecast, the
difference to an earlier overview, and actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypedDict

from greentrain._about import DISTRIBUTION, VERSION
from greentrain.ledger import Ledger
from greentrain.report.budget_figures import BudgetFigures
from greentrain.report.burn_down import BudgetForecast, BurnDown, forecast, present_total
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import ExperienceEntry, Report
from greentrain.report.earlier_overview import Change, Earlier, change
from greentrain.report.experiences import settings_of
from greentrain.report.groups import (
    TOTAL,
    GroupBy,
    GroupFigures,
    GroupKey,
    figures,
    group_parts,
    scope_of,
)
from greentrain.report.ledger_reading import VerifiedContents, read
from greentrain.report.limits import Sink
from greentrain.report.measured import Part
from greentrain.report.model import documents
from greentrain.report.next_actions import NextAction, next_actions
from greentrain.report.row_helpers import better
from greentrain.report.scope import Scope
from greentrain.report.trials import Trial, trials

_TAGS: tuple[GroupBy, ...] = ("team", "project")
_GROUPS: tuple[GroupBy, ...] = ("stream", *_TAGS)
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
    """The budget of a stream after the last payment, and its forecast.

    The total of a budget that is renewed is that of the present period; with carry-over, of all
    periods. The amounts spent and reserved are of all periods.
    """

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
    trials: list[Trial]


class OtherRow(GroupFigures):
    """The row of runs without decisions of one name, such as fits."""

    trials: list[Trial]


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
    others: list[OtherRow]
    teams: list[GroupFigures]
    projects: list[GroupFigures]
    total: GroupFigures
    earlier: dict[str, Any] | None


def overview(
    ledgers: Sequence[Ledger],
    now: datetime,
    *,
    name: str | None = None,
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
        name: Pattern of the names of the runs, as for :func:`greentrain.report.build`.
        since: Start of the period, as for :func:`greentrain.report.build`.
        until: The first moment after it.
        earlier: The report to compare with, see
            :func:`greentrain.report.earlier_overview.read_earlier`.

    Raises:
        ConfigurationError: If :func:`greentrain.report.build` refuses an argument.
        LedgerError: If a ledger cannot be read.
    """
    scope = scope_of(name=name, since=since, until=until)
    with read(ledgers) as contents:
        tried, names = _BudgetUse(contents), contents.names
        runs = scope.chosen(contents.rows["run"])
        always = Scope(name=name)
        whole_parts = [Part(always, runs, tried, lists=False), Part(scope, runs, lists=False)]
        groups = {by: group_parts(contents, by, scope) for by in _GROUPS}
        parts = [(contents, part) for part in whole_parts]
        parts += [one[1:] for held in groups.values() for one in held]
        reports = documents(contents, parts, Disclosures())
        next(reports)  # for what it notes in `tried`
        whole = next(reports)
        streams: list[StreamRow] = []
        others: list[OtherRow] = []
        for (key, _, _), one in zip(groups["stream"], reports, strict=False):
            if not one["runs"]:
                continue
            row = figures(key, names, one)
            if key not in tried.budgets:
                others.append({**row, "trials": trials(one)})
                continue
            budget = _budget(key, one["budgets"], tried)
            actions = next_actions(contents, ledgers[key.ledger or 0].name, key, one, budget, now)
            streams.append(_row(row, key, one, budget, tried, actions, earlier))
        tagged: dict[str, list[GroupFigures]] = {}
        for tag in _TAGS:
            rows = [
                figures(key, names, one)
                for (key, _, _), one in zip(groups[tag], reports, strict=False)
                if one["runs"]
            ]
            # Without any tag, there is nothing to sum up.
            tagged[tag] = rows if any(row["name"] is not None for row in rows) else []
        return {
            "overview_version": OVERVIEW_VERSION,
            "generator": {"distribution": DISTRIBUTION, "version": VERSION},
            "scope": scope.as_dict(),
            "period": whole["period"],
            "ledgers": list(names),
            "verified": whole["verification"]["ok"],
            "verify_command": whole["verification"]["command"],
            "streams": streams,
            "others": others,
            "teams": tagged["team"],
            "projects": tagged["project"],
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
        experience = key, one["position"], one["experience_id"]
        about.add(experience, one["decided_utc"], one["budget_left_after_j"])

    def sharing(self, key: GroupKey, budget: str) -> list[str]:
        """Return the names of the other streams that a budget pays for."""
        return [
            str(other.name)
            for other, budgets in self.budgets.items()
            if other != key and other.ledger == key.ledger and budget in budgets
        ]


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
        "total_j": present_total(one, "j"),
        "total_g": present_total(one, "g"),
        "spent_j": one["spent_j"],
        "spent_g": one["spent_g"],
        "reserved_j": one["reserved_j"],
        "reserved_g": one["reserved_g"],
        "left_j": one["left_j"],
        "left_g": one["left_g"],
        "kept": one["kept"],
        "overruns": len(one["overruns"]),
        "shared_with": tried.sharing(key, one["name"]),
        "forecast": forecast(one, burn_down),
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
        "mode": better(mode),
        "budgets": len(tried.budgets[key]),
        "budget": None if budget is None else budget[0],
        "burn_down": []
        if budget is None
        else budget[1].points(budget[0]["forecast"]["period_utc"]),
        "change": None if earlier is None else change(earlier, row, budget and budget[0]),
        "actions": actions,
        "trials": trials(report),
    }


def _first_metric(experiences: Sequence[ExperienceEntry], name: str | None) -> float | None:
    """Return the metric at the start; experiences that the report leaves out are not seen."""
    found = (
        one["metric_after"] if one["metric_before"] is None else one["metric_before"]
        for one in experiences
        if one["metric"] == name
    )
    return next((value for value in found if value is not None), None)
