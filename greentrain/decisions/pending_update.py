"""One update of one's own: what was decided, what may be drawn, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from greentrain.control import Action, Decision, State, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.payments import Payment


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOutcome:
    """What came of an update.

    Args:
        steps: Steps that were trained.
        metric_after: The metric of what was trained; ``None`` if unknown.
        kept: Whether it is the model in use from now on.
        energy_j: Joules that it drew, where no meter of this process could see it.

    Raises:
        ConfigurationError: If a number is out of range.
    """

    steps: int
    metric_after: float | None = None
    kept: bool = True
    energy_j: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise ConfigurationError(f"steps is {self.steps!r}; it is a whole number, 0 or more")
        drawn_j = self.energy_j
        if drawn_j is not None and not (math.isfinite(drawn_j) and drawn_j >= 0):
            raise ConfigurationError(f"energy_j is {drawn_j!r}; it is in joules, 0 or more")


NOTHING_KEPT = UpdateOutcome(steps=0, kept=False)
"""What came of an update that failed before anybody said so."""


class PendingUpdate:
    """One experience's turn; get one from :meth:`ControllerSession.update` or ``decide``.

    Args:
        experience_id: The experience.
        state: What was known.
        decision: What was decided.
        metric_before: The metric before the update as it was given, not oriented.
        reservation: The reservation in the ledger; ``None`` for ``SKIP``.
        payment: Measures; ``None`` where no meter can, and for ``SKIP``.

    Attributes:
        experience_id: As given.
        state: As given.
        decision: As given: the action with its reason, and every alternative.
        metric_before: As given.
        reservation: As given.
        payment: As given.
        came: What was said of it; ``None`` until it is.
    """

    def __init__(
        self,
        experience_id: str,
        state: State,
        decision: Decision,
        *,
        metric_before: float | None,
        reservation: str | None,
        payment: Payment | None,
    ) -> None:
        self.experience_id = experience_id
        self.state = state
        self.decision = decision
        self.metric_before = metric_before
        self.reservation = reservation
        self.payment = payment
        self.came: UpdateOutcome | None = None

    @property
    def action(self) -> Action:
        """What to do: update mode and effort."""
        return self.decision.action

    @property
    def steps(self) -> int:
        """Steps to train; 0 for ``SKIP``."""
        return self.decision.steps

    @property
    def reserved_j(self) -> float:
        """Joules set aside for the update: its cap. 0 for ``SKIP``."""
        return 0.0 if self.reservation is None else self.decision.cost_j.upper

    @property
    def left_j(self) -> float:
        """Joules that the reservation still covers: a loop should end before there are none.

        All of them, where no meter can see what is drawn.
        """
        drawn_j = 0.0 if self.payment is None else self.payment.drawn.total_j or 0.0
        return max(0.0, self.reserved_j - drawn_j)

    def done(
        self,
        *,
        steps: int | None = None,
        metric_after: float | None = None,
        kept: bool = True,
        energy_j: float | None = None,
    ) -> None:
        """Say what came of the update, before its block ends.

        Args:
            steps: Steps that were trained; those planned unless given.
            metric_after: The metric of the new model, on the data that ``metric_before`` was read
                on; ``None`` if unknown.
            kept: Whether the new model is the one in use from now on.
            energy_j: Joules that were drawn; for training elsewhere only.

        Raises:
            ConfigurationError: If the decision was to skip, or a value cannot be used.
        """
        if self.action.mode is UpdateMode.SKIP:
            raise ConfigurationError(
                f"{self.experience_id!r} was skipped: nothing is reserved for it, so nothing may "
                "be trained"
            )
        if energy_j is not None and self.payment is not None:
            raise ConfigurationError(
                f"energy_j is {energy_j!r} and the update is measured here; leave it away, or open "
                "the controller with elsewhere=True"
            )
        if energy_j is None and self.payment is None:
            raise ConfigurationError(
                "energy_j is not given, and no meter saw the training elsewhere; give its joules"
            )
        self.came = UpdateOutcome(
            steps=self.steps if steps is None else steps,
            metric_after=finite(metric_after),
            kept=kept,
            energy_j=energy_j,
        )


def finite(metric: float | None) -> float | None:
    """Return a number as it is, and ``None`` for one that is not finite: it says nothing."""
    return float(metric) if metric is not None and math.isfinite(metric) else None
