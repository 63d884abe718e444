"""Decide whether a cap ends a fit, and put the reason into words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from greentrain.budget import Unit, format_amount
from greentrain.units import format_energy, plural

_ROUNDING_J = 1e-9


class StopReason(Enum):
    """Reason for which a :class:`BudgetGuard` stopped a fit or warned about it."""

    NOT_STOPPED = 0
    NO_ROOM = 1
    """The rest of the cap does not pay for another step and the end of the fit.

    This is also the reason if the budget of several fits has nothing left.
    """
    CAP_EXCEEDED = 2
    """The fit used more than its cap."""
    DEADLINE = 3
    """The time to the deadline may be too short for another step and the end of the fit."""


def stop_reason(left_j: float, needed_j: float | None, *, last_step: bool = False) -> StopReason:
    """Decide whether a fit has to stop, and why.

    Args:
        left_j: Joules left of the cap.
        needed_j: Joules that one more step and the end of the fit may use; ``None`` after the
            fit, and for a guard that only warns.
        last_step: Whether the last planned step was taken, so that the fit ends anyway.
    """
    if needed_j is None:
        return StopReason.CAP_EXCEEDED if left_j < -_ROUNDING_J else StopReason.NOT_STOPPED
    no_room = left_j - needed_j <= 0 and not last_step
    return StopReason.NO_ROOM if no_room else StopReason.NOT_STOPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class CapUse:
    """Use that some work has made of its cap.

    Args:
        work: ``"fit"`` or ``"training"``.
        used: Amount used, in the cap's unit.
        limit: The cap, or the part that was reserved of a budget.
        unit: The cap's unit.
        budget: Name of the budget; ``None`` for a cap of this work alone.

    Example:
        >>> use = CapUse(work="fit", used=99.0, limit=90.0, unit="J", budget=None)
        >>> print(use.exceeded)
        the fit used 99 J, 9 J more than its cap of 90 J
    """

    work: str
    used: float
    limit: float
    unit: Unit
    budget: str | None

    @property
    def left(self) -> float:
        """Amount left, in the cap's unit; negative if the cap was exceeded."""
        return self.limit - self.used

    @property
    def exceeded(self) -> str:
        """A sentence for a cap that was exceeded."""
        over = format_amount(self.used - self.limit, self.unit)
        return f"the {self.work} used {self._used}, {over} more than {self._cap}"

    def no_room(self, steps: int, ending: str, needed_j: float) -> str:
        """Return a sentence for a rest that is too small.

        Args:
            steps: Steps taken.
            ending: Name of what follows the last step.
            needed_j: Joules that one more step and the ending may use.
        """
        return (
            f"the {self.work} used {self._used} of {self._cap} in {plural(steps, 'step')}, and "
            f"one more step with {ending} may use {format_energy(needed_j)}"
        )

    @property
    def _used(self) -> str:
        return format_amount(self.used, self.unit)

    @property
    def _cap(self) -> str:
        limit = format_amount(self.limit, self.unit)
        if self.budget is None:
            return f"its cap of {limit}"
        return f"its part, {limit}, of the budget {self.budget!r}"
