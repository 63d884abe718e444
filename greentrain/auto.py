"""Lightning's entry point for callbacks: measure every Trainer if ``GREENTRAIN_AUTO`` is 1.

Lightning loads this module for each Trainer in an environment with greentrain. So it imports almost
nothing, and adds no callback without the variable.
"""

from __future__ import annotations

import os
from typing import Any

VARIABLE = "GREENTRAIN_AUTO"


def callbacks() -> list[Any]:
    """Return the callbacks to add to a Trainer: an energy monitor if ``GREENTRAIN_AUTO`` is 1.

    Example:
        >>> callbacks()
        []
    """
    if os.environ.get(VARIABLE) != "1":
        return []
    from greentrain.callbacks.auto_monitor import AutoEnergyMonitor

    return [AutoEnergyMonitor()]
