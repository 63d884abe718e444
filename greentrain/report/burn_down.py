"""The amount left of a budget after each experience, and its forecast to the last one."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from typing import TypedDict

from greentrain.money import period_start
from greentrain.report.budget_figures import BudgetFigures
from greentrain.report.limits import thinned
from greentrain.units import utc_text

NO_AMOUNT = "no forecast: the amount of the budget is not known yet"
NO_EXPERIENCE = "no forecast: no experience was paid from the budget yet"
FINISHED = "all experiences are done ({done} of {planned})"
ENOUGH = "if each experience to come ({more}) uses the mean of the {done} so far"
OF_PERIOD = ", until the budget is renewed"
"""Added for a budget that is renewed: the experiences to come are those of its present period."""
TOO_LITTLE = "at the mean of the {done} so far, it lasts for {lasts} of the {more} to come"


class BudgetForecast(TypedDict):
    """The amount left after the last experience of a budget; ``None`` if there is no forecast.

    An amount below 0 is missing. ``done`` and ``planned`` are experiences of all streams of the
    budget; of one that is renewed, those of the period of the last payment, which began at
    ``period_utc``. ``sentence`` says how the amount was computed, or why there is none.
    """

    left_j: float | None
    left_g: float | None
    done: int
    planned: int
    lasts: int | None
    period_utc: str | None
    sentence: str


class BurnDown:
    """The experiences that a budget paid for; :meth:`add` adds the next."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, str] = {}
        self._left: list[tuple[int, str, float]] = []

    @property
    def experiences(self) -> int:
        """Number of experiences; one that was tried twice counts once."""
        return len(self._seen)

    def add(self, experience: Hashable, decided_utc: str, left_j: float | None) -> None:
        """Add an experience, or a baseline retraining at one.

        Args:
            experience: Its identity.
            decided_utc: Time of the decision.
            left_j: Joules left after it; ``None`` for a budget of carbon.
        """
        self._seen.setdefault(experience, decided_utc)
        if left_j is not None:
            if self._left and self._left[-1][0] == self.experiences:
                self._left.pop()
            self._left.append((self.experiences, decided_utc, left_j))

    def since(self, moment_utc: str | None) -> int:
        """Return the number of experiences that were decided about from a moment on."""
        return sum(moment_utc is None or one >= moment_utc for one in self._seen.values())

    def points(self, since_utc: str | None = None) -> list[tuple[int, float]]:
        """Return numbers of experiences, each with the joules left after it; at most 2,000.

        Args:
            since_utc: Moment from which experiences are listed, and counted from 1.
        """
        before = self.experiences - self.since(since_utc)
        listed = [
            (number - before, left_j)
            for number, decided_utc, left_j in self._left
            if since_utc is None or (decided_utc >= since_utc and number > before)
        ]
        return list(thinned(listed))


def present_period(budget: BudgetFigures) -> str | None:
    """Return the start of the period of a budget's last payment; ``None`` if it is not renewed."""
    if budget["per"] is None:
        return None
    paid = [one["recorded_utc"] for one in (*budget["spending"], *budget["open_reservations"])]
    last = max([budget["opened_utc"], *paid])
    return utc_text(period_start(datetime.fromisoformat(last), budget["per"]))


def present_total(budget: BudgetFigures, unit: str) -> float | None:
    """Return the amount of a budget in the period of its last payment.

    With carry-over it is that of all periods, like the amount left.

    Args:
        budget: The budget.
        unit: ``"j"`` or ``"g"``.
    """
    total = budget["total_j"] if unit == "j" else budget["total_g"]
    if total is None or budget["per"] is None or budget["carry_over"]:
        return total
    return total / budget["periods"]


def forecast(budget: BudgetFigures, paid: BurnDown) -> BudgetForecast:
    """Forecast the amount left after the last experience.

    Each experience to come is expected to use the mean of those so far, with probes, baseline
    retrainings and interrupted updates. Open reservations count as spent. A budget that is renewed
    has to last for its experiences in each period; the mean is that over all periods.

    Args:
        budget: The budget.
        paid: The experiences that it paid for.
    """
    of_carbon = budget["unit"] == "g"
    total = budget["total_g"] if of_carbon else budget["total_j"]
    spent = budget["spent_g"] if of_carbon else budget["spent_j"]
    left = budget["left_g"] if of_carbon else budget["left_j"]
    planned, period_utc = budget["num_experiences"], present_period(budget)
    done, every = paid.since(period_utc), paid.experiences
    none: BudgetForecast = {
        "left_j": None,
        "left_g": None,
        "done": done,
        "planned": planned,
        "lasts": None,
        "period_utc": period_utc,
        "sentence": "",
    }
    if not total or spent is None or left is None:
        return {**none, "sentence": NO_AMOUNT}
    if not every:
        return {**none, "sentence": NO_EXPERIENCE}
    more, each = max(0, planned - done), spent / every
    expected = left - more * each
    lasts = more if expected >= 0 else int(max(0.0, left) / each) if each else 0
    words = FINISHED if not more else ENOUGH if lasts == more else TOO_LITTLE
    counted = done if not more else every
    sentence = words.format(done=counted, planned=planned, more=more, lasts=lasts)
    return {
        **none,
        "left_j": None if of_carbon else expected,
        "left_g": expected if of_carbon else None,
        "lasts": lasts,
        "sentence": sentence + ("" if period_utc is None else OF_PERIOD),
    }
