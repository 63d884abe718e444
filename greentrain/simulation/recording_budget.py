"""What the trainings of a recording are measured with and paid from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greentrain.control import Candidate, CostModel
from greentrain.energy import WindowRecorder
from greentrain.errors import BudgetExceeded
from greentrain.ledger import LedgerAccount
from greentrain.payments import MIN_RESERVATION_J, Payment, paying
from greentrain.training.step_energy import StepEnergy
from greentrain.units import format_energy

_SURE = 2.0
"""A look is given so many times what the dearest one drew."""
_PLENTY = 4.0
"""A training is given so many upper bounds, if they are left: one that is cut is of no use."""
_FIRST_LOOK, _FIRST_TRAINING = 0.1, 0.5
"""Shares of what is left that the first of each may draw: nothing says yet what they cost."""


class RecordingBudget:
    """Reserve, measure and settle the looks and trainings of a recording.

    Args:
        recorder: Records the windows.
        account: Pays.
        out: The table's file, to which errors point.
    """

    def __init__(self, recorder: WindowRecorder, account: LedgerAccount, out: Path) -> None:
        self.recorder = recorder
        self._account = account
        self._out = out
        self._cost = CostModel()
        self._dearest_look_j = 0.0

    @contextmanager
    def look(self, purpose: str) -> Iterator[None]:
        """Pay for a look at a model.

        Raises:
            BudgetExceeded: If it may cost more than is left.
        """
        left_j = self._account.balance().left_j
        bound_j = _SURE * self._dearest_look_j or _FIRST_LOOK * left_j
        if not MIN_RESERVATION_J <= bound_j <= left_j:
            raise self._exceeded(purpose, bound_j)
        reservation = self._account.reserve(bound_j, purpose)
        with (
            paying(
                self._account, self.recorder, reserved_j=bound_j, reservation=reservation
            ) as payment,
            self.recorder.phase("probe"),
        ):
            yield
        self._dearest_look_j = max(self._dearest_look_j, payment.actual_j)

    @contextmanager
    def training(self, candidate: Candidate, purpose: str) -> Iterator[Payment]:
        """Pay for a training.

        Raises:
            BudgetExceeded: If it may cost more than is left.
        """
        left_j = self._account.balance().left_j
        upper_j = max(_FIRST_TRAINING * left_j, MIN_RESERVATION_J)
        if self._cost.calibrated:
            upper_j = self._cost.predict(candidate.action.mode, candidate.steps).upper
            upper_j += self._dearest_look_j
        if upper_j > left_j:
            raise self._exceeded(purpose, upper_j)
        reserved_j = min(_PLENTY * upper_j, left_j) if self._cost.calibrated else upper_j
        reservation = self._account.reserve(reserved_j, purpose)
        with (
            paying(
                self._account, self.recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            self.recorder.phase("update"),
        ):
            yield payment

    def learn(self, candidate: Candidate, gauge: StepEnergy, steps: int, actual_j: float) -> None:
        """Take up what a training drew."""
        if not self._cost.calibrated:
            step_j = actual_j / max(1, steps) if gauge.step_j is None else gauge.step_j
            fixed_j = max(0.0, actual_j - steps * step_j)
            self._cost.calibrate(fixed_j=fixed_j, step_j=step_j)
        self._cost.observe(candidate.action.mode, steps, actual_j)

    def cut(self, purpose: str, reserved_j: float) -> BudgetExceeded:
        """Return the error of a training that a guard has cut short."""
        return self._exceeded(purpose, reserved_j)

    def _exceeded(self, purpose: str, asked_j: float) -> BudgetExceeded:
        left_j = self._account.balance().left_j
        return BudgetExceeded(
            f"{purpose} may draw more than {format_energy(asked_j)}, and {format_energy(left_j)} "
            f"are left to record with; what is recorded stays in {str(self._out)!r}: go on with a "
            "larger budget under another name",
            asked_j=asked_j,
            left_j=left_j,
        )
