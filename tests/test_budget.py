from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.budget import Balance, Budget, Unit, overrun, parse_amount
from greentrain.errors import ConfigurationError
from greentrain.units import GRAMS_PER_UNIT, JOULES_PER_UNIT


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
    budget = Budget.parse(text, num_experiences=8)
    assert (budget.energy_j, budget.share_of_full, budget.num_experiences) == (
        energy_j,
        share_of_full,
        8,
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0 Wh", "the budget is 0 Wh; it has to be more than zero"),
        ("-1 Wh", "the budget is -1 Wh; it has to be more than zero"),
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


@pytest.mark.parametrize("num_experiences", [0, -1, 1.5, True, "8", None])
def test_num_experiences_is_a_positive_whole_number(num_experiences: Any) -> None:
    with pytest.raises(ConfigurationError, match="num_experiences is"):
        Budget(energy_j=1.0, num_experiences=num_experiences)


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
        (Budget(energy_j=72e3, num_experiences=8), "20 Wh for 8 experiences"),
        (Budget(energy_j=3600.0), "1 Wh"),
        (Budget(share_of_full=0.4, num_experiences=2), "40 % of full for 2 experiences"),
        (Budget(carbon_g=500.0, per="day"), "500 g CO2e per day"),
        (
            Budget(energy_j=3600.0, per="week", carry_over=True),
            "1 Wh per week with carry-over",
        ),
    ],
)
def test_a_budget_reads_as_a_sentence(budget: Budget, text: str) -> None:
    assert str(budget) == text


@pytest.mark.parametrize(
    ("text", "carbon_g"),
    [
        ("500 g CO2e", 500.0),
        ("500gCO2eq", 500.0),
        ("0.5 kg CO2-eq", 500.0),
        ("0.5 kgCO2e", 500.0),
        ("0.5 kg CO₂e", 500.0),
        ("2 tCO2e", 2e6),
        ("2 tonnes of CO2 equivalent", 2e6),
        ("1e3 gco2", 1000.0),
        ("3 KG CO2_E", 3000.0),
    ],
)
def test_reads_emissions(text: str, carbon_g: float) -> None:
    budget = Budget.parse(text)
    assert (budget.carbon_g, budget.energy_j, budget.unit) == (carbon_g, None, "g")
    assert budget.amount == carbon_g


@pytest.mark.parametrize(
    ("text", "energy_j"),
    [
        ("2 kWh", 7.2e6),
        ("2 kwh", 7.2e6),
        ("2 kW h", 7.2e6),
        ("2 kW·h", 7.2e6),
        ("0.002 MWh", 7.2e6),
        ("7.2 MJ", 7.2e6),
        ("7200 kJ", 7.2e6),
        ("7_200_000 J", 7.2e6),
    ],
)
def test_reads_energies(text: str, energy_j: float) -> None:
    budget = Budget.parse(text)
    assert (budget.energy_j, budget.unit) == (pytest.approx(energy_j), "J")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("500 g", "write '500 gCO2e'"),
        ("2 kW", "an energy is '2 kWh'"),
        ("20", "'20 Wh' or '20 gCO2e'"),
        ("25 %", "'25 % of full'"),
        ("0,5 kWh", "such as '0.5 kWh'"),
        ("0,5 kgCO2e", "such as '0.5 gCO2e'"),
        ("5 mgCO2e", "gCO2e, kgCO2e, tCO2e"),
        ("5 mWh", "J, kJ, MJ, Wh, kWh, MWh"),
        ("a lot", "'500 gCO2e'"),
        ("", "'500 gCO2e'"),
        ("1e400 gCO2e", "not finite"),
        ("0 gCO2e", "such as '500 gCO2e'"),
    ],
)
def test_a_wrong_budget_says_what_would_be_right(text: str, right: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Budget.parse(text)
    assert right in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "per", "carry_over"),
    [
        ("2 kWh per month", "month", False),
        ("2 kWh/day", "day", False),
        ("2 kWh a Week with carry-over", "week", True),
        ("2 kWh per quarter, with carry over", "quarter", True),
    ],
)
def test_reads_how_often_it_is_renewed(text: str, per: str, carry_over: bool) -> None:
    budget = Budget.parse(text)
    assert (budget.energy_j, budget.per, budget.carry_over) == (7.2e6, per, carry_over)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"until": datetime(2027, 1, 1)}, "it must be a time with a time zone"),
        ({"until": "2027-01-01"}, "it must be a time with a time zone"),
        ({"per": "year"}, "day, week, month, quarter"),
        ({"carry_over": True}, "give per too"),
        ({"parent": ""}, "name of the budget above"),
        ({"carbon_g": 5.0}, "either an energy"),
    ],
)
def test_terms_that_cannot_be_used(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Budget(**{"energy_j": 1.0, **changes})


def test_a_share_of_full_is_not_renewed() -> None:
    with pytest.raises(ConfigurationError, match="20 Wh per month"):
        Budget.parse("40 % of full per month")


def test_a_text_and_an_argument_that_disagree_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="per month, and per is 'day'"):
        Budget.parse("2 kWh per month", per="day")


def test_an_end_is_kept_in_utc() -> None:
    cet = timezone(timedelta(hours=1))
    budget = Budget.parse("2 kWh", num_experiences=40, until=datetime(2027, 1, 1, 1, tzinfo=cet))
    assert str(budget) == "2 kWh for 40 experiences until 2027-01-01 00:00 UTC"


@pytest.mark.parametrize(("text", "unit", "amount"), [("1 Wh", "J", 3600.0), ("2 gCO2e", "g", 2.0)])
def test_an_amount_is_read_in_the_unit_of_its_budget(text: str, unit: Unit, amount: float) -> None:
    assert parse_amount(text, unit) == amount
    with pytest.raises(ConfigurationError, match="the budget is of"):
        parse_amount(text, "g" if unit == "J" else "J")


def test_what_is_left_is_neither_spent_nor_reserved() -> None:
    assert Balance(total_j=100.0, spent_j=30.0, reserved_j=20.0).left_j == 50.0


def test_what_is_left_is_never_negative() -> None:
    # 100 J were reserved and 120 J used.
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


@given(st.floats(1e-6, 1e6), st.sampled_from(sorted({**JOULES_PER_UNIT, **GRAMS_PER_UNIT})))
def test_every_number_and_unit_is_read(number: float, unit: str) -> None:
    budget = Budget.parse(f"{number!r} {unit} per week")
    factor = {**JOULES_PER_UNIT, **GRAMS_PER_UNIT}[unit]
    assert (budget.amount, budget.per) == (number * factor, "week")
    assert budget.unit == ("g" if unit in GRAMS_PER_UNIT else "J")


@given(st.text() | st.text("0123456789.,%-+eE kWhgCO2tJMmperofull/", max_size=20))
def test_text_is_a_budget_or_refused_in_a_sentence(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except ConfigurationError as error:
        assert len(str(error)) > 20
    else:
        assert (budget.amount or budget.share_of_full or 0.0) > 0


class Odd(str):
    """A text whose methods say something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return "2 Wh"

    def __repr__(self) -> str:
        return "odd"


@pytest.mark.parametrize(
    "text",
    [
        " " * 8000,
        "1" + " " * 8000 + "J",
        "2 kWh" + " " * 8000 + "per month",
        "1" * 8000 + " J",
        "1" + "0" * 400 + " J",
        "J" * 8000,
        "40 % of full" + " " * 8000,
    ],
    ids=range(7),
)
def test_a_long_text_is_refused_before_it_is_read(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the budget is a text of \d+ .* may have 100"):
        Budget.parse(text)


@pytest.mark.parametrize(
    "text", ["1__0 J", "_1 J", "10**400", "10**400 J", "1e400 J", "nan J", "inf J", "\u0661 J"]
)
def test_a_text_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot (read|use) the"):
        Budget.parse(text)


@pytest.mark.parametrize("name", ["energy_j", "carbon_g", "share_of_full"])
@pytest.mark.parametrize(
    "amount",
    [10**400, 10**5000, "5", True, b"5", [5.0], 5j, object(), math.nan, math.inf, 0, -1],
    ids=range(12),
)
def test_an_amount_is_a_number_above_zero(name: str, amount: Any) -> None:
    with pytest.raises(ConfigurationError, match="the budget is") as caught:
        Budget(**{name: amount})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("number", [10**400, 10**5000, 2**31, 0, -1, 1.0, True, "8"], ids=range(8))
def test_the_number_of_experiences_can_be_stored(number: Any) -> None:
    with pytest.raises(ConfigurationError, match="num_experiences is"):
        Budget(energy_j=1.0, num_experiences=number)


def test_amounts_and_texts_of_other_types_become_plain() -> None:
    period: Any = Odd("day")
    budget = Budget(energy_j=np.float32(2.0), per=period, parent=Odd("project"))
    kinds = [type(value) for value in (budget.energy_j, budget.per, budget.parent)]
    assert kinds == [float, str, str]
    assert (budget.per, budget.parent) == ("day", "project")
    assert Budget.parse(Odd("1 Wh")).energy_j == 3600.0
    assert Budget.parse("1_000 J").energy_j == 1000.0
