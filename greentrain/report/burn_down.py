"""The amount left of a budget after each experience, and its forecast to the last one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypedDict

from greentrain.report.document import BudgetFigures
from greentrain.report.limits import thinned

RENEWED = "no forecast: the budget is renewed, so its last experience is not fixed"
NO_AMOUNT = "no forecast: the amount of the budget is not known yet"
NO_EXPERIENCE = "no forecast: no experience was paid from the budget yet"
FINISHED = "all experiences are done ({done} of {planned})"
ENOUGH = "if each of the {more} to come uses the mean of the {done} so far"
TOO_LITTLE = "at the mean of the {done} so far, it lasts for {lasts} of the {more} to come"


class BudgetForecast(TypedDict):
    """The amount left after the last experience of a budget; ``None`` if there is no forecast.

    An amount below 0 is missing. ``done`` and ``planned`` are experiences of all streams of the
    budget. ``sentence`` says how the amount was computed, or why there is none.
    """

    left_j: float | None
    left_g: float | None
    done: int
    planned: int
    lasts: int | None
    sentence: str


class BurnDown:
    """The experiences that a budget paid for; :meth:`add` adds the next."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, None] = {}
        self._left: list[tuple[int, float]] = []

    @property
    def experiences(self) -> int:
        """Number of experiences; one that was tried twice counts once."""
        return len(self._seen)

    def add(self, experience: Hashable, left_j: float | None) -> None:
        """Add an experience, or a baseline retraining at one.

        Args:
            experience: Its identity.
            left_j: Joules left after it; ``None`` for a budget of carbon.
        """
        self._seen[experience] = None
        if left_j is not None:
            if self._left and self._left[-1][0] == self.experiences:
                self._left.pop()
            self._left.append((self.experiences, left_j))

    def points(self) -> list[tuple[int, float]]:
        """Return numbers of experiences, each with the joules left after it; at most 2,000."""
        return list(thinned(self._left))


def forecast(budget: BudgetFigures, done: int) -> BudgetForecast:
    """Forecast the amount left after the last experience.

    Each experience to come is expected to use the mean of those so far, with probes, baseline
    retrainings and interrupted updates. Open reservations count as spent.

    Args:
        budget: The budget.
        done: Number of the experiences that it paid for.
    """
    of_carbon = budget["unit"] == "g"
    total = budget["total_g"] if of_carbon else budget["total_j"]
    spent = budget["spent_g"] if of_carbon else budget["spent_j"]
    left = budget["left_g"] if of_carbon else budget["left_j"]
    planned = budget["num_experiences"]
    none: BudgetForecast = {
        "left_j": None,
        "left_g": None,
        "done": done,
        "planned": planned,
        "lasts": None,
        "sentence": "",
    }
    if budget["per"] is not None:
        return {**none, "sentence": RENEWED}
    if not total or spent is None or left is None:
        return {**none, "sentence": NO_AMOUNT}
    if not done:
        return {**none, "sentence": NO_EXPERIENCE}
    more, each = max(0, planned - done), spent / done
    expected = left - more * each
    lasts = more if expected >= 0 else int(max(0.0, left) / each)
    words = FINISHED if not more else ENOUGH if lasts == more else TOO_LITTLE
    return {
        **none,
        "left_j": None if of_carbon else expected,
        "left_g": expected if of_carbon else None,
        "lasts": lasts,
        "sentence": words.format(done=done, planned=planned, more=more, lasts=lasts),
    }
