"""The report document: what a ledger says, as plain values, and nothing else.

The document is a pure function of the ledger: no clock, no random numbers, no file system. Energies
are in joules as the ledger holds them, unrounded, with watt-hours beside the totals; what is not
known is ``None``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from greentrain._about import DISTRIBUTION, VERSION
from greentrain.ledger import Ledger, canonical, last_descriptions
from greentrain.report import budget_status as money
from greentrain.report import emissions, experiences
from greentrain.report import energy_totals as figures
from greentrain.report import ledger_reading as reading
from greentrain.report import system_boundaries as wider
from greentrain.report.avoided import avoided
from greentrain.report.baseline_retrainings import is_control
from greentrain.report.disclosures import Given
from greentrain.report.hourly import hourly
from greentrain.report.overlaps import Overlaps, overlapping
from greentrain.report.row_helpers import Row, Rows, number, parse
from greentrain.report.scope import Scope, moment
from greentrain.report.sources import COLUMNS
from greentrain.report.supplementary_impacts import beside

SCHEMA_VERSION = 2
"""The form of the document, which ``schema/report-2.json`` describes."""


def build(
    ledger: Ledger | Sequence[Ledger],
    *,
    run: str | None = None,
    project: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    given: Given | None = None,
) -> dict[str, Any]:
    """Build the report document of a ledger, or of several as one.

    Args:
        ledger: The ledger, which is only read; or several, no two of which hold the same run.
        run: Id of the only run to report on, with the budgets that it paid from; all runs if
            ``None``.
        project: Pattern of the names of the runs to report on, such as ``"digits*"``.
        since: When the report begins: an aware time, or a text as
            :func:`greentrain.report.scope.moment` reads it. A window belongs to the interval in
            which it ended.
        until: The first moment after it.
        given: What the user states and no ledger can know; nothing if ``None``.

    Returns:
        The document, of plain values that JSON can hold. The same ledger gives the same document.

    Raises:
        ConfigurationError: If the ledger has no such run, two hold the same one, or a moment is
            none.
        LedgerError: If the ledger cannot be read.
    """
    scope = Scope(
        run=run,
        project=project,
        since_utc=None if since is None else moment(since),
        until_utc=None if until is None else moment(until),
    )
    ledgers = [ledger] if isinstance(ledger, Ledger) else ledger
    return document(reading.read(ledgers), scope, given or Given())


def document(
    read: tuple[Mapping[str, Rows], Mapping[str, Any], Mapping[str, Any]],
    scope: Scope,
    given: Given,
) -> dict[str, Any]:
    """Build the document of what was read of ledgers.

    Args:
        read: As :func:`greentrain.report.ledger_reading.read` returns it.
        scope: What the report is about.
        given: What the user states.

    Raises:
        ConfigurationError: If there is no run in the scope.
    """
    everything, heads, verification = read
    of_runs = scope.of_runs(everything)
    # Before the interval is cut out: so the reports of two months sum to that of both.
    overlaps = Overlaps(_named(of_runs), of_runs["window"])
    rows = scope.of_interval(of_runs)
    listed, counted = overlaps.listed(rows["window"]), overlaps.counted(rows["window"])
    runs = _runs(rows, listed)
    counting = _runs({**rows, "window": counted}, listed) if listed else runs
    totals, not_measured = figures.totals(counting, counted, measured=rows["window"])
    totals |= overlapping(listed)
    carbon = emissions.carbon(runs, counted, totals)
    # A budget is kept or not by everything paid from it, whichever run drew it, and whenever.
    budgets = money.budgets({**everything, "budget": rows["budget"]})
    statuses = {one["run_id"]: one["status"] for one in runs}
    decided = experiences.entries({**of_runs, "decision": rows["decision"]}, statuses)
    entries = [one for one in decided if not is_control(one)]
    stated = given.as_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"distribution": DISTRIBUTION, "version": VERSION},
        "scope": {
            **scope.as_dict(),
            # What no ledger holds: a digit of it that is changed shows by this.
            "stated_sha256": sha256(canonical([scope.as_dict(), stated]).encode()).hexdigest(),
        },
        "period": _period(rows, scope),
        "runs": runs,
        "totals": totals,
        "hourly": hourly(counted),
        "overlaps": listed,
        "budgets": budgets,
        "experiences": entries,
        "summary": experiences.summary(entries, runs),
        "not_measured": not_measured,
        "carbon": carbon,
        "given": stated,
        "beside": beside(given, counting, counted, totals, carbon),
        "avoided": avoided(rows, entries, runs),
        "verification": {
            **verification,
            "heads": heads if scope.everything else _heads_of(heads, {r["run_id"] for r in runs}),
        },
    }


def _period(rows: Mapping[str, Rows], scope: Scope) -> dict[str, Any]:
    # What other runs paid from a shared budget is not these runs' time.
    runs = {row["run_id"] for row in rows["run"]}
    moments = [
        row["recorded_utc"]
        for kind in reading.KINDS
        for row in rows[kind]
        if row.get("run_id") in runs or (scope.run is None and scope.project is None)
    ]
    within = [one for one in moments if scope.holds(one)]
    return {"first_utc": min(within, default=None), "last_utc": max(within, default=None)}


def _named(rows: Mapping[str, Rows]) -> list[Row]:
    """Return what tells the sources of each run from those of others."""
    sources = last_descriptions(rows["source"])
    return [
        {
            "run_id": row["run_id"],
            "opened_utc": row["recorded_utc"],
            "host": _host(row),
            "sources": list(sources.get(row["run_id"], {}).values()),
        }
        for row in rows["run"]
    ]


def _host(row: Row) -> str | None:
    told = parse(row["environment"], {}).get("host", row["host"])
    return told if isinstance(told, str) else None


def _heads_of(heads: Mapping[str, Any], runs: Iterable[str]) -> dict[str, Any]:
    of_these = set(runs)
    return {
        chain: head
        for chain, head in heads.items()
        if "run:" not in chain or chain.rpartition("run:")[2] in of_these
    }


def _runs(rows: Mapping[str, Rows], overlaps: Sequence[Row]) -> list[dict[str, Any]]:
    closings = {row["run_id"]: row for row in rows["closing"]}
    calibrations = {row["run_id"]: row for row in rows["calibration"]}
    sources = last_descriptions(rows["source"])
    windows: dict[str, list[Row]] = defaultdict(list)
    shared: dict[str, list[float]] = defaultdict(list)
    for overlap in overlaps:
        shared[overlap["not_again_in"]].append(overlap["energy_j"])
    for window in rows["window"]:
        windows[window["run_id"]].append(window)
    return [
        _run(
            row,
            closings.get(row["run_id"]),
            windows.get(row["run_id"], []),
            sources.get(row["run_id"], {}),
            calibrations.get(row["run_id"]),
            math.fsum(shared[row["run_id"]]),
        )
        for row in rows["run"]
    ]


def _run(
    row: Row,
    closing: Row | None,
    windows: Sequence[Row],
    sources: Mapping[str, Row],
    calibration: Row | None,
    overlap_j: float,
) -> dict[str, Any]:
    phases = Counter(window["phase"] for window in windows)
    run: dict[str, Any] = {
        "run_id": row["run_id"],
        "kind": row["kind"],
        "name": row["name"],
        "status": "unclosed" if closing is None else closing["status"],
        "host": _host(row),
        "opened_utc": row["recorded_utc"],
        "closed_utc": None if closing is None else closing["recorded_utc"],
        "environment": parse(row["environment"], {}),
        "sources": [_source(source) for source in sources.values()],
        **figures.energy_of(windows),
        "overlap_j": overlap_j,
        "boundary": figures.boundary(windows),
        "windows_by_phase": dict(sorted(phases.items())),
    }
    run["node"] = wider.node(run, calibration)
    run["facility"] = wider.facility(run)
    return run


def _source(row: Row) -> dict[str, Any]:
    numbers = {key: number(row[key]) for key in ("relative_uncertainty", "power_limit_w")}
    return {**{key: row[key] for key in COLUMNS}, **numbers}
