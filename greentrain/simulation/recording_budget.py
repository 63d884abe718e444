"""Measure the probes and trainings of a recording, and pay for them from its budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greentrain.control import Candidate, CostModel
from greentrain.energy import WindowRecorder
from greentrain.errors import BudgetExceeded
from greentrain.ledger import LedgerAccount
from greentrain.payments import MIN_RESERVATION_J, Payment, paying
from greentrain.training.fit_callbacks import StepEnergy
from greentrain.units import format_energy

_PROBE_FACTOR = 2.0
"""Reservation of a probe, as a multiple of the most expensive one."""
_TRAINING_FACTOR = 4.0
"""Reservation of a training in upper bounds, if they are left: a training cut short is useless."""
_FIRST_PROBE, _FIRST_TRAINING = 0.1, 0.5
"""Shares of what is left that the first of each may use, while its cost is unknown."""


class RecordingBudget:
    """Reserve, measure and settle the probes and trainings of a recording.

    Args:
        recorder: Records the windows.
        account: Pays.
        out: File of the table, for error messages.
    """

    def __init__(self, recorder: WindowRecorder, account: LedgerAccount, out: Path) -> None:
        self.recorder = recorder
        self._account = account
        self._out = out
        self._cost = CostModel()
        self._highest_probe_j = 0.0

    @contextmanager
    def probe(self, purpose: str) -> Iterator[None]:
        """Pay for a probe of a model.

        Raises:
            BudgetExceeded: If it may cost more than is left.
        """
        left_j = self._account.balance().left_j
        bound_j = _PROBE_FACTOR * self._highest_probe_j or _FIRST_PROBE * left_j
        if not MIN_RESERVATION_J <= bound_j <= left_j:
            raise self.exceeded(purpose, bound_j)
        with self._paid(bound_j, purpose, "probe") as payment:
            yield
        self._highest_probe_j = max(self._highest_probe_j, payment.actual_j)

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
            upper_j += self._highest_probe_j
        if upper_j > left_j:
            raise self.exceeded(purpose, upper_j)
        reserved_j = min(_TRAINING_FACTOR * upper_j, left_j) if self._cost.calibrated else upper_j
        with self._paid(reserved_j, purpose, "update") as payment:
            yield payment

    def learn(self, candidate: Candidate, gauge: StepEnergy, steps: int, actual_j: float) -> None:
        """Learn from the joules of a training."""
        if not self._cost.calibrated:
            step_j = actual_j / max(1, steps) if gauge.step_j is None else gauge.step_j
            fixed_j = max(0.0, actual_j - steps * step_j)
            self._cost.calibrate(fixed_j=fixed_j, step_j=step_j)
        self._cost.observe(candidate.action.mode, steps, actual_j)

    def exceeded(self, purpose: str, requested_j: float) -> BudgetExceeded:
        """Return the error of a probe or training that may use more joules than are left."""
        left_j = self._account.balance().left_j
        return BudgetExceeded(
            f"{purpose} may use more than {format_energy(requested_j)}, and "
            f"{format_energy(left_j)} are left. Recorded rows stay in {str(self._out)!r}: continue "
            "with a larger budget under another name",
            requested_j=requested_j,
            left_j=left_j,
        )

    @contextmanager
    def _paid(self, reserved_j: float, purpose: str, phase: str) -> Iterator[Payment]:
        reservation = self._account.reserve(reserved_j, purpose)
        with (
            paying(
                self._account, self.recorder, reserved_j=reserved_j, reservation=reservation
            ) as payment,
            self.recorder.phase(phase),
        ):
            yield payment
