"""Check the arguments of a :class:`greentrain.callbacks.BudgetGuard`."""

from __future__ import annotations

import math

from greentrain.budget import Budget
from greentrain.energy import WindowRecorder, check_meter
from greentrain.errors import ConfigurationError
from greentrain.units import is_number, is_whole

_ON_EXCEED = ("stop", "warn", "raise")


def check_options(meter: object, on_exceed: str, keep_j: float) -> None:
    """Check the meter, and the arguments that concern the end of a fit.

    Raises:
        ConfigurationError: If one of them has a value that is not allowed.
    """
    if not isinstance(meter, WindowRecorder):
        check_meter(meter, "BudgetGuard(meter=...)")
    if on_exceed not in _ON_EXCEED:
        raise ConfigurationError(
            f"BudgetGuard(on_exceed={on_exceed!r}) is not allowed; choose one of {_ON_EXCEED}"
        )
    if not (is_number(keep_j) and math.isfinite(keep_j) and keep_j >= 0):
        raise ConfigurationError(
            f"BudgetGuard(keep_j={keep_j!r}) is not allowed; give joules, 0 or more"
        )


def check_budget(ledger: str | None, budget: str | None, num_fits: int, on_exceed: str) -> None:
    """Check the arguments that concern a budget for several fits.

    Raises:
        ConfigurationError: If they contradict each other, or ``num_fits`` is no whole number.
    """
    if budget is not None and not ledger:
        raise ConfigurationError(
            f"BudgetGuard(budget={budget!r}) is for several fits, so it needs a ledger that "
            "outlasts them; add ledger='sqlite:///greentrain.db'"
        )
    if budget is not None and on_exceed == "warn":
        raise ConfigurationError(
            f"BudgetGuard(budget={budget!r}, on_exceed='warn') would use what other fits have "
            "reserved; choose 'stop' or 'raise'"
        )
    if not is_whole(num_fits, 1) or (num_fits > 1 and budget is None):
        raise ConfigurationError(
            f"BudgetGuard(num_fits={num_fits!r}) is not allowed; give the number of fits of a "
            "budget, 1 or more, and the name of the budget, such as budget='kfold'"
        )


def check_cap(cap: str | Budget | None, deadline: object, **needing: object) -> Budget | None:
    """Return the cap as a budget; ``None`` if there is only a deadline.

    Args:
        cap: The cap.
        deadline: The deadline.
        needing: Arguments that concern a cap.

    Raises:
        ConfigurationError: If there is neither, or no cap and an argument that needs one. Also as
            for :func:`parse_cap`.
    """
    if cap is not None:
        return parse_cap(cap, several=needing.get("budget") is not None)
    if deadline is None:
        raise ConfigurationError(
            "BudgetGuard limits nothing; give a cap such as '0.5 kWh', or deadline='06:00'"
        )
    for name, value in needing.items():
        if value:
            raise ConfigurationError(
                f"BudgetGuard({name}={value!r}) concerns a cap, and there is only a deadline; give "
                f"a cap such as '0.5 kWh', or omit {name}"
            )
    return None


def parse_cap(cap: str | Budget, *, several: bool) -> Budget:
    """Return a cap as a budget.

    Args:
        cap: Text with a unit, or a budget.
        several: Whether it is for several fits, and may be renewed.

    Raises:
        ConfigurationError: If the cap has no unit, is a share, or is renewed for one fit.
    """
    if not isinstance(cap, (str, Budget)):
        raise ConfigurationError(
            f"BudgetGuard(cap={cap!r}) has no unit; write the unit, such as '{_sample(cap)} Wh' or "
            f"'{_sample(cap)} J'"
        )
    budget = Budget.parse(cap) if isinstance(cap, str) else cap
    if budget.amount is None or (budget.per is not None and not several):
        raise ConfigurationError(
            f"BudgetGuard(cap={str(cap)!r}) is not an amount for one fit; give an energy such as "
            "'0.5 kWh', or an emission such as '500 gCO2e'"
        )
    return budget


def _sample(cap: object) -> str:
    return f"{cap:g}" if isinstance(cap, (int, float)) and cap > 0 else "0.5"
