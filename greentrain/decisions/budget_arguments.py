"""Validate the arguments about the budget and the metric of a stream."""

from __future__ import annotations

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount
from greentrain.errors import ConfigurationError
from greentrain.units import utc_now


def check_metric(monitor: object, mode: object) -> None:
    """Refuse a metric without a name or a direction.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """
    if not isinstance(monitor, str) or not monitor:
        raise ConfigurationError(
            f"monitor is {monitor!r}; give the name of a metric, such as 'val_acc'"
        )
    if mode not in ("max", "min"):
        raise ConfigurationError(f"mode is {mode!r}; allowed are 'max' and 'min'")


def parse_budget(budget: str | Budget, num_experiences: int | None) -> Budget:
    """Return a budget with the number of experiences that it has to last for.

    Raises:
        ConfigurationError: If the text is no budget, the number is missing and the budget has no
            end date, or both give a number.
    """
    if isinstance(budget, Budget):
        if num_experiences is not None:
            raise ConfigurationError(
                f"num_experiences is {num_experiences!r}, and the Budget has its own: "
                f"{budget.num_experiences}. Give the number once, in Budget(num_experiences=...)"
            )
        return budget
    if num_experiences is None:
        raise ConfigurationError(
            f"num_experiences is missing: the budget of {budget!r} has to last for some number of "
            "experiences, or the first training may take all of it. Give num_experiences, or a "
            "Budget with an end date (until=...)"
        )
    return Budget.parse(budget, num_experiences=num_experiences)


def check_intensity(budget: Budget, carbon: CarbonAccount) -> None:
    """Refuse a carbon budget without a carbon intensity.

    Raises:
        ConfigurationError: If no intensity is known now.
    """
    if budget.unit == "g" and carbon.upper_g_per_j(utc_now()) is None:
        raise ConfigurationError(
            f"the budget of {budget} needs a carbon intensity, and none is known now; give a zone "
            "such as zone='DE', or an intensity that covers the present"
        )


def parse_calibration_budget(text: str, budget: Budget) -> Budget:
    """Return the budget of the calibration that sizes a budget given as a share.

    Raises:
        ConfigurationError: If it cannot be read, or the budget is a share and it is no energy.
    """
    parsed = Budget.parse(
        text,
        num_experiences=budget.num_experiences,
        until=budget.until,
        parent=budget.parent,
    )
    if budget.share_of_full is not None and parsed.energy_j is None:
        raise ConfigurationError(
            f"calibration_budget is {text!r}; it must be an energy, such as '1 Wh'"
        )
    return parsed


def check_shared_budget(shared_budget: str | None) -> None:
    """Refuse a value that is no name of a budget.

    Raises:
        ConfigurationError: If it is empty, or no string.
    """
    if shared_budget is not None and not (isinstance(shared_budget, str) and shared_budget.strip()):
        raise ConfigurationError(
            f"shared_budget is {shared_budget!r}; it must be the name of a budget, or None for the "
            "stream's own"
        )
