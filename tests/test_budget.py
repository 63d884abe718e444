from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.budget import Balance, Budget, overrun
from greentrain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "energy_j", "share_of_full"),
    [
        ("20 Wh", 72e3, None),
        ("0.5kWh", 1.8e6, None),
        ("3600 J", 3600.0, None),
        ("40 % of full", None, 0.4),
        ("40%of full", None, 0.4),
        ("  12.5 % of  full ", None, 0.125),
        ("150 % of full", None, 1.5),
    ],
)
def test_reads_an_amount_or_a_share(
    text: str, energy_j: float | None, share_of_full: float | None
) -> None:
    budget = Budget.parse(text, horizon=8)
    assert (budget.energy_j, budget.share_of_full, budget.horizon) == (energy_j, share_of_full, 8)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0 Wh", "the budget is 0 J; it has to be more than zero"),
        ("-1 Wh", "the budget is -3600 J; it has to be more than zero"),
        ("0 % of full", "the budget is 0% of full; it has to be more than zero"),
        ("-40 % of full", "write a share as '40 % of full'"),
        ("40 %", "write a share as '40 % of full'"),
        ("4.0.0 % of full", "'4.0.0' is not a number"),
        ("20 parsecs", "the unit 'parsecs' is not known"),
        ("1e400 Wh", "not finite"),
    ],
)
def test_says_why_a_budget_cannot_be_used(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Budget.parse(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("horizon", [0, -1, 1.5, True, "8", None])
def test_a_horizon_is_a_positive_whole_number(horizon: Any) -> None:
    with pytest.raises(ConfigurationError, match="horizon is"):
        Budget(energy_j=1.0, horizon=horizon)


@pytest.mark.parametrize("amounts", [{}, {"energy_j": 1.0, "share_of_full": 0.4}])
def test_a_budget_is_an_amount_or_a_share_and_not_both(amounts: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="either an energy"):
        Budget(**amounts)


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["energy_j", "share_of_full"])
def test_an_amount_is_positive_and_finite(name: str, amount: float) -> None:
    with pytest.raises(ConfigurationError, match="more than zero"):
        Budget(**{name: amount})


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(energy_j=72e3, horizon=8), "20 Wh for 8 experiences"),
        (Budget(energy_j=3600.0), "1 Wh for 1 experience"),
        (Budget(share_of_full=0.4, horizon=2), "40 % of full for 2 experiences"),
    ],
)
def test_a_budget_reads_as_a_sentence(budget: Budget, text: str) -> None:
    assert str(budget) == text


def test_what_is_left_is_neither_spent_nor_reserved() -> None:
    assert Balance(total_j=100.0, spent_j=30.0, reserved_j=20.0).left_j == 50.0


def test_what_is_left_is_never_negative() -> None:
    # 100 J were reserved and 120 J drawn.
    overrun_balance = Balance(total_j=100.0, spent_j=120.0, reserved_j=0.0, overrun_j=20.0)
    assert overrun_balance.left_j == 0.0
    assert overrun_balance.within


@pytest.mark.parametrize(
    ("spent_j", "reserved_j", "overrun_j", "within"),
    [
        (60.0, 40.0, 0.0, True),
        (60.0, 41.0, 0.0, False),
        (110.0, 0.0, 10.0, True),
        (110.0, 0.0, 9.0, False),
        (0.1 + 0.2, 99.7, 0.0, True),
    ],
)
def test_the_money_rule_counts_settlements_up_to_their_reservation(
    spent_j: float, reserved_j: float, overrun_j: float, within: bool
) -> None:
    balance = Balance(total_j=100.0, spent_j=spent_j, reserved_j=reserved_j, overrun_j=overrun_j)
    assert balance.within is within


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_settlement_is_what_was_reserved_of_it_and_the_overrun(
    reserved_j: float, actual_j: float
) -> None:
    beyond_j = overrun(reserved_j, actual_j)
    assert beyond_j >= 0
    assert min(reserved_j, actual_j) + beyond_j == pytest.approx(actual_j)
