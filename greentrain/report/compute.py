"""Sum up the floating-point operations of a report's trainings."""

from __future__ import annotations

from greentrain.ledger import DecisionRow, OutcomeRow
from greentrain.report.document import Report
from greentrain.report.formats import shown
from greentrain.report.sums import Sum
from greentrain.report.use_figures import ComputeFigures
from greentrain.units import plural


class Compute:
    """The operations of updates and baseline retrainings, without probes and validation."""

    def __init__(self) -> None:
        self._flops = Sum()
        self._without = 0
        self._note: str | None = None

    def add(self, decision: DecisionRow, outcome: OutcomeRow | None) -> None:
        """Add a decision with its outcome; one that trained nothing adds nothing."""
        if outcome is None and decision["reservation_id"] is None:
            return
        if outcome is not None and not outcome["steps"]:
            return
        flops = None if outcome is None else outcome["flops"]
        self._flops.add(flops)
        if flops is None:
            self._without += 1
            note = "it was interrupted" if outcome is None else outcome["flops_note"]
            self._note = self._note or note or "another program trained, or an older greentrain"

    def figures(self) -> ComputeFigures:
        """Return the sum, and what is not in it."""
        return {
            "flops": self._flops.total,
            "trainings": self._flops.known + self._without,
            "trainings_without_flops": self._without,
            "flops_note": self._note,
        }


def known_flops(document: Report) -> float | None:
    """Return the operations of a report's trainings; ``None`` unless all were counted."""
    return None if flops_gap(document) else document["summary"]["flops"]


def flops_gap(document: Report) -> str | None:
    """Return the reason why the operations of a report are unknown; ``None`` if they are known."""
    summary = document["summary"]
    if any(run["kind"] == "fit" for run in document["runs"]):
        return "floating-point operations are counted in updates of streams, not in single fits"
    if summary["flops"] is None and not summary["trainings_without_flops"]:
        return "floating-point operations were not counted: no update trained"
    if summary["trainings_without_flops"]:
        return (
            "floating-point operations were not counted in "
            f"{summary['trainings_without_flops']} of {plural(summary['trainings'], 'training')}: "
            f"{shown(str(summary['flops_note']), 200)}"
        )
    return None
