"""Budgets of energy or carbon, their balance, and the interface of an account.

The accounting rules are in :mod:`greentrain.money`; the ledger applies them inside its
transactions.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypedDict, get_args

from greentrain.errors import ConfigurationError
from greentrain.naming import check_name
from greentrain.texts import short_repr
from greentrain.units import (
    GRAMS_PER_UNIT,
    JOULES_PER_UNIT,
    format_carbon,
    format_energy,
    in_utc,
    is_number,
    is_whole,
    names_carbon,
    parse_carbon,
    parse_energy,
    plain_quantity,
)

Unit = Literal["J", "g"]
"""Unit of a budget: joules, or grams of CO2 equivalent."""
Period = Literal["day", "week", "month", "quarter"]
"""Period after which a budget is renewed: UTC days, weeks from Monday, months and quarters."""

PERIODS: tuple[Period, ...] = get_args(Period)
_OF_FULL = re.compile(r"\s*([0-9.]+)\s*%\s*of\s+full\s*")
_PER = re.compile(
    r"(?P<amount>.+?)\s*(?:/|\b(?:per|a|each|every)\s)\s*(?P<per>day|week|month|quarter)"
    r"(?P<carry>\s*,?\s*with\s+carry[\s-]?over)?\s*",
    re.IGNORECASE,
)
_MOST_EXPERIENCES = 2**31 - 1
"""Largest number that a column of whole numbers holds."""
_TOLERANCE = 1e-12
"""Share of a total within which sums of floating-point numbers count as equal."""


class _Amount(TypedDict, total=False):
    energy_j: float
    carbon_g: float
    share_of_full: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An amount of energy or of carbon, for a number of experiences.

    Args:
        energy_j: Joules; ``None`` for a budget of carbon, or while the amount is only known as a
            share of full retraining.
        num_experiences: Experiences that the budget has to last for: in all, until ``until``, or in
            each period of a renewed budget.
        share_of_full: The amount as a share (0 to 1, or more) of the cost of full retraining at
            each experience, measured before it is spent.
        carbon_g: Grams of CO2 equivalent, for a budget of carbon.
        until: The first moment at which nothing may be spent any more, with a time zone.
        per: The UTC calendar period of the amount, renewed at the beginning of each period.
        carry_over: Whether the unspent amount of a period is added to the next one.
        parent: Name of the budget that promises the amount of this one.

    Raises:
        ConfigurationError: If not exactly one amount is given or it is not positive, the number of
            experiences is not a positive whole number, or a time has no time zone. Also if two
            arguments contradict each other.

    Example:
        >>> Budget.parse("20 Wh", num_experiences=8).energy_j
        72000.0
        >>> Budget.parse("40 % of full", num_experiences=8).share_of_full
        0.4
        >>> print(Budget.parse("0.5 kg CO2-eq a month", num_experiences=8))
        500 g CO2e per month for 8 experiences
    """

    energy_j: float | None = None
    num_experiences: int = 1
    share_of_full: float | None = None
    carbon_g: float | None = None
    until: datetime | None = None
    per: Period | None = None
    carry_over: bool = False
    parent: str | None = None

    def __post_init__(self) -> None:
        amounts = (self.energy_j, self.carbon_g, self.share_of_full)
        given = [amount for amount in amounts if amount is not None]
        if len(given) != 1:
            raise ConfigurationError(
                "a budget is either an energy, such as '20 Wh', or emissions, such as "
                "'500 gCO2e', or a share, such as '40 % of full'"
            )
        example = "500 gCO2e" if self.carbon_g is not None else "20 Wh"
        if not is_number(given[0]):
            raise ConfigurationError(
                f"the budget is {short_repr(given[0])}; it must be a number, as in {example!r}"
            )
        for name in ("energy_j", "carbon_g", "share_of_full"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(given[0]))
        if not (math.isfinite(given[0]) and given[0] > 0):
            raise ConfigurationError(
                f"the budget is {self._bare_amount()}; it has to be more than zero, such as "
                f"{example!r}"
            )
        if not is_whole(self.num_experiences, 1) or self.num_experiences > _MOST_EXPERIENCES:
            raise ConfigurationError(
                f"num_experiences is {short_repr(self.num_experiences)}; it must be the number of "
                "experiences that the budget has to last for, 1 or more"
            )
        object.__setattr__(self, "num_experiences", int(self.num_experiences))
        self._check_time()
        if self.parent is not None:
            object.__setattr__(
                self,
                "parent",
                check_name(self.parent, "parent, the name of the budget above,", "project"),
            )

    def _check_time(self) -> None:
        if self.until is not None:
            if not isinstance(self.until, datetime) or self.until.tzinfo is None:
                raise ConfigurationError(
                    f"until is {self.until!r}; it must be a time with a time zone, such as "
                    "datetime(2027, 1, 1, tzinfo=UTC)"
                )
            object.__setattr__(self, "until", in_utc(self.until))
        if self.per is not None and self.per not in PERIODS:
            raise ConfigurationError(
                f"per is {self.per!r}; a budget is renewed per {', '.join(PERIODS)}, or never: None"
            )
        if self.per is not None:
            object.__setattr__(self, "per", str.__str__(self.per))
        if self.carry_over and self.per is None:
            raise ConfigurationError(
                "carry_over is True and the budget is never renewed; give per too, such as 'month'"
            )
        if self.share_of_full is not None and self.per is not None:
            raise ConfigurationError(
                f"a share of full retraining is measured once and not renewed per {self.per}; give "
                "an amount, such as '20 Wh per month'"
            )

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        num_experiences: int = 1,
        until: datetime | None = None,
        per: Period | None = None,
        carry_over: bool = False,
        parent: str | None = None,
    ) -> Budget:
        """Read a budget from text.

        Args:
            text: An energy such as ``"20 Wh"`` or ``"0.5 kWh"``, emissions such as
                ``"500 gCO2e"``, or a share of the cost of full retraining at each experience, such
                as ``"40 % of full"``. ``"2 kWh per month"`` is renewed, and ``"2 kWh per month
                with carry-over"`` adds the unspent amounts of earlier months.
            num_experiences: As for :class:`Budget`.
            until: As for :class:`Budget`.
            per: The period, if the text does not name it.
            carry_over: As for :class:`Budget`.
            parent: As for :class:`Budget`.

        Raises:
            ConfigurationError: If the text cannot be read, or a value cannot be used.
        """
        text = plain_quantity(text, "the budget", "20 Wh")
        renewed = _PER.fullmatch(text)
        if renewed:
            named = next(name for name in PERIODS if name == renewed["per"].lower())
            if per not in (None, named):
                raise ConfigurationError(f"the budget {text!r} is per {named}, and per is {per!r}")
            per, carry_over = named, carry_over or renewed["carry"] is not None
        return cls(
            **_amount(renewed["amount"] if renewed else text, text),
            num_experiences=num_experiences,
            until=until,
            per=per,
            carry_over=carry_over,
            parent=parent,
        )

    @property
    def unit(self) -> Unit:
        """Unit of the amount: joules, or grams of CO2 equivalent."""
        return "J" if self.carbon_g is None else "g"

    @property
    def amount(self) -> float | None:
        """Amount in its unit, of each period if it is renewed; ``None`` until it is measured."""
        return self.energy_j if self.carbon_g is None else self.carbon_g

    def __str__(self) -> str:
        amount = format_amount(self.amount, self.unit)
        if self.share_of_full is not None:
            amount = f"{100 * self.share_of_full:g} % of full"
        per = "" if self.per is None else f" per {self.per}"
        carry = " with carry-over" if self.carry_over else ""
        until = "" if self.until is None else f" until {self.until:%Y-%m-%d %H:%M} UTC"
        many = "" if self.num_experiences == 1 else f" for {self.num_experiences} experiences"
        return f"{amount}{per}{carry}{many}{until}"

    def _bare_amount(self) -> str:
        if self.share_of_full is not None:
            return f"{self.share_of_full:.0%} of full"
        return format_amount(self.amount, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Balance of a budget, in joules.

    Args:
        total_j: Joules that may be spent.
        spent_j: Joules settled, including overruns.
        reserved_j: Joules reserved and not settled yet; they count as spent until then.
        overrun_j: Part of ``spent_j`` that was used beyond its reservation.
        promised_j: Joules promised to child budgets.
        over: Whether the budget's time has ended, so that nothing is left.
    """

    total_j: float
    spent_j: float
    reserved_j: float
    overrun_j: float = 0.0
    promised_j: float = 0.0
    over: bool = False

    @property
    def left_j(self) -> float:
        """Joules that can still be reserved or promised; never negative."""
        taken_j = self.spent_j + self.reserved_j + self.promised_j
        return 0.0 if self.over else max(0.0, self.total_j - taken_j)

    @property
    def within(self) -> bool:
        """Return whether the total covers all amounts; settlements count to their reservations."""
        counted_j = self.spent_j - self.overrun_j + self.reserved_j + self.promised_j
        return counted_j <= self.total_j * (1 + _TOLERANCE)


def overrun(reserved: float, actual: float) -> float:
    """Return the amount used beyond a reservation.

    Example:
        >>> overrun(10.0, 12.5), overrun(10.0, 7.0)
        (2.5, 0.0)
    """
    return max(0.0, actual - reserved)


class Account(Protocol):
    """The interface of a budget for decisions: its balance, reservations and settlements.

    The ledger implements it durably; a test may do so in memory.
    """

    def balance(self) -> Balance:
        """Return the current balance."""
        ...

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Reserve joules before anything starts, and return the name of the reservation.

        Raises:
            BudgetExceeded: If fewer joules are left.
        """
        ...

    def settle(self, reservation: str, actual_j: float) -> float:
        """Record the measured joules, and return the overrun in joules."""
        ...


def format_amount(amount: float | None, unit: Unit) -> str:
    """Return an amount of a budget as text for people: an energy in J, Wh or kWh, or grams.

    Example:
        >>> format_amount(7200.0, "J"), format_amount(500.0, "g")
        ('2 Wh', '500 g CO2e')
    """
    return format_energy(amount) if unit == "J" else format_carbon(amount)


def parse_amount(text: str, unit: Unit) -> float:
    """Read an amount in a budget's unit: an energy in joules, or emissions in grams.

    Raises:
        ConfigurationError: If it cannot be read, or is of the other kind.

    Example:
        >>> parse_amount("2 Wh", "J"), parse_amount("0.5 kgCO2e", "g")
        (7200.0, 500.0)
    """
    text = plain_quantity(text, "the amount", "20 Wh" if unit == "J" else "500 gCO2e")
    if names_carbon(text) == (unit == "g"):
        return parse_energy(text) if unit == "J" else parse_carbon(text)
    kind, right = ("energy", "20 Wh") if unit == "J" else ("carbon", "500 gCO2e")
    raise ConfigurationError(f"cannot use {text!r}: the budget is of {kind}; write it as {right!r}")


def _amount(text: str, whole: str) -> _Amount:
    """Return the joules, grams or share in a text, by the name of the budget's argument."""
    share = _OF_FULL.fullmatch(text)
    if share:
        try:
            return {"share_of_full": float(share.group(1)) / 100}
        except ValueError:
            raise ConfigurationError(
                f"cannot read the budget {whole!r}: {share.group(1)!r} is not a number"
            ) from None
    if "%" in text:
        number = re.search(r"[0-9.]+", text)
        raise ConfigurationError(
            f"cannot read the budget {whole!r}: write a share as "
            f"'{number.group() if number else '40'} % of full', or an amount in "
            f"{', '.join((*JOULES_PER_UNIT, *GRAMS_PER_UNIT))}"
        )
    try:
        if names_carbon(text):
            return {"carbon_g": parse_carbon(text)}
        return {"energy_j": parse_energy(text)}
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}{_hint(text)}") from None


def _hint(text: str) -> str:
    """Suggest the intended text, where it can be guessed."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(\S*)\s*", text)
    number, unit = match.groups() if match else ("", "")
    if number and not unit:
        return f"; {number!r} alone says no unit: '{number} Wh' or '{number} gCO2e'"
    if unit.lower() in ("g", "kg", "t"):
        return f"; if it is of carbon, write '{number} {unit.lower()}CO2e'"
    if unit.lower() in ("w", "kw", "mw"):
        return f"; that is a power, and an energy is '{number} {unit}h'"
    return "; emissions are written as '500 gCO2e', and a share as '40 % of full'"
