"""Validate the arguments about the budget, the metric and the weights of a stream."""

from __future__ import annotations

import re

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount
from greentrain.errors import ConfigurationError
from greentrain.naming import LONGEST_NAME, check_name
from greentrain.texts import short_repr
from greentrain.units import utc_now

_SHA256 = re.compile("[0-9a-f]{64}")
CALIBRATION = "/calibration"
"""End of the name of a budget that pays for a calibration."""


def check_names(name: object, shared_budget: object, monitor: object, mode: object) -> None:
    """Refuse names that cannot be stored, and a metric without a direction.

    Args:
        name: Name of the stream.
        shared_budget: Name of a budget that several streams share, or ``None``.
        monitor: Name of the metric.
        mode: Direction of the metric.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """
    check_name(name, "name", "digits", longest=LONGEST_NAME - len(CALIBRATION))
    check_name(monitor, "monitor", "val_acc")
    if shared_budget is not None:
        check_name(shared_budget, "shared_budget", "project")
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


def check_sha256(digest: str | None) -> str | None:
    """Return the hash of weights, and refuse a text that is none.

    Raises:
        ConfigurationError: If it is not 64 hexadecimal digits in small letters.
    """
    if digest is None or (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        return digest
    raise ConfigurationError(
        f"weights_sha256 is {short_repr(digest)}; it must be 64 hexadecimal digits in small "
        "letters, as greentrain.training.weights_sha256(model.state_dict()) returns them"
    )


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
