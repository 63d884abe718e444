"""Make the charts, the model card and the avoided energy of a stream, for its run in MLflow."""

from __future__ import annotations

from greentrain.ledger import Ledger, RunLog
from greentrain.report.stream_files import report_of, stream_files
from greentrain.tracking import RunFiles, names
from greentrain.units import wh


def stream_page(ledger: Ledger, run: RunLog, stream: str) -> RunFiles:
    """Return the files and the figures of a stream, as its ledger has them now.

    Args:
        ledger: The ledger.
        run: The present run of the stream, whose rows are written first.
        stream: Name of the stream.

    Raises:
        LedgerError: If the ledger cannot be read.
    """
    run.flush()
    report = report_of(ledger, stream)
    avoided = report["avoided"]
    found = {
        names.ENERGY_AVOIDED: avoided["energy"]["avoided_j"],
        names.ENERGY_AVOIDED_EACH: (avoided["measured"] or {}).get("avoided_j"),
    }
    metrics = {name: wh(joules) for name, joules in found.items() if joules is not None}
    return RunFiles(files=stream_files(report), metrics=metrics)
