"""The report: one JSON document built from a ledger, and its renderings."""

from greentrain.report.html import render_html
from greentrain.report.model import SCHEMA_VERSION, build
from greentrain.report.write import write

__all__ = ["SCHEMA_VERSION", "build", "render_html", "write"]
