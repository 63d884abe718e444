"""The files about one stream for the page of its run: charts as PNG, and a model card."""

from __future__ import annotations

import glob

from greentrain.ledger import Ledger
from greentrain.report.document import Report
from greentrain.report.exports import model_card
from greentrain.report.html import charts
from greentrain.report.model import build
from greentrain.report.png import render_png
from greentrain.report.write import render_json

CARD = "model_card.md"
CARD_REPORT = "model_card.report.json"


def report_of(ledger: Ledger, stream: str) -> Report:
    """Build the report of all runs of a stream.

    Args:
        ledger: The ledger, which is only read.
        stream: Name of the stream.

    Raises:
        LedgerError: If the ledger cannot be read.
    """
    return build(ledger, name=glob.escape(stream))


def stream_files(report: Report) -> dict[str, bytes]:
    """Render the report's charts, a model card, and the report that the card is verified with.

    Args:
        report: The report of one stream.

    Returns:
        The contents by path. Several charts of one kind are numbered, such as
        ``charts/spending-2.png``.
    """
    files = {
        f"charts/{place}{f'-{number}' if number > 1 else ''}.png": render_png(chart)
        for place, plotted in charts(report).items()
        for number, (_, chart) in enumerate(plotted, 1)
    }
    files[CARD] = model_card.new_card(report).encode()
    files[CARD_REPORT] = render_json(report).encode()
    return files
