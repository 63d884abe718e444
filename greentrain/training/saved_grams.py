"""Compute what waiting has saved, by the intensities that came."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from greentrain.carbon import CarbonAccount
from greentrain.training.slice_pauses import Pause


def saved_g(
    carbon: CarbonAccount,
    update_j: float,
    duration: timedelta,
    *,
    at_once: datetime,
    started: datetime,
    waited_j: float,
    pauses: Sequence[Pause],
) -> float | None:
    """Return the grams that a wait and pauses saved against a start at once.

    It is the work's energy at the hours of a start at once, less that at its own hours, less the
    grams of waiting. The power of the work is taken as constant.

    Args:
        carbon: Converts joules to grams.
        update_j: Joules of the work.
        duration: Time that the work took, without pauses.
        at_once: When it could have started.
        started: When it started.
        waited_j: Joules of the wait before the start.
        pauses: The pauses after it, in order.

    Returns:
        ``None`` if an intensity is unknown.
    """
    left, begins = duration, started
    ran: list[tuple[datetime, timedelta]] = []  # start and length of each slice
    for each in pauses:
        length = max(timedelta(0), min(left, each.began - begins))
        ran.append((begins, length))
        left, begins = left - length, each.ended
    ran.append((begins, left))
    parts = [
        *((update_j * (length / duration), start, start + length) for start, length in ran),
        (waited_j, at_once, started),
        *((each.spent.energy_j, each.began, each.ended) for each in pauses),
    ]
    now_g = carbon.emissions(update_j, at_once, at_once + duration).grams
    later = [carbon.emissions(*one).grams for one in parts if one[0]]
    known = [one for one in later if one is not None]
    if now_g is None or len(known) < len(later):
        return None
    return now_g - sum(known)
