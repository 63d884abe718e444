from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.budget import PERIODS, Balance, Budget, Period
from greentrain.errors import ConfigurationError
from greentrain.money import (
    BudgetStatus,
    BudgetTotals,
    check_child,
    experiences_left,
    is_over,
    period_name,
    period_start,
    periods,
    promised,
    total,
)

MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("per", "start", "end"),
    [
        ("day", "2026-11-22", "2026-11-23"),
        ("week", "2026-11-16", "2026-11-23"),  # a Monday; the 22nd is a Sunday
        ("month", "2026-11-01", "2026-12-01"),
        ("quarter", "2026-10-01", "2027-01-01"),
    ],
)
def test_periods_are_half_open_utc_calendar_periods(per: Period, start: str, end: str) -> None:
    for moment in (utc(start), utc("2026-11-22T13:30"), utc(end) - timedelta(microseconds=1)):
        assert period_start(moment, per) == utc(start)
    assert period_start(utc(end), per) == utc(end)


@given(MOMENTS, MOMENTS, st.sampled_from(PERIODS))
def test_periods_are_counted_one_by_one(one: datetime, other: datetime, per: Period) -> None:
    first, last = sorted([one, other])
    last = min(last, first + timedelta(days=400))
    days = (last.date() - first.date()).days
    starts = {period_start(first + timedelta(days=day), per) for day in range(days)}
    assert periods(first, last, per) == len(starts | {period_start(last, per)})


def test_a_renewed_budget_has_totals_for_each_period() -> None:
    daily = Budget(energy_j=10.0, per="day")
    assert period_name(daily, utc("2026-11-22T13:30")) == "2026-11-22T00:00:00.000000+00:00"
    assert total(daily, opened=utc("2026-11-20"), now=utc("2026-11-22")) == 10.0


def test_carry_over_has_one_period() -> None:
    daily = Budget(energy_j=10.0, per="day", carry_over=True)
    assert period_name(daily, utc("2026-11-22T13:30")) == ""
    opened = utc("2026-11-20T23:59")
    assert total(daily, opened=opened, now=opened) == 10.0
    assert total(daily, opened=opened, now=utc("2026-11-22T13:30")) == 30.0


def test_a_budget_ends_at_its_end() -> None:
    budget = Budget(energy_j=10.0, until=utc("2027-01-01"))
    assert not is_over(budget, utc("2027-01-01") - timedelta(microseconds=1))
    assert is_over(budget, utc("2027-01-01"))
    assert BudgetStatus(unit="J", total=10.0, over=True).left == 0.0


def test_a_status_is_what_was_taken_and_promised() -> None:
    taken = BudgetTotals().reserve(30.0).reserve(20.0).settle(30.0, 35.0)
    status = BudgetStatus(unit="J", total=100.0, taken=taken, promised=40.0)
    assert (status.spent, status.left, status.within) == (35.0, 5.0, True)
    assert status.balance() == Balance(
        total_j=100.0, spent_j=35.0, reserved_j=20.0, overrun_j=5.0, promised_j=40.0
    )
    assert status.overdraft == 0.0
    grams = BudgetStatus(unit="g", total=100.0, taken=taken).balance(per_j=0.5)
    assert (grams.total_j, grams.left_j) == (200.0, 90.0)


@given(st.lists(st.tuples(st.floats(0.001, 1e6), st.floats(0.0, 1.5)), max_size=30))
def test_totals_are_what_the_sums_are(payments: list[tuple[float, float]]) -> None:
    totals = BudgetTotals()
    for amount, _ in payments:
        totals = totals.reserve(amount)
    assert totals.open == len(payments)
    assert totals.reserved == pytest.approx(sum(amount for amount, _ in payments))
    for amount, share in payments:
        totals = totals.settle(amount, share * amount)
    assert (totals.open, totals.reserved) == (0, 0.0)
    assert totals.spent == pytest.approx(sum(amount * share for amount, share in payments))
    capped = sum(amount * min(1.0, share) for amount, share in payments)
    assert totals.spent - totals.overrun == pytest.approx(capped)


PARENT = {"energy_j": 100.0}
CHILD = {"energy_j": 10.0, "parent": "project"}
MONTHLY = {"per": "month"}
CARRIED = {"per": "month", "carry_over": True}
END = utc("2027-01-01")


@pytest.mark.parametrize(
    ("parent", "child", "complaint"),
    [
        ({}, {}, None),
        (MONTHLY, MONTHLY, None),
        (CARRIED, MONTHLY, None),
        (CARRIED, CARRIED, None),
        (CARRIED, {}, None),
        ({"until": END}, {"until": END}, None),
        ({}, {"until": END}, None),
        ({}, {"energy_j": None, "carbon_g": 5.0}, "both in carbon"),
        ({}, MONTHLY, "remove per"),
        (MONTHLY, {}, "per='month' too"),
        (MONTHLY, {"per": "day"}, "the same period"),
        (MONTHLY, CARRIED, "remove carry_over"),
        ({"until": END}, {}, "until that is no later"),
        ({"until": END}, {"until": END + timedelta(days=1)}, "until that is no later"),
    ],
)
def test_a_child_never_needs_more_than_its_parent_gets(
    parent: dict[str, Any], child: dict[str, Any], complaint: str | None
) -> None:
    above, below = Budget(**{**PARENT, **parent}), Budget(**{**CHILD, **child})
    if complaint is None:
        check_child(below, above)
    else:
        with pytest.raises(ConfigurationError, match=complaint):
            check_child(below, above)


def test_a_parent_that_carries_over_promises_each_period_s_amount() -> None:
    opened, now = utc("2026-10-31"), utc("2026-12-01")  # October, November, December
    monthly = Budget(energy_j=10.0, per="month", parent="project")
    once = Budget(energy_j=10.0, parent="project")
    carried = Budget(energy_j=100.0, per="month", carry_over=True)
    assert promised(carried, monthly, opened=opened, now=now) == 30.0
    assert promised(carried, once, opened=opened, now=now) == 10.0
    renewed = Budget(energy_j=100.0, per="month")
    assert promised(renewed, monthly, opened=opened, now=now) == 10.0


@pytest.mark.parametrize(
    ("terms", "seen", "now", "left"),
    [
        ({}, 0, "2026-01-01", 10),
        ({}, 9, "2026-01-01", 1),
        ({}, 12, "2026-01-01", 1),
        ({"per": "day"}, 4, "2026-01-01", 6),
        ({"until": utc("2026-01-11")}, 0, "2026-01-01", 10),
        ({"until": utc("2026-01-11")}, 9, "2026-01-06", 5),  # half of the time, half of them
        ({"until": utc("2026-01-11")}, 1, "2026-01-10T20:00", 1),
        ({"until": utc("2026-01-11")}, 1, "2026-02-01", 1),
    ],
)
def test_how_many_experiences_are_still_expected(
    terms: dict[str, Any], seen: int, now: str, left: int
) -> None:
    budget = Budget(energy_j=1.0, num_experiences=10, **terms)
    assert experiences_left(budget, seen=seen, opened=utc("2026-01-01"), now=utc(now)) == left
