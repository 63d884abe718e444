"""What Lightning's entry point for callbacks finds: nothing, unless the environment asks for it.

With ``GREENTRAIN_AUTO=1`` every Trainer of the process is measured, without a line of code.
Lightning loads this module for each Trainer that is built wherever greentrain is installed, so it
imports next to nothing.
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
