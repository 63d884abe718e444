"""Figures of each stream, run, team, project or month: the report of each, in one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import MAXYEAR, datetime
from typing import Literal, NamedTuple, TypedDict, get_args

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, RunRow
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import Report
from greentrain.report.ledger_reading import VerifiedContents, read
from greentrain.report.measured import Part
from greentrain.report.model import documents
from greentrain.report.row_helpers import grouped, main_metric
from greentrain.report.scope import Scope, moment
from greentrain.texts import short_repr
from greentrain.units import utc_text

GroupBy = Literal["stream", "run", "team", "project", "month"]
GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)
TOTAL = "total"
MOST_MONTHS = 120
"""Months from the first to the last of which each has a row: a clock at 1970 makes hundreds."""


class GroupKey(NamedTuple):
    """The identity of a group.

    Args:
        name: Name of the stream or run, the tag, or the month (UTC); ``None`` without a tag.
        ledger: Number of the ledger; ``None`` for groups that several ledgers may share.
        kind: Kind of the runs; ``None`` for groups of several kinds.
        run_id: Id of the run, if each run is a group.
    """

    name: str | None
    ledger: int | None = None
    kind: str | None = None
    run_id: str | None = None


class GroupFigures(TypedDict):
    """One row: the figures of a group, as its own report has them.

    Energy that two runs of a group measured at once counts once. ``metric`` and ``final_metric``
    are ``None`` for a group of several streams or fits with a metric. The metric of a fit is that
    of the interval in which it ended. ``avoided_each_j`` is measured: the mean over
    ``baseline_retrainings``. ``avoided_j`` is modelled. ``bases`` are the kinds of the carbon
    factors: more than one is no sum of one kind.
    """

    name: str | None
    ledger: str | None
    kind: str | None
    run_id: str | None
    runs: int
    experiences: int
    energy_j: float | None
    complete: bool
    emissions_g: float | None
    emissions_complete: bool
    bases: list[str]
    metric: str | None
    final_metric: float | None
    avoided_each_j: float | None
    baseline_retrainings: int
    avoided_j: float | None


def roll_up(
    ledgers: Sequence[Ledger],
    by: str,
    *,
    name: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    where: str | None = None,
) -> list[GroupFigures]:
    """Return a row for each group, and the total over all of them as the last row.

    The total may be below the sum of the rows: energy that two runs measured at once counts once.

    Args:
        ledgers: The ledgers, which are only read.
        by: One of :data:`GROUPS`.
        name: Pattern of the names of the runs, as for :func:`greentrain.report.build`.
        since: Start of the figures, as for :func:`greentrain.report.build`.
        until: The first moment after it.
        where: Where the runs ran, as for :func:`greentrain.report.build`.

    Raises:
        ConfigurationError: If ``by`` is not known, or :func:`greentrain.report.build` refuses an
            argument.
        LedgerError: If a ledger cannot be read.
    """
    chosen = group_by(by)
    scope = scope_of(name=name, since=since, until=until, where=where)
    with read(ledgers) as contents:
        all_runs = contents, Part(scope, scope.chosen(contents.rows["run"]), lists=False)
        groups = [] if chosen == "month" else group_parts(contents, chosen, scope)
        reports = documents(contents, [all_runs, *(one[1:] for one in groups)], Disclosures())
        whole = next(reports)
        if chosen == "month":  # known after the first reading
            groups = month_parts(contents, scope, whole)
            reports = documents(contents, [one[1:] for one in groups], Disclosures())
        rows = [
            figures(key, contents.names, report)
            for (key, _, _), report in zip(groups, reports, strict=True)
            if report["runs"] or chosen == "month"
        ]
        return [*rows, figures(GroupKey(TOTAL), contents.names, whole)]


def group_by(text: str) -> GroupBy:
    """Read what to group by.

    Raises:
        ConfigurationError: If it is not known.
    """
    for one in GROUPS:
        if one == text:
            return one
    raise ConfigurationError(
        f"a report cannot be grouped by {short_repr(text)}; allowed are {', '.join(GROUPS)}"
    )


def scope_of(
    *,
    name: str | None,
    since: str | datetime | None,
    until: str | datetime | None,
    where: str | None = None,
) -> Scope:
    """Return the scope of all runs with such a name, at such a place, in an interval.

    Raises:
        ConfigurationError: If a moment or ``where`` is not valid.
    """
    return Scope(
        name=name,
        since_utc=None if since is None else moment(since),
        until_utc=None if until is None else moment(until),
        where=where,
    )


def group_parts(
    contents: VerifiedContents, by: GroupBy, scope: Scope
) -> list[tuple[GroupKey, VerifiedContents, Part]]:
    """Return each group that is no month, the contents of its ledgers, and its part of them.

    Args:
        contents: The ledgers.
        by: The groups.
        scope: The scope of all of them.
    """
    runs = scope.chosen(contents.rows["run"])
    found = []
    for key, held in _grouped(contents, _KEYS[by]).items():
        among = {row["run_id"] for row in held if runs is None or row["run_id"] in runs}
        if among:
            of_group = contents if key.ledger is None else contents.of_ledger(key.ledger)
            found.append((key, of_group, Part(scope, among, lists=False)))
    return found


def month_parts(
    contents: VerifiedContents, scope: Scope, whole: Report
) -> list[tuple[GroupKey, VerifiedContents, Part]]:
    """Return each month from the first to the last, as :func:`group_parts` does.

    Of more than :data:`MOST_MONTHS`, only those with measured energy, the first and the last.

    Args:
        contents: The ledgers.
        scope: The scope of all months.
        whole: The report of all of them.
    """
    runs = scope.chosen(contents.rows["run"])
    return [
        (GroupKey(of_month), contents, Part(month, runs, lists=False))
        for of_month, month in _months(scope, whole)
    ]


def months_left_out(rows: Sequence[GroupFigures]) -> int:
    """Return how many months lie between the first and the last row of months without a row.

    Args:
        rows: The rows of :func:`roll_up`, with the total.
    """
    numbers = [12 * int(year) + int(month) for year, month in (_parts_of(row) for row in rows[:-1])]
    return max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0


def figures(key: GroupKey, names: Sequence[str], report: Report) -> GroupFigures:
    """Return the row of a group.

    Args:
        key: The group.
        names: The names of the ledgers.
        report: The group's report.
    """
    carbon, avoided, summary = report["carbon"], report["avoided"], report["summary"]
    measured = avoided["measured"]
    metric, value = _only_metric(report)
    return {
        "name": key.name,
        "ledger": None if key.ledger is None else names[key.ledger],
        "kind": key.kind,
        "run_id": key.run_id,
        "runs": len(report["runs"]),
        "experiences": summary["experiences"],
        "energy_j": report["totals"]["energy_j"],
        "complete": report["totals"]["complete"],
        "emissions_g": carbon["emissions_g"],
        "emissions_complete": carbon["complete"],
        "bases": [str(one["basis"] or "unknown") for one in carbon["by_basis"]],
        "metric": metric,
        "final_metric": value,
        "avoided_each_j": None if measured is None else measured["avoided_j"],
        "baseline_retrainings": 0 if measured is None else measured["baseline_retrainings"],
        "avoided_j": avoided["energy"]["avoided_j"],
    }


def _only_metric(report: Report) -> tuple[str | None, float | None]:
    """Return the metric of the only stream or fit of a report that has one, and its last value."""
    scope = Scope.of(report["scope"])
    found = [
        (one["metric"], one["final_metric"])
        for one in report["summary"]["by_stream"]
        if one["final_metric"] is not None
    ]
    for run in report["runs"]:
        metric = main_metric(run)
        if metric is not None and run["closed_utc"] and scope.holds(run["closed_utc"]):
            found.append((metric["name"], metric["value"]))
    return found[0] if len(found) == 1 else (None, None)


_KEYS: Mapping[str, Callable[[int, RunRow], GroupKey]] = {
    "stream": lambda place, row: GroupKey(row["name"], place, row["kind"]),
    "run": lambda place, row: GroupKey(row["name"], place, row["kind"], row["run_id"]),
    "team": lambda _, row: GroupKey(row["team"]),
    "project": lambda _, row: GroupKey(row["project"]),
}


def _grouped(
    contents: VerifiedContents, key: Callable[[int, RunRow], GroupKey]
) -> dict[GroupKey, list[RunRow]]:
    rows = [
        (place, row) for place, ledger in enumerate(contents.ledgers) for row in ledger.kept["run"]
    ]
    found = grouped(rows, lambda pair: key(*pair))
    return {one: [row for _, row in held] for one, held in found.items()}


def _parts_of(row: GroupFigures) -> tuple[str, str]:
    year, _, month = str(row["name"]).partition("-")
    return year, month


def _months(scope: Scope, whole: Report) -> list[tuple[str, Scope]]:
    """Return the months that have a row, each with its part of the scope."""
    months = list(_all_months(scope, whole))
    if len(months) <= MOST_MONTHS:
        return months
    of_energy = {months[0][0], months[-1][0], *(one["hour_utc"][:7] for one in whole["hourly"])}
    return [one for one in months if one[0] in of_energy]


def _all_months(scope: Scope, whole: Report) -> Iterator[tuple[str, Scope]]:
    period, hours = whole["period"], [one["hour_utc"] for one in whole["hourly"]]
    moments = [one for one in (period["first_utc"], period["last_utc"], *hours) if one is not None]
    if not moments:
        return
    first, last = min(moments), max(moments)
    start = datetime.fromisoformat(first).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while start.year < MAXYEAR and utc_text(start) <= last:
        following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        yield (
            utc_text(start)[:7],
            Scope(
                name=scope.name,
                since_utc=max(utc_text(start), scope.since_utc or ""),
                until_utc=min(utc_text(following), scope.until_utc or "9999"),
                where=scope.where,
            ),
        )
        start = following
