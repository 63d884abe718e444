"""Count windows with more power than their sources can use, over simulated drivers."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path

from _results import Row

SCHEDULES, QUICK_SCHEDULES = 1_000, 20


def power_ceiling(folder: Path, *, quick: bool) -> Row:
    """Return the row of random schedules of windows on random machines."""
    from tests.energy.simulated_machine import schedule  # builds on a loaded driver
    from tests.nvml.simulation import build

    driver = ctypes.CDLL(str(build(folder)))
    number = QUICK_SCHEDULES if quick else SCHEDULES
    windows, above, stated = 0, 0, 0
    for seed in range(number):
        outcome = schedule(folder / f"machine-{seed}", random.Random(seed))
        windows += outcome.windows
        above += len(outcome.above)
        stated += outcome.stated_w != outcome.right_w
    del driver
    return Row(
        id="power_ceiling",
        what=f"windows whose mean power exceeds what their sources can use, in {number:,} random "
        "schedules, and sources with a wrong ceiling",
        value=float(above + stated),
        unit="windows",
        reach=0.0,
        seeds=windows,
        note="simulated drivers of cards, RAPL and load; nested windows from 0.3 ms on; gaps of "
        "a counter; the cases are windows",
    )
