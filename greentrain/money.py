"""The rules of the money: pure functions of budgets, amounts and times.

Amounts are in a budget's own unit: joules, or grams of CO2 equivalent. The ledger applies the rules
inside its transactions, and ``verify`` applies them again to what the ledger holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from greentrain.budget import Balance, Budget, Period, Unit, overrun
from greentrain.errors import ConfigurationError
from greentrain.units import utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetTotals:
    """What was taken from a budget, or from one of its periods, in the budget's unit.

    Args:
        open: Reservations that are not settled.
        reserved: Their sum.
        spent: What was settled, overruns included.
        overrun: The part of ``spent`` beyond the reservations.
    """

    open: int = 0
    reserved: float = 0.0
    spent: float = 0.0
    overrun: float = 0.0

    def reserve(self, amount: float) -> BudgetTotals:
        """Return the tally after a reservation.

        Example:
            >>> BudgetTotals().reserve(10.0).settle(10.0, 12.5)
            Tally(open=0, reserved=0.0, spent=12.5, overrun=2.5)
        """
        return BudgetTotals(
            open=self.open + 1,
            reserved=self.reserved + amount,
            spent=self.spent,
            overrun=self.overrun,
        )

    def settle(self, amount: float, actual: float) -> BudgetTotals:
        """Return the tally after a reservation of ``amount`` was settled at ``actual``."""
        return BudgetTotals(
            open=self.open - 1,
            # The last one leaves nothing: not what rounding left of many sums.
            reserved=max(0.0, self.reserved - amount) if self.open > 1 else 0.0,
            spent=self.spent + actual,
            overrun=self.overrun + overrun(amount, actual),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """Where a budget stands, in its own unit; of a renewed budget, in the present period.

    Args:
        unit: Joules or grams.
        total: What may be spent; with carry-over, all that has come in so far.
        taken: What was reserved and settled.
        promised: What was promised to child budgets.
        overdrawn: What child budgets spent beyond their promise, by overruns.
        over: Whether the budget's time is over: nothing is left then.
    """

    unit: Unit
    total: float
    taken: BudgetTotals = BudgetTotals()
    promised: float = 0.0
    overdrawn: float = 0.0
    over: bool = False

    @property
    def spent(self) -> float:
        """What was settled, overruns included, those of child budgets among them."""
        return self.taken.spent + self.overdrawn

    @property
    def left(self) -> float:
        """What can still be reserved or promised; never negative."""
        return self.balance().left_j

    @property
    def within(self) -> bool:
        """Whether the money rule holds, with settlements counted up to their reservations."""
        return self.balance().within

    @property
    def overdraft(self) -> float:
        """What overruns have taken beyond the total."""
        return max(0.0, self.spent + self.taken.reserved + self.promised - self.total)

    def balance(self, per_j: float = 1.0) -> Balance:
        """Return it in joules.

        Args:
            per_j: The unit's amount in one joule: 1 for joules, the intensity for grams.
        """
        return Balance(
            total_j=self.total / per_j,
            spent_j=self.spent / per_j,
            reserved_j=self.taken.reserved / per_j,
            overrun_j=(self.taken.overrun + self.overdrawn) / per_j,
            promised_j=self.promised / per_j,
            over=self.over,
        )


def period_start(moment: datetime, per: Period) -> datetime:
    """Return the first moment of the UTC calendar period that a moment lies in.

    Periods are half-open: midnight belongs to the day that it begins. A week begins on Monday.

    Example:
        >>> period_start(datetime(2026, 5, 31, 23, 59, tzinfo=UTC), "quarter").isoformat()
        '2026-04-01T00:00:00+00:00'
    """
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "week":
        return day - timedelta(days=day.weekday())
    if per == "month":
        return day.replace(day=1)
    if per == "quarter":
        return day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1)
    return day


def periods(first: datetime, last: datetime, per: Period) -> int:
    """Count the periods from one moment to another, both included; at least 1.

    Example:
        >>> new_year = datetime(2027, 1, 1, tzinfo=UTC)
        >>> periods(datetime(2026, 12, 31, tzinfo=UTC), new_year, "month")
        2
    """
    begin, end = period_start(first, per), period_start(last, per)
    if per in ("day", "week"):
        passed = (end - begin).days // (1 if per == "day" else 7)
    else:
        months = 12 * (end.year - begin.year) + end.month - begin.month
        passed = months // (1 if per == "month" else 3)
    return max(0, passed) + 1


def period(budget: Budget, now: datetime) -> str:
    """Name what a reservation made now is taken from.

    A budget that is renewed without carry-over has a pot for each period, named by its beginning;
    any other has one, named ``""``.
    """
    if budget.per is None or budget.carry_over:
        return ""
    return utc_text(period_start(now, budget.per))


def total(budget: Budget, *, opened: datetime, now: datetime) -> float:
    """Return what the present pot of a budget holds before anything is taken from it.

    With carry-over that is all that has come in since the budget was opened, so that what earlier
    periods left, and no more, is added to this one's amount.
    """
    amount = budget.amount or 0.0
    if budget.per is not None and budget.carry_over:
        return amount * periods(opened, now, budget.per)
    return amount


def promised(parent: Budget, child: Budget, *, opened: datetime, now: datetime) -> float:
    """Return what the present pot of a parent has promised to a child opened at ``opened``."""
    amount = child.amount or 0.0
    if parent.carry_over and child.per is not None:
        return amount * periods(opened, now, child.per)
    return amount


def is_over(budget: Budget, now: datetime) -> bool:
    """Return whether a budget's time is over: its end is the first moment after it."""
    return budget.until is not None and now >= budget.until


def check_child(child: Budget, parent: Budget) -> None:
    """Refuse a child budget whose terms its parent cannot promise.

    A child may never need more than its parent gets, nor later: what it draws in a period has to
    have been promised in that period, unless the parent carries over.

    Raises:
        ConfigurationError: If unit, period, carry-over or end do not fit.
    """
    if child.unit != parent.unit:
        raise ConfigurationError(
            f"the budget is {child} and its parent {child.parent!r} is {parent}; both are of "
            "energy or both of carbon"
        )
    if parent.per is None and child.per is not None:
        raise ConfigurationError(
            f"the budget is renewed per {child.per} and its parent {child.parent!r} never is; "
            "leave per away"
        )
    if child.per is None and parent.per is not None and not parent.carry_over:
        raise ConfigurationError(
            f"the parent {child.parent!r} is renewed per {parent.per} without carry-over; give the "
            f"budget per={parent.per!r} too"
        )
    if child.per is not None and child.per != parent.per:
        raise ConfigurationError(
            f"the budget is renewed per {child.per} and its parent {child.parent!r} per "
            f"{parent.per}; give both the same period"
        )
    if child.carry_over and not parent.carry_over:
        raise ConfigurationError(
            f"the budget carries over and its parent {child.parent!r} does not; leave carry_over "
            "away"
        )
    if parent.until is not None and (child.until is None or child.until > parent.until):
        raise ConfigurationError(
            f"the parent {child.parent!r} ends at {utc_text(parent.until)}; give the budget an "
            "until that is no later"
        )


def experiences_left(budget: Budget, *, seen: int, opened: datetime | None, now: datetime) -> int:
    """Return how many experiences a budget still has to last for, the present one included.

    Without an end, and in a period, that is the horizon less those seen. Until an end they are
    expected at an even pace: the share of the horizon that there is time left for.

    Args:
        budget: The budget.
        seen: Experiences decided before this one, of a renewed budget in this period.
        opened: When the budget was opened; ``None`` if it is opened now.
        now: The present time.

    Example:
        >>> start, noon, end = (datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (0, 12, 20))
        >>> daily = Budget(energy_j=1.0, num_experiences=10, until=end)
        >>> experiences_left(daily, seen=9, opened=start, now=noon)
        4
    """
    if budget.until is None or budget.per is not None:
        return max(1, budget.num_experiences - seen)
    left_s = (budget.until - now).total_seconds()
    span_s = (budget.until - (opened or now)).total_seconds()
    return max(1, math.ceil(budget.num_experiences * left_s / span_s)) if span_s > 0 else 1
