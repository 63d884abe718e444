"""The estimated share of a run's job of each source that others used too."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from greentrain.ledger.heartbeat import SHARE
from greentrain.report.job_share_figures import JobShareFigures
from greentrain.report.ledger_reading import LedgerContents
from greentrain.report.row_helpers import number, parse
from greentrain.report.run_windows import RunWindows


def read_job_shares(
    contents: LedgerContents, runs: Collection[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the last event with a share, by run and source.

    Args:
        contents: The ledgers.
        runs: Ids of the runs.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for ledger in contents.ledgers:
        for row in ledger.rows.each("event", topic=SHARE):
            content: dict[str, Any] = parse(row["content"], {})
            if row["run_id"] in runs and content.get("source"):
                found.setdefault(row["run_id"], {})[str(content["source"])] = content
    return found


def job_shares(
    events: Mapping[str, Mapping[str, Any]], windows: RunWindows
) -> list[JobShareFigures]:
    """Return the shares of a run.

    Args:
        events: The content of the event of each source.
        windows: The windows of the run.
    """
    listed: list[JobShareFigures] = []
    for source, content in events.items():
        low, high = number(content.get("low")), number(content.get("high"))
        if low is None or high is None:
            continue  # it was tampered with, which the verification says
        measured = windows.sources.get(source)
        energy_j = None if measured is None else measured.joules.total
        listed.append(
            {
                "source": source,
                "low": low,
                "high": high,
                "standard_uncertainty": (high - low) / math.sqrt(12),
                "basis": str(content.get("basis", "")),
                "low_j": None if energy_j is None else low * energy_j,
                "high_j": None if energy_j is None else high * energy_j,
            }
        )
    return listed
