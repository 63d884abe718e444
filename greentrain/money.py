"""Rules for budgets: pure functions of budgets, amounts and times.

Amounts are in the budget's unit: joules, or grams of CO2 equivalent. The ledger applies the rules
in its transactions, and ``verify`` applies them again to the rows of a ledger.
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
    """Sums over the reservations and settlements of a budget in one period, in the budget's unit.

    Args:
        open: Number of open reservations.
        reserved: Sum of the open reservations.
        spent: Sum of the settlements, overruns included.
        overrun: Part of ``spent`` beyond the reservations.
    """

    open: int = 0
    reserved: float = 0.0
    spent: float = 0.0
    overrun: float = 0.0

    def reserve(self, amount: float) -> BudgetTotals:
        """Return the totals after a reservation.

        Example:
            >>> BudgetTotals().reserve(10.0).settle(10.0, 12.5)
            BudgetTotals(open=0, reserved=0.0, spent=12.5, overrun=2.5)
        """
        return BudgetTotals(
            open=self.open + 1,
            reserved=self.reserved + amount,
            spent=self.spent,
            overrun=self.overrun,
        )

    def settle(self, amount: float, actual: float) -> BudgetTotals:
        """Return the totals after a reservation of ``amount`` was settled at ``actual``."""
        return BudgetTotals(
            open=self.open - 1,
            # Exactly 0 after the last one, without the rounding errors of the sum.
            reserved=max(0.0, self.reserved - amount) if self.open > 1 else 0.0,
            spent=self.spent + actual,
            overrun=self.overrun + overrun(amount, actual),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """The status of a budget in its unit; of a renewed budget, in the present period.

    Args:
        unit: ``"J"`` or ``"g"``.
        total: Amount that may be spent; with carry-over, the sum of all periods so far.
        taken: Reservations and settlements.
        promised: Amount promised to child budgets.
        overdrawn: Overruns of child budgets beyond their promises.
        unsettled: Amount that windows of open reservations exceed them by: the overrun of an update
            that runs, or that was killed.
        over: ``True`` after the budget's end, when nothing is left.
    """

    unit: Unit
    total: float
    taken: BudgetTotals = BudgetTotals()
    promised: float = 0.0
    overdrawn: float = 0.0
    unsettled: float = 0.0
    over: bool = False

    @property
    def spent(self) -> float:
        """Amount settled, with all overruns: also of child budgets and of open reservations."""
        return self.taken.spent + self.overdrawn + self.unsettled

    @property
    def left(self) -> float:
        """Amount that can still be reserved or promised; never negative."""
        return self.balance().left_j

    @property
    def within(self) -> bool:
        """``True`` if no more than the total is taken, without counting overruns."""
        return self.balance().within

    @property
    def overdraft(self) -> float:
        """Amount by which overruns exceed the total."""
        return max(0.0, self.spent + self.taken.reserved + self.promised - self.total)

    def balance(self, per_j: float = 1.0) -> Balance:
        """Return the balance in joules.

        Args:
            per_j: Amount in the budget's unit for one joule: 1 for joules, grams per joule for
                grams.
        """
        return Balance(
            total_j=self.total / per_j,
            spent_j=self.spent / per_j,
            reserved_j=self.taken.reserved / per_j,
            overrun_j=(self.taken.overrun + self.overdrawn + self.unsettled) / per_j,
            promised_j=self.promised / per_j,
            over=self.over,
        )


def period_start(moment: datetime, per: Period) -> datetime:
    """Return the start of the calendar period in UTC that contains a moment.

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
    """Return the number of periods from one moment to another, both included; at least 1.

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


def period_name(budget: Budget, now: datetime) -> str:
    """Return the name of the period that pays for a reservation made now.

    The periods of a budget that is renewed without carry-over are named by their start. Any other
    budget has a single period, named ``""``.
    """
    if budget.per is None or budget.carry_over:
        return ""
    return utc_text(period_start(now, budget.per))


def total(budget: Budget, *, opened: datetime, now: datetime) -> float:
    """Return the amount of a budget in the present period before anything is taken.

    With carry-over it is the sum of all periods since the budget was opened, so that the unused
    amounts of earlier periods remain.
    """
    amount = budget.amount or 0.0
    if budget.per is not None and budget.carry_over:
        return amount * periods(opened, now, budget.per)
    return amount


def promised(parent: Budget, child: Budget, *, opened: datetime, now: datetime) -> float:
    """Return the amount that a parent promises in the present period to a child budget.

    Args:
        parent: The parent.
        child: The child.
        opened: Time at which the child was opened.
        now: The present time.
    """
    amount = child.amount or 0.0
    if parent.carry_over and child.per is not None:
        return amount * periods(opened, now, child.per)
    return amount


def is_over(budget: Budget, now: datetime) -> bool:
    """Return whether a budget has ended; its end is the first moment after it."""
    return budget.until is not None and now >= budget.until


def check_child(child: Budget, parent: Budget) -> None:
    """Refuse a child budget that its parent cannot cover.

    A child may not need more than its parent receives, nor need it later. The amount that a child
    uses in a period must have been promised in that period, unless the parent carries over.

    Raises:
        ConfigurationError: If the unit, period, carry-over or end does not fit the parent's.
    """
    if child.unit != parent.unit:
        raise ConfigurationError(
            f"the budget is {child} and its parent {child.parent!r} is {parent}; give both in "
            "energy or both in carbon"
        )
    if parent.per is None and child.per is not None:
        raise ConfigurationError(
            f"the budget is renewed per {child.per} and its parent {child.parent!r} never is; "
            "remove per"
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
            f"the budget carries over and its parent {child.parent!r} does not; remove carry_over"
        )
    if parent.until is not None and (child.until is None or child.until > parent.until):
        raise ConfigurationError(
            f"the parent {child.parent!r} ends at {utc_text(parent.until)}; give the budget an "
            "until that is no later"
        )


def experiences_left(budget: Budget, *, seen: int, opened: datetime | None, now: datetime) -> int:
    """Return how many experiences a budget still has to last for, including the present one.

    For a renewed budget, and for a budget without an end, it is ``num_experiences`` minus those
    seen. For a budget with an end, experiences are expected at an even pace: it is the share of
    ``num_experiences`` for the time that is left.

    Args:
        budget: The budget.
        seen: Experiences decided before this one; of a renewed budget, in this period.
        opened: Time at which the budget was opened; ``None`` if it is opened now.
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
