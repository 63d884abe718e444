"""The report: one JSON document built from a ledger, and its renderings."""

from greentrain.report.disclosures import Disclosures, read_disclosures
from greentrain.report.document import Report
from greentrain.report.html import render_html
from greentrain.report.model import SCHEMA_VERSION, build
from greentrain.report.recheck import CheckResult, Difference, check
from greentrain.report.write import build_and_write, missing, write

__all__ = [
    "SCHEMA_VERSION",
    "CheckResult",
    "Difference",
    "Disclosures",
    "Report",
    "build",
    "build_and_write",
    "check",
    "missing",
    "read_disclosures",
    "render_html",
    "write",
]
