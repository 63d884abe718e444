"""Build the report document from a ledger.

The document is a pure function of the ledger: it uses no clock, no random numbers and no file
system. Energies are in joules as the ledger holds them, unrounded; totals are in watt-hours as
well. Unknown values are ``None``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from hashlib import sha256
from typing import Any

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
from greentrain.ledger.schema import run_chain
from greentrain.report.budget_status import budgets
from greentrain.report.decided import LedgerPayments, read_all_payments, read_decisions
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import CapFigures, Overlap, Report, RunFigures, RunMetric
from greentrain.report.emissions import carbon, restated
from greentrain.report.energy_totals import boundary, energy_totals, not_measured
from greentrain.report.equivalents import equivalents as as_equivalents
from greentrain.report.exit_rows import exits_of
from greentrain.report.hourly import Hours
from greentrain.report.job_shares import job_shares, read_job_shares
from greentrain.report.ledger_reading import LedgerContents, VerifiedContents, read
from greentrain.report.limits import NO_SINK, Sink
from greentrain.report.measured import Part, Windows, host_of, read_windows
from greentrain.report.overlaps import with_finer_phases, with_overlaps
from greentrain.report.restatement import Restatement
from greentrain.report.row_helpers import ReportRows, better, number, parse
from greentrain.report.run_windows import RunWindows
from greentrain.report.scope import Scope, moment
from greentrain.report.sources import description
from greentrain.report.supplementary_impacts import supplementary_impacts
from greentrain.report.system_boundaries import facility, node

SCHEMA_VERSION = 3
"""The version of the document's form, which ``schema/report-3.json`` describes."""


def build(
    ledger: Ledger | Sequence[Ledger],
    *,
    run: str | None = None,
    name: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    where: str | None = None,
    disclosures: Disclosures | None = None,
    restatement: Restatement | None = None,
    equivalents: bool = False,
    sink: Sink = NO_SINK,
) -> Report:
    """Build the report document of a ledger, or of several as one.

    Args:
        ledger: The ledger, which is only read; or several, no two of which hold the same run.
        run: Id of the only run to report on, with the budgets that it paid from; all runs if
            ``None``.
        name: Pattern of the names of the runs to report on, such as ``"digits*"``.
        since: Start of the report: an aware time, or a text as
            :func:`greentrain.report.scope.moment` reads it. A window belongs to the interval in
            which it ended.
        until: The first moment after it.
        where: Where the runs ran, such as ``"slurm_job_id=123,hostname=node*"``:
            :data:`greentrain.report.run_places.KEYS` lists the keys.
        disclosures: Facts that only the user can state; none if ``None``.
        restatement: Emission factors in place of those that the runs recorded.
        equivalents: Whether to convert the grams to kilometres of a car and the like.
        sink: Takes each window and each experience; the document lists only the last ones.

    Returns:
        The document, of plain values that JSON can hold. The same ledger gives the same document.

    Raises:
        ConfigurationError: If the ledger has no such run, two ledgers hold the same one, or a
            moment or ``where`` is not valid.
        LedgerError: If the ledger cannot be read.
    """
    scope = Scope(
        run=run,
        name=name,
        since_utc=None if since is None else moment(since),
        until_utc=None if until is None else moment(until),
        where=where,
    )
    ledgers = [ledger] if isinstance(ledger, Ledger) else ledger
    with read(ledgers, restatement=restatement) as contents:
        stated = disclosures or Disclosures()
        return document(contents, scope, stated, equivalents=equivalents, sink=sink)


def document(
    contents: VerifiedContents,
    scope: Scope,
    disclosures: Disclosures,
    *,
    equivalents: bool = False,
    sink: Sink = NO_SINK,
) -> Report:
    """Build the document from the contents of ledgers, which are read once.

    Args:
        contents: The contents.
        scope: The runs and the interval of the report.
        disclosures: The user's disclosures.
        equivalents: Whether to add equivalents of the grams.
        sink: Takes each window and each experience, also those that the document does not list.

    Raises:
        ConfigurationError: If there is no run in the scope.
    """
    part = Part(scope=scope, chosen=scope.chosen(contents.rows["run"]), sink=sink)
    found = next(documents(contents, [(contents, part)], disclosures))
    return {**found, "equivalents": as_equivalents(found["carbon"])} if equivalents else found


def documents(
    contents: VerifiedContents,
    parts: Sequence[tuple[VerifiedContents, Part]],
    disclosures: Disclosures,
) -> Iterator[Report]:
    """Yield the documents of several parts of ledgers, whose windows are read once for all.

    Args:
        contents: The contents.
        parts: The parts, each with the contents of its ledgers.
        disclosures: The user's disclosures.
    """
    read = read_windows(contents, [part for _, part in parts])
    paid = read_all_payments(contents, read[0].paid if read else {})
    for (of_part, part), windows in zip(parts, read, strict=True):
        yield _document(of_part, part, windows, paid, disclosures)


def _document(
    contents: VerifiedContents,
    part: Part,
    windows: Windows,
    paid: LedgerPayments,
    disclosures: Disclosures,
) -> Report:
    kept, (scope, chosen, sink, _) = contents.rows, part
    measured, counted = windows.measured, windows.counted
    decided = read_decisions(contents, scope, chosen, windows, paid)
    shares = read_job_shares(contents, {row["run_id"] for row in decided.runs})
    runs = _runs(decided.runs, kept, measured, windows.overlaps, shares)
    counting = runs
    if windows.overlaps:
        counting = _runs(decided.runs, kept, counted, windows.overlaps, shares)
    exits = exits_of(contents, [run["run_id"] for run in runs])
    for run in runs:
        if run["run_id"] in exits:
            run["exits"] = exits[run["run_id"]]
    totals = with_finer_phases(energy_totals(counting, counted, measured=measured), windows.finer_j)
    grams = carbon(runs, counted, totals)
    statuses = {run["run_id"]: run["status"] for run in runs}
    experiences = decided.experiences(statuses, runs, sink)
    hours = Hours()
    for one in counted.values():
        hours.join(one.hours)
    stated = disclosures.as_dict()
    given: list[Any] = [scope.as_dict(), stated]
    if contents.restatement is not None:
        given.append(contents.restatement.as_dict())
    scope_digest = sha256(canonical(given).encode()).hexdigest()
    heads = contents.verification["heads"]
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"distribution": DISTRIBUTION, "version": VERSION},
        # No ledger holds the scope and the disclosures: the digest reveals a changed digit.
        "scope": {**scope.as_dict(), "stated_sha256": scope_digest},
        "period": _period(contents, scope, chosen, decided.runs),
        "runs": runs,
        "totals": with_overlaps(totals, windows.overlaps),
        "hourly": hours.figures(),
        "overlaps": windows.overlaps,
        # All payments from a budget count, whichever run made them, and whenever.
        "budgets": budgets(decided.budgets, decided.payments, decided.about),
        "experiences": experiences.listed,
        "baseline_retrainings": experiences.retrainings,
        "summary": {
            **experiences.summary,
            "by_use": experiences.uses.figures(totals["energy_j"]),
        },
        "not_measured": not_measured(counting, counted, totals),
        "carbon": grams,
        "restated": restated(
            contents.restatement,
            [row for one in contents.ledgers for row in one.recorded_runs],
            counted,
            totals,
        ),
        "equivalents": None,
        "disclosures": stated,
        "supplementary_impacts": supplementary_impacts(
            disclosures, counting, counted.values(), totals, grams
        ),
        "avoided": experiences.avoided.figures(measured, runs, experiences.baselines),
        "verification": {
            **contents.verification,
            "heads": heads if scope.everything else _heads_of(heads, statuses),
        },
        "windows": windows.listed,
        "left_out": {"windows": windows.left_out, "experiences": experiences.left_out},
    }


def _period(
    contents: LedgerContents, scope: Scope, chosen: Set[str] | None, runs: Sequence[RunRow]
) -> dict[str, str | None]:
    moments = [row["recorded_utc"] for row in runs if scope.holds(row["recorded_utc"])]
    of_these = None if chosen is None else {run_chain(row["run_id"]) for row in runs}
    for chain, first, last in contents.moments(scope.since_utc, scope.until_utc):
        # The payments of other runs from a shared budget are not in these runs' time.
        if of_these is None or chain in of_these:
            moments += [first, last]
    return {"first_utc": min(moments, default=None), "last_utc": max(moments, default=None)}


def _heads_of(heads: Mapping[str, Head], runs: Iterable[str]) -> dict[str, Head]:
    of_these = set(runs)
    return {
        chain: head
        for chain, head in heads.items()
        if "run:" not in chain or chain.rpartition("run:")[2] in of_these
    }


def _runs(
    shown: Sequence[RunRow],
    rows: ReportRows,
    windows: Mapping[str, RunWindows],
    overlaps: Sequence[Overlap],
    shares: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[RunFigures]:
    closings = {row["run_id"]: row for row in rows["closing"]}
    calibrations = {row["run_id"]: row for row in rows["calibration"]}
    sources = last_descriptions(rows["source"])
    shared: dict[str, list[float]] = defaultdict(list)
    for overlap in overlaps:
        shared[overlap["not_again_in"]].append(overlap["energy_j"])
    return [
        _run(
            row,
            closings.get(row["run_id"]),
            windows.get(row["run_id"]) or RunWindows(()),
            sources.get(row["run_id"], {}),
            calibrations.get(row["run_id"]),
            math.fsum(shared[row["run_id"]]),
            shares.get(row["run_id"], {}),
        )
        for row in shown
    ]


def _caps(text: str | None) -> list[CapFigures]:
    listed: list[object] = parse(text, [])
    return [
        {
            "cap": str(one.get("cap")),
            "used": str(one.get("used")),
            "left": str(one.get("left")),
            "stopped": one.get("stopped") is True,
            "budget": None if one.get("budget") is None else str(one["budget"]),
        }
        for one in listed
        if isinstance(one, dict)
    ]


def _metrics(text: str | None) -> list[RunMetric]:
    listed: list[object] = parse(text, [])
    return [
        {"name": str(one.get("name")), "value": value, "mode": better(one.get("mode"))}
        for one in listed
        if isinstance(one, dict) and (value := number(one.get("value"))) is not None
    ]


def _run(
    row: RunRow,
    closing: ClosingRow | None,
    windows: RunWindows,
    sources: Mapping[str, SourceRow],
    calibration: CalibrationRow | None,
    overlap_j: float,
    shares: Mapping[str, Mapping[str, Any]],
) -> RunFigures:
    energy, within, grams = windows.energy.figures(), boundary([windows]), windows.grams
    phases = {phase: one.windows for phase, one in windows.phases.items()}
    environment = parse(row["environment"], {})
    settings = environment.get("carbon")
    of_node = node(energy["energy_j"], within, calibration)
    return {
        "run_id": row["run_id"],
        "kind": row["kind"],
        "name": row["name"],
        "status": "unclosed" if closing is None else closing["status"],
        "host": host_of(row),
        "opened_utc": row["recorded_utc"],
        "closed_utc": None if closing is None else closing["recorded_utc"],
        "caps": [] if closing is None else _caps(closing["caps"]),
        "metrics": [] if closing is None else _metrics(closing["metrics"]),
        "resumed_j": None if closing is None else number(closing["resumed_j"]),
        "environment": environment,
        "slurm_job_id": row["slurm_job_id"],
        "slurm_account": row["slurm_account"],
        "team": row["team"],
        "project": row["project"],
        "sources": [description(source) for source in sources.values()],
        "job_shares": job_shares(shares, windows),
        **energy,  # type: ignore[typeddict-item]  # `exits` are added later
        "emissions_g": grams.total if grams.known == energy["windows"] else None,
        "emissions_before_g": windows.before.total
        if windows.before.known == energy["windows"]
        else None,
        "overlap_j": overlap_j,
        "boundary": within,
        "windows_by_phase": dict(sorted(phases.items())),
        "node": of_node,
        "facility": facility(
            energy["energy_j"], within, of_node, settings if isinstance(settings, dict) else None
        ),
    }
