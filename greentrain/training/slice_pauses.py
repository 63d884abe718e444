"""Pause an update between two of its slices, in place, until the next clean hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from greentrain.callbacks import BudgetGuard
from greentrain.callbacks.base import Callback
from greentrain.callbacks.deadline_stop import DeadlineStop
from greentrain.energy import NOTHING, Reading
from greentrain.training.update_context import Spent

MARGIN = 0.1
"""Share of the remaining time that is kept in reserve for the latest end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A wait that ended.

    Args:
        began: Its first moment.
        ended: The first moment after it.
        used: What it used.
        spent: What was settled for it.
    """

    began: datetime
    ended: datetime
    used: Reading
    spent: Spent


class Pausing(Protocol):
    """Decides on pauses, and waits; see :class:`greentrain.training.waiting.UpdateWaits`."""

    def next_slice(self, rest: timedelta, *, running: bool) -> tuple[datetime, datetime]:
        """Return the start and the end of the next slice of an update: now, or after a pause.

        Args:
            rest: Time that the rest needs.
            running: Whether the update runs now, so that a wait is a new pause.
        """
        ...

    def pause(
        self,
        until: datetime,
        again: Callable[[], datetime],
        interrupted: Callable[[], bool],
    ) -> Pause | None:
        """Wait within what is reserved for it; ``None`` if the budget cannot spare it.

        Args:
            until: When to continue.
            again: Returns the same by the present forecast.
            interrupted: Returns whether the process has to end.
        """
        ...


class SlicePauses(Callback):
    """Pause a fit after a step if the rest is cleaner later, and wait in place.

    Nothing of the fit changes while it waits, so it ends with the same weights as without a pause.
    The joules of a pause are paid for separately. Neither the cap of the update nor the energy of
    its steps has them.

    Args:
        waits: Decides and waits.
        read: Reads the meter.
        clock: Returns the present time, aware.
        recheck: Time between two decisions.
        steps: Planned steps of the update.
        duration: Predicted time of the update.
        first_end: End of the first slice, as planned.

    Attributes:
        pauses: The pauses so far.
    """

    def __init__(
        self,
        waits: Pausing,
        *,
        read: Callable[[], Reading],
        clock: Callable[[], datetime],
        recheck: timedelta,
        steps: int,
        duration: timedelta,
        first_end: datetime,
    ) -> None:
        self.pauses: list[Pause] = []
        self._guard: BudgetGuard | None = None
        self._waits = waits
        self._read = read
        self._clock = clock
        self._recheck = recheck
        self._steps = max(1, steps)
        self._duration = duration
        self._done = 0
        self._left_out = NOTHING
        self._began: datetime | None = None
        self._next: datetime | None = first_end

    def within(self, guard: BudgetGuard) -> SlicePauses:
        """Return this callback, with the cap of the update that the pauses are left out of."""
        self._guard = guard
        return self

    def read(self) -> Reading:
        """Return the reading of the meter, without the pauses."""
        return self._read() - self._left_out if self.pauses else self._read()

    @property
    def spent(self) -> Spent:
        """Energy of the pauses."""
        return sum((each.spent for each in self.pauses), Spent())

    def on_train_start(self, *args: Any, **kwargs: Any) -> None:
        """Begin to measure the time of a step."""
        self._began = now = self._clock()
        self._look_again(now, self._next or now)

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Decide at the end of a slice, and every ``recheck``, whether to pause; and wait."""
        self._done += 1
        now = self._clock()
        if self._next is None or now < self._next or self._done >= self._steps:
            return
        if trainer.should_stop:
            return
        rest = self._rest(now)
        until, end = self._waits.next_slice(rest, running=True)
        self._look_again(now, end)
        if until <= now:
            return
        found = self._waits.pause(
            until,
            lambda: self._waits.next_slice(rest, running=False)[0],
            lambda: bool(trainer.received_sigterm),
        )
        if found is None:
            self._next = None  # the budget cannot spare another one either
            return
        self.pauses.append(found)
        known = {name: j for name, j in found.used.energy_j.items() if j is not None}
        used = Reading(duration_s=found.used.duration_s, energy_j=known)
        self._left_out += used
        self._next = found.ended + self._recheck
        if self._guard is not None:
            self._guard.wait(used)
        for each in trainer.callbacks:
            if isinstance(each, DeadlineStop):
                each.skip_gap()

    def _look_again(self, now: datetime, end: datetime) -> None:
        """Decide again at the end of a slice, or before it by a newer forecast."""
        self._next = min(now + self._recheck, max(end, now))

    def _rest(self, now: datetime) -> timedelta:
        """Return the time of the steps that are left: as predicted, or as measured if longer."""
        left = 1.0 - self._done / self._steps
        ran = now - (self._began or now)
        ran -= sum((each.ended - each.began for each in self.pauses), timedelta(0))
        return max(self._duration * left, ran * ((self._steps - self._done) / self._done))
