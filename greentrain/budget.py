"""Budgets: what a stream may spend, for how many experiences, and the rules of the money.

The rules are pure functions of amounts in joules; the ledger applies them inside its transactions.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol

from greentrain.errors import ConfigurationError
from greentrain.units import JOULES_PER_UNIT, format_energy, parse_energy

_OF_FULL = re.compile(r"\s*([0-9.]+)\s*%\s*of\s+full\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An amount of energy for a number of experiences.

    Args:
        energy_j: Joules; ``None`` while the amount is only known as a share of full retraining.
        horizon: Experiences that the budget has to last for.
        share_of_full: The amount as a share (0 to 1, or more) of what retraining in full at each
            experience would cost, measured before it is spent.

    Raises:
        ConfigurationError: If an amount is not positive, or both or none are given, or the horizon
            is not a positive whole number.

    Example:
        >>> Budget.parse("20 Wh", horizon=8).energy_j
        72000.0
        >>> Budget.parse("40 % of full", horizon=8).share_of_full
        0.4
    """

    energy_j: float | None = None
    horizon: int = 1
    share_of_full: float | None = None

    def __post_init__(self) -> None:
        if (self.energy_j is None) == (self.share_of_full is None):
            raise ConfigurationError(
                "a budget is either an energy, such as '20 Wh', or a share, such as '40 % of full'"
            )
        for amount in (self.energy_j, self.share_of_full):
            if amount is not None and not (math.isfinite(amount) and amount > 0):
                shown = f"{amount:g} J" if self.energy_j is not None else f"{amount:.0%} of full"
                raise ConfigurationError(
                    f"the budget is {shown}; it has to be more than zero, such as '20 Wh'"
                )
        if isinstance(self.horizon, bool) or not isinstance(self.horizon, int) or self.horizon < 1:
            raise ConfigurationError(
                f"horizon is {self.horizon!r}; it is the number of experiences that the budget "
                "has to last for, 1 or more"
            )

    @classmethod
    def parse(cls, text: str, *, horizon: int = 1) -> Budget:
        """Read a budget from text.

        Args:
            text: An energy such as ``"20 Wh"`` or ``"0.5 kWh"``, or a share of what retraining in
                full at each experience would cost, such as ``"40 % of full"``.
            horizon: Experiences that the budget has to last for.

        Raises:
            ConfigurationError: If the text cannot be read, or the amount is not positive.
        """
        share = _OF_FULL.fullmatch(text)
        if share:
            return cls(share_of_full=_percent(share.group(1), text), horizon=horizon)
        if "%" in text:
            raise ConfigurationError(
                f"cannot read the budget {text!r}: write a share as '40 % of full', or an amount "
                f"in {', '.join(JOULES_PER_UNIT)}"
            )
        return cls(energy_j=parse_energy(text), horizon=horizon)

    def __str__(self) -> str:
        amount = (
            format_energy(self.energy_j)
            if self.share_of_full is None
            else f"{100 * self.share_of_full:g} % of full"
        )
        return f"{amount} for {self.horizon} experience{'s' if self.horizon > 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Where a budget stands.

    Args:
        total_j: Joules that may be spent.
        spent_j: Joules settled, overruns included.
        reserved_j: Joules reserved and not yet settled: they count as spent until they are.
        overrun_j: The part of ``spent_j`` that was drawn beyond its reservation.
    """

    total_j: float
    spent_j: float
    reserved_j: float
    overrun_j: float = 0.0

    @property
    def left_j(self) -> float:
        """Joules that can still be reserved; never negative."""
        return max(0.0, self.total_j - self.spent_j - self.reserved_j)

    @property
    def within(self) -> bool:
        """Whether the money rule holds: settled up to the reservations, plus reserved <= total."""
        return self.spent_j - self.overrun_j + self.reserved_j <= self.total_j * (1 + 1e-12)


def overrun(reserved_j: float, actual_j: float) -> float:
    """Joules that were drawn beyond a reservation.

    Example:
        >>> overrun(10.0, 12.5), overrun(10.0, 7.0)
        (2.5, 0.0)
    """
    return max(0.0, actual_j - reserved_j)


class Account(Protocol):
    """What control needs of a budget: its balance, reservations and settlements.

    The ledger implements it durably; a test may do so in memory.
    """

    def balance(self) -> Balance:
        """Return where the budget stands now."""
        ...

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Set joules aside before anything starts, and return the reservation's name.

        Raises:
            BudgetExceeded: If fewer are left.
        """
        ...

    def settle(self, reservation: str, actual_j: float) -> float:
        """Record what was measured, and return the overrun in joules."""
        ...


def _percent(number: str, text: str) -> float:
    try:
        return float(number) / 100
    except ValueError:
        raise ConfigurationError(
            f"cannot read the budget {text!r}: {number!r} is not a number"
        ) from None
