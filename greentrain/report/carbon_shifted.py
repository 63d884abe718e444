"""Carbon shifted in time: grams that waiting for cleaner electricity saved.

The figure compares the same joules at two times, so it is no energy that was avoided. It is
reported separately, and added to no other figure.
"""

from __future__ import annotations

from typing import Any

from greentrain.ledger import DecisionRow
from greentrain.report.row_helpers import number, parse
from greentrain.report.sums import Sum
from greentrain.units import format_number, plural

NOTHING_SHIFTED = "nothing was shifted: no update waited for a cleaner hour"
HOW = (
    "grams of the measured energy of each update at the hours of a start at once, less those at "
    "its own hours. The grams of waiting are subtracted. All are at the intensities that came"
)


class ShiftedCarbon:
    """The waits of a report's updates; :meth:`add` adds the next decision."""

    def __init__(self) -> None:
        self._shifted, self._expected = Sum(), Sum()
        self._waits, self._unknown, self._waited_s = 0, 0, 0.0

    def add(self, decision: DecisionRow, shifted_g: float | None) -> None:
        """Add a decision.

        Args:
            decision: The decision.
            shifted_g: Grams that its wait saved; ``None`` if unknown, or without a wait.
        """
        waiting: dict[str, Any] = parse(decision["waiting"], {})
        waited_s = number(waiting.get("waited_s"))
        if not waited_s or waited_s <= 0:
            return
        self._waits += 1
        self._waited_s += waited_s
        self._expected.add(number(waiting.get("predicted_saving_g")))
        if shifted_g is None:
            self._unknown += 1
        else:
            self._shifted.add(shifted_g)

    def figures(self) -> dict[str, Any]:
        """Return the sums, as the report has them."""
        shifted_g, expected_g = self._shifted.total, self._expected.total
        return {
            "shifted_g": shifted_g,
            "expected_g": expected_g,
            "waits": self._waits,
            "unknown": self._unknown,
            "waited_s": self._waited_s,
            "how": HOW if self._waits else None,
            "sentence": self._sentence(expected_g),
        }

    def _sentence(self, expected_g: float | None) -> str:
        if not self._waits:
            return NOTHING_SHIFTED
        hours = format_number(self._waited_s / 3600.0, 2)
        parts = [f"{plural(self._waits, 'update')} waited {hours} h in all for cleaner electricity"]
        if expected_g is not None:
            parts.append(f"{format_number(expected_g)} g were expected to be saved")
        if self._unknown:
            parts.append(
                f"the saving of {self._unknown} is unknown: an intensity or outcome is missing"
            )
        return "; ".join(parts)


def waited_j(decision: DecisionRow) -> float:
    """Return the joules of a decision's wait; 0 without one."""
    waiting: dict[str, Any] = parse(decision["waiting"], {})
    return number(waiting.get("idle_j")) or 0.0
