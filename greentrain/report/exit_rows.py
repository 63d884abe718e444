"""Read accuracy and joules of early exits by threshold, as fits recorded them."""

from __future__ import annotations

from collections.abc import Collection

from greentrain.report.document import ReportedExit
from greentrain.report.ledger_reading import LedgerContents
from greentrain.report.row_helpers import number, parse

TOPIC = "early exits"
"""Topic of the events that ``EarlyExit`` records."""


def exits_of(contents: LedgerContents, runs: Collection[str]) -> dict[str, list[ReportedExit]]:
    """Return the last table of each run that recorded one, by the id of the run.

    Args:
        contents: The rows.
        runs: Ids of the runs.
    """
    columns = ("run_id", "topic", "content")
    return {
        row["run_id"]: [
            {
                "threshold": number(one.get("threshold")),
                "accuracy": number(one.get("accuracy")),
                "operations": number(one.get("operations")),
                "energy_j": number(one.get("energy_j")),
            }
            for one in parse(row["content"], {}).get("rows", [])
            if isinstance(one, dict)
        ]
        for row in contents.each_of_runs("event", runs, *columns)
        if row["topic"] == TOPIC
    }
