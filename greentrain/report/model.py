"""The report document: what a ledger says, as plain values, and nothing else.

The document is a pure function of the ledger: no clock, no random numbers, no file system. Energies
are in joules as the ledger holds them, unrounded, with watt-hours beside the totals; what is not
known is ``None``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from greentrain._about import DISTRIBUTION, VERSION
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, last_descriptions, with_recovered
from greentrain.report import emissions, experiences, figures, money, reading, wider
from greentrain.report.rows import Row, Rows, number, parse
from greentrain.report.sources import COLUMNS

SCHEMA_VERSION = 1


def build(ledger: Ledger | Sequence[Ledger], *, run: str | None = None) -> dict[str, Any]:
    """Build the report document of a ledger, or of several as one.

    Args:
        ledger: The ledger, which is only read; or several, no two of which hold the same run.
        run: Id of the only run to report on, with the budgets that it paid from; all runs if
            ``None``.

    Returns:
        The document, of plain values that JSON can hold. The same ledger gives the same document.

    Raises:
        ConfigurationError: If the ledger has no such run, or two hold the same one.
        LedgerError: If the ledger cannot be read, or grows faster than it can be read.
    """
    everything, heads, verification = reading.read(
        [ledger] if isinstance(ledger, Ledger) else ledger
    )
    everything["window"] = with_recovered(
        *(everything[kind] for kind in ("window", "heartbeat", "closing"))
    )
    rows = everything if run is None else _only(everything, run)
    runs = _runs(rows)
    totals, not_measured = figures.totals(runs, rows["window"])
    # A budget is kept or not by everything paid from it, whichever run drew it.
    budgets = money.budgets({**everything, "budget": rows["budget"]})
    entries = experiences.entries(rows, {one["run_id"]: one["status"] for one in runs})
    # What other runs paid from a shared budget is not this run's time.
    moments = [
        row["recorded_utc"]
        for kind in reading.KINDS
        for row in rows[kind]
        if run is None or row.get("run_id") == run
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"distribution": DISTRIBUTION, "version": VERSION},
        "scope": {"run": run},
        "period": {
            "first_utc": min(moments, default=None),
            "last_utc": max(moments, default=None),
        },
        "runs": runs,
        "totals": totals,
        "budgets": budgets,
        "experiences": entries,
        "summary": experiences.summary(entries, runs),
        "not_measured": not_measured,
        "carbon": emissions.carbon(runs, rows["window"], totals),
        "verification": {
            **verification,
            "heads": heads if run is None else _heads_of(heads, run),
        },
    }


def _only(rows: Mapping[str, Rows], run: str) -> dict[str, Rows]:
    if all(row["run_id"] != run for row in rows["run"]):
        known = [row["run_id"] for row in rows["run"]][-3:]
        raise ConfigurationError(
            f"the ledger has no run {run!r}; "
            + (f"its last ones are {', '.join(known)}" if known else "it has no run at all")
        )
    budgets = {row["budget_id"] for row in rows["reservation"] if row["run_id"] == run}
    budgets |= {row["budget_id"] for row in rows["decision"] if row["run_id"] == run}
    shared = {
        kind: [row for row in rows[kind] if row["budget_id"] in budgets]
        for kind in ("budget", "reservation", "settlement")
    }
    own = {kind: [row for row in rows[kind] if row.get("run_id") == run] for kind in reading.KINDS}
    return {**own, **shared}


def _heads_of(heads: Mapping[str, Any], run: str) -> dict[str, Any]:
    return {
        chain: head
        for chain, head in heads.items()
        if "run:" not in chain or chain.endswith(f"run:{run}")
    }


def _runs(rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    closings = {row["run_id"]: row for row in rows["closing"]}
    calibrations = {row["run_id"]: row for row in rows["calibration"]}
    sources = last_descriptions(rows["source"])
    windows: dict[str, list[Row]] = defaultdict(list)
    for window in rows["window"]:
        windows[window["run_id"]].append(window)
    return [
        _run(
            row,
            closings.get(row["run_id"]),
            windows.get(row["run_id"], []),
            sources.get(row["run_id"], {}),
            calibrations.get(row["run_id"]),
        )
        for row in rows["run"]
    ]


def _run(
    row: Row,
    closing: Row | None,
    windows: Sequence[Row],
    sources: Mapping[str, Row],
    calibration: Row | None,
) -> dict[str, Any]:
    phases = Counter(window["phase"] for window in windows)
    run: dict[str, Any] = {
        "run_id": row["run_id"],
        "kind": row["kind"],
        "name": row["name"],
        "status": "unclosed" if closing is None else closing["status"],
        "opened_utc": row["recorded_utc"],
        "closed_utc": None if closing is None else closing["recorded_utc"],
        "environment": parse(row["environment"], {}),
        "sources": [_source(source) for source in sources.values()],
        **figures.energy_of(windows),
        "boundary": figures.boundary(windows),
        "windows_by_phase": dict(sorted(phases.items())),
    }
    run["node"] = wider.node(run, calibration)
    run["facility"] = wider.facility(run)
    return run


def _source(row: Row) -> dict[str, Any]:
    numbers = {key: number(row[key]) for key in ("relative_uncertainty", "power_limit_w")}
    return {**{key: row[key] for key in COLUMNS}, **numbers}
