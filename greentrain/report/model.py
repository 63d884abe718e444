"""Build the report document from a ledger.

The document is a pure function of the ledger: it uses no clock, no random numbers and no file
system. Energies are in joules as the ledger holds them, unrounded; totals are in watt-hours as
well. Unknown values are ``None``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, cast

from greentrain._about import DISTRIBUTION, VERSION
from greentrain.ledger import (
    CalibrationRow,
    ClosingRow,
    Head,
    Ledger,
    RunRow,
    SourceRow,
    canonical,
    last_descriptions,
)
from greentrain.report.avoided import avoided
from greentrain.report.budget_status import budgets
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import Overlap, Report, RunFigures
from greentrain.report.emissions import carbon
from greentrain.report.energy_totals import boundary, energy_of, energy_totals, not_measured
from greentrain.report.experiences import entries, is_baseline, summary
from greentrain.report.hourly import hourly
from greentrain.report.ledger_reading import KINDS, LedgerContents, read
from greentrain.report.overlaps import MeteredRun, Overlaps, with_finer_phases, with_overlaps
from greentrain.report.row_helpers import MeasuredWindow, ReportRows, grouped, parse
from greentrain.report.scope import Scope, moment
from greentrain.report.sources import description
from greentrain.report.supplementary_impacts import supplementary_impacts
from greentrain.report.system_boundaries import facility, node
from greentrain.report.window_list import window_list

SCHEMA_VERSION = 3
"""The version of the document's form, which ``schema/report-3.json`` describes."""


def build(
    ledger: Ledger | Sequence[Ledger],
    *,
    run: str | None = None,
    project: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    disclosures: Disclosures | None = None,
) -> Report:
    """Build the report document of a ledger, or of several as one.

    Args:
        ledger: The ledger, which is only read; or several, no two of which hold the same run.
        run: Id of the only run to report on, with the budgets that it paid from; all runs if
            ``None``.
        project: Pattern of the names of the runs to report on, such as ``"digits*"``.
        since: Start of the report: an aware time, or a text as
            :func:`greentrain.report.scope.moment` reads it. A window belongs to the interval in
            which it ended.
        until: The first moment after it.
        disclosures: Facts that only the user can state; none if ``None``.

    Returns:
        The document, of plain values that JSON can hold. The same ledger gives the same document.

    Raises:
        ConfigurationError: If the ledger has no such run, two ledgers hold the same one, or a
            moment is not valid.
        LedgerError: If the ledger cannot be read.
    """
    scope = Scope(
        run=run,
        project=project,
        since_utc=None if since is None else moment(since),
        until_utc=None if until is None else moment(until),
    )
    ledgers = [ledger] if isinstance(ledger, Ledger) else ledger
    return document(read(ledgers), scope, disclosures or Disclosures())


def document(contents: LedgerContents, scope: Scope, disclosures: Disclosures) -> Report:
    """Build the document from the contents of ledgers.

    Args:
        contents: The contents.
        scope: The runs and the interval of the report.
        disclosures: The user's disclosures.

    Raises:
        ConfigurationError: If there is no run in the scope.
    """
    of_runs = scope.of_runs(contents.rows)
    # Found before the interval is cut out, so that the reports of two months sum to that of both.
    overlaps = Overlaps(_metered(of_runs), of_runs["window"])
    rows = scope.of_interval(of_runs)
    measured = rows["window"]
    listed, counted = overlaps.listed(measured), overlaps.counted(measured)
    runs = _runs(rows, measured, listed)
    counting = _runs(rows, counted, listed) if listed else runs
    totals = with_finer_phases(
        energy_totals(counting, counted, measured=measured), overlaps.finer_j(measured)
    )
    grams = carbon(runs, counted, totals)
    statuses = {run["run_id"]: run["status"] for run in runs}
    decided = entries({**of_runs, "decision": rows["decision"]}, statuses)
    experiences = [one for one in decided if not is_baseline(one)]
    stated = disclosures.as_dict()
    scope_digest = sha256(canonical([scope.as_dict(), stated]).encode()).hexdigest()
    heads = contents.verification["heads"]
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"distribution": DISTRIBUTION, "version": VERSION},
        # No ledger holds the scope and the disclosures: the digest reveals a changed digit.
        "scope": {**scope.as_dict(), "stated_sha256": scope_digest},
        "period": _period(rows, scope),
        "runs": runs,
        "totals": with_overlaps(totals, listed),
        "hourly": hourly(counted),
        "overlaps": listed,
        # All payments from a budget count, whichever run made them, and whenever.
        "budgets": budgets({**contents.rows, "budget": rows["budget"]}),
        "experiences": experiences,
        "summary": summary(experiences, runs),
        "not_measured": not_measured(counting, counted, totals),
        "carbon": grams,
        "disclosures": stated,
        "supplementary_impacts": supplementary_impacts(
            disclosures, counting, counted, totals, grams
        ),
        "avoided": avoided(rows, experiences, runs),
        "verification": {
            **contents.verification,
            "heads": heads if scope.everything else _heads_of(heads, statuses),
        },
        "windows": window_list(measured),
    }


def _period(rows: ReportRows, scope: Scope) -> dict[str, str | None]:
    # The payments of other runs from a shared budget are not in these runs' time.
    runs = {row["run_id"] for row in rows["run"]}
    by_kind = cast(Mapping[str, Sequence[Mapping[str, Any]]], rows)
    moments = [
        row["recorded_utc"]
        for kind in KINDS
        for row in by_kind[kind]
        if row.get("run_id") in runs or (scope.run is None and scope.project is None)
    ]
    within = [one for one in moments if scope.holds(one)]
    return {"first_utc": min(within, default=None), "last_utc": max(within, default=None)}


def _metered(rows: ReportRows) -> list[MeteredRun]:
    sources = last_descriptions(rows["source"])
    return [
        {
            "run_id": row["run_id"],
            "kind": row["kind"],
            "opened_utc": row["recorded_utc"],
            "host": _host(row),
            "sources": list(sources.get(row["run_id"], {}).values()),
        }
        for row in rows["run"]
    ]


def _host(row: RunRow) -> str | None:
    host = parse(row["environment"], {}).get("host", row["host"])
    return host if isinstance(host, str) else None


def _heads_of(heads: Mapping[str, Head], runs: Iterable[str]) -> dict[str, Head]:
    of_these = set(runs)
    return {
        chain: head
        for chain, head in heads.items()
        if "run:" not in chain or chain.rpartition("run:")[2] in of_these
    }


def _runs(
    rows: ReportRows, windows: Sequence[MeasuredWindow], overlaps: Sequence[Overlap]
) -> list[RunFigures]:
    closings = {row["run_id"]: row for row in rows["closing"]}
    calibrations = {row["run_id"]: row for row in rows["calibration"]}
    sources = last_descriptions(rows["source"])
    by_run = grouped(windows, lambda window: window["run_id"])
    shared: dict[str, list[float]] = defaultdict(list)
    for overlap in overlaps:
        shared[overlap["not_again_in"]].append(overlap["energy_j"])
    return [
        _run(
            row,
            closings.get(row["run_id"]),
            by_run[row["run_id"]],
            sources.get(row["run_id"], {}),
            calibrations.get(row["run_id"]),
            math.fsum(shared[row["run_id"]]),
        )
        for row in rows["run"]
    ]


def _run(
    row: RunRow,
    closing: ClosingRow | None,
    windows: Sequence[MeasuredWindow],
    sources: Mapping[str, SourceRow],
    calibration: CalibrationRow | None,
    overlap_j: float,
) -> RunFigures:
    phases = Counter(window["phase"] for window in windows)
    energy, within = energy_of(windows), boundary(windows)
    environment = parse(row["environment"], {})
    settings = environment.get("carbon")
    of_node = node(energy["energy_j"], within, calibration)
    return {
        "run_id": row["run_id"],
        "kind": row["kind"],
        "name": row["name"],
        "status": "unclosed" if closing is None else closing["status"],
        "host": _host(row),
        "opened_utc": row["recorded_utc"],
        "closed_utc": None if closing is None else closing["recorded_utc"],
        "environment": environment,
        "sources": [description(source) for source in sources.values()],
        **energy,
        "overlap_j": overlap_j,
        "boundary": within,
        "windows_by_phase": dict(sorted(phases.items())),
        "node": of_node,
        "facility": facility(
            energy["energy_j"], within, of_node, settings if isinstance(settings, dict) else None
        ),
    }
