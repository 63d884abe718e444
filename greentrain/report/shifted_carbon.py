"""Carbon shifted in time: grams that waiting for cleaner electricity saved.

The figure compares the same joules at two times, so it is no energy that was avoided. It is
reported separately, and added to no other figure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from greentrain.ledger import DecisionRow, EventRow
from greentrain.report.row_helpers import number, parse
from greentrain.report.sums import Sum
from greentrain.units import format_number, plural

NOTHING_SHIFTED = "nothing was shifted: no update waited for a cleaner hour"
HOW = (
    "grams of the measured energy of each update at the hours of a start at once, less those at "
    "its own hours. The grams of waiting are subtracted. All are at the intensities that came"
)


HOW_PAUSES = (
    "grams of the measured energy of each fit if it had run at once, less those at its own hours, "
    "and less those of pausing, waiting and resuming. All are at the intensities that came"
)
UNKNOWN_PAUSES = (
    "the run has no hourly average intensity, a part of it is missing, or several processes trained"
)
NO_BOUNDS = "no interval is claimed: the intensities have no bounds"


class ShiftedCarbon:
    """The waits of a report's updates, and the pauses of its fits.

    Add the decisions first, and then the events.
    """

    def __init__(self) -> None:
        self._shifted, self._expected = Sum(), Sum()
        self._waits, self._unknown, self._waited_s = 0, 0, 0.0
        self._waited: set[tuple[str, str | None]] = set()
        self._fits = _Pauses()

    def add(self, decision: DecisionRow, shifted_g: float | None) -> None:
        """Add a decision.

        Args:
            decision: The decision.
            shifted_g: Grams that its wait saved; ``None`` if unknown, or without a wait.
        """
        waiting: dict[str, Any] = parse(decision["waiting"], {})
        waited_s = number(waiting.get("waited_s"))
        if shifted_g is None and not (waited_s and waited_s > 0):
            return
        self._waits += 1
        self._waited.add((decision["run_id"], decision["experience_id"]))
        self._waited_s += waited_s or 0.0
        self._expected.add(number(waiting.get("predicted_saving_g")))
        if shifted_g is None:
            self._unknown += 1
        else:
            self._shifted.add(shifted_g)

    def add_event(self, event: EventRow) -> None:
        """Add an event: the end of a pause of an update, or a pause of a fit."""
        figures: dict[str, Any] = parse(event["content"], {})
        if event["topic"] in ("pause", "shifted"):
            self._fits.add(event["topic"], figures)
        elif event["topic"] == "waiting" and "resumed_utc" in figures:
            self._waited_s += _between_s(figures.get("pause_utc"), figures["resumed_utc"])
            paused = event["run_id"], event["experience_id"]
            if paused not in self._waited:  # its update did not end
                self._waited.add(paused)
                self._waits, self._unknown = self._waits + 1, self._unknown + 1

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
            "pauses": self._fits.figures(),
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


class _Pauses:
    """The pauses of fits, and what those that ended have shifted."""

    def __init__(self) -> None:
        self._sums = {name: Sum() for name in ("shifted_g", "low_g", "high_g")}
        self._fits = self._known = self._decided = self._ended = self._pauses = 0
        self._waited_s = 0.0

    def add(self, topic: str, figures: dict[str, Any]) -> None:
        """Add a pause, or the figures of a fit that ended."""
        if topic == "pause":
            self._decided += 1
            return
        self._fits += 1
        self._ended += int(number(figures.get("decided")) or 0)
        self._waited_s += number(_dict(figures.get("seconds")).get("waiting")) or 0.0
        self._known += number(figures.get("shifted_g")) is not None
        for name, total in self._sums.items():
            total.add(number(figures.get(name)))

    def figures(self) -> dict[str, Any] | None:
        """Return the sums; ``None`` without a pause."""
        if not (self._decided or self._fits):
            return None
        bounded = self._known > 0 and self._sums["low_g"].known == self._known
        return {
            "shifted_g": self._sums["shifted_g"].total,
            "low_g": self._sums["low_g"].total if bounded else None,
            "high_g": self._sums["high_g"].total if bounded else None,
            "fits": self._fits,
            "pauses": self._decided,
            "unknown": self._fits - self._known,
            "unfinished": max(0, self._decided - self._ended),
            "waited_s": self._waited_s,
            "how": HOW_PAUSES,
            "sentence": self._sentence(bounded),
        }

    def _sentence(self, bounded: bool) -> str:
        hours = format_number(self._waited_s / 3600.0, 2)
        parts = [
            f"{plural(self._fits, 'fit')} with pauses ended, after {hours} h of waiting in all"
        ]
        if unknown := self._fits - self._known:
            parts.append(f"what {unknown} of them shifted is unknown: {UNKNOWN_PAUSES}")
        if unfinished := max(0, self._decided - self._ended):
            parts.append(f"{plural(unfinished, 'pause')} of fits that did not end are left out")
        if self._known and not bounded:
            parts.append(NO_BOUNDS)
        return "; ".join(parts)


def waited_j(decision: DecisionRow) -> float:
    """Return the joules of a decision's wait; 0 without one."""
    waiting: dict[str, Any] = parse(decision["waiting"], {})
    return number(waiting.get("idle_j")) or 0.0


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _between_s(began: object, ended: object) -> float:
    """Return the seconds between two times of an event; 0 if one was tampered with."""
    try:
        passed = datetime.fromisoformat(str(ended)) - datetime.fromisoformat(str(began))
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, passed.total_seconds())
