"""Lightning's entry point for callbacks: measure every Trainer if ``GREENTRAIN_AUTO`` is true.

Lightning loads this module for each Trainer in an environment with greentrain. So it imports almost
nothing, and adds no callback without the variable.
"""

from __future__ import annotations

import os
from typing import Any

from greentrain.errors import ConfigurationError

VARIABLE = "GREENTRAIN_AUTO"
_TRUTH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("", "0", "false", "no", "off"), False),
}


def callbacks() -> list[Any]:
    """Return the callbacks to add to a Trainer: none if ``GREENTRAIN_AUTO`` is unset or false.

    If it is true, they are an energy monitor, and a budget guard if ``GREENTRAIN_CAP`` is set.

    Raises:
        ConfigurationError: If one of the variables has a value that is not allowed.

    Example:
        >>> callbacks()
        []
    """
    if not _is_true(VARIABLE):
        return []
    from greentrain.callbacks.auto_monitor import AutoBudgetGuard, AutoEnergyMonitor

    zone = os.environ.get("GREENTRAIN_ZONE") or None
    cap = os.environ.get("GREENTRAIN_CAP")
    try:
        monitor = AutoEnergyMonitor(
            ledger=_ledger(), zone=zone, summary=not _is_true("GREENTRAIN_QUIET")
        )
        if not cap:
            return [monitor]
        guard = AutoBudgetGuard(cap, zone=zone)
        if guard.cap_g is not None and zone is None:
            raise ConfigurationError("a cap of carbon needs a zone, such as GREENTRAIN_ZONE=DE")
        return [monitor, guard]
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the environment variables GREENTRAIN_ZONE={zone or ''!r} and "
            f"GREENTRAIN_CAP={cap or ''!r} cannot be used: {error}"
        ) from error


def _ledger() -> str | bool:
    """Return the ledger in the environment, which may also be a truth value."""
    value = os.environ.get("GREENTRAIN_LEDGER", "")
    return _TRUTH.get(value.strip().lower(), value) if value else True


def _is_true(variable: str) -> bool:
    value = os.environ.get(variable, "")
    truth = _TRUTH.get(value.strip().lower())
    if truth is None:
        raise ConfigurationError(
            f"the environment variable {variable} is {value!r}, which is neither true nor false; "
            "set it to 1 or 0"
        )
    return truth
