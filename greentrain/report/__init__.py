"""The report: one JSON document built from a ledger, and its renderings."""

from greentrain.report.disclosures import Given, read_given
from greentrain.report.html import render_html
from greentrain.report.model import SCHEMA_VERSION, build
from greentrain.report.recheck import Checked, Difference, check
from greentrain.report.write import missing, write

__all__ = [
    "SCHEMA_VERSION",
    "Checked",
    "Difference",
    "Given",
    "build",
    "check",
    "missing",
    "read_given",
    "render_html",
    "write",
]
