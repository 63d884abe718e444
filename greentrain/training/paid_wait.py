"""Wait under a reservation, with the meter running."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from greentrain.decisions.core import BudgetAccount
from greentrain.errors import BudgetExceeded
from greentrain.ledger import canonical
from greentrain.payments import MIN_RESERVATION_J, paying
from greentrain.training.run_context import RunContext
from greentrain.training.slice_pauses import Pause
from greentrain.training.start_by import StartBy, WaitHistory
from greentrain.training.update_context import Spent
from greentrain.units import format_energy

TOPIC = "waiting"
"""Topic of the events of a wait."""
RESERVE = 1.5
"""Reserved joules of a wait, as a multiple of the expected ones; it ends when they are used."""


class PaidWaits:
    """Reserve the joules of a wait, record it, wait, and settle.

    Args:
        start_by: The clock and the sleep.
        history: Power of waits.
        run: The run that measures and records.
    """

    def __init__(self, start_by: StartBy, history: WaitHistory, run: RunContext) -> None:
        self._start_by = start_by
        self._history = history
        self._run = run

    def sleep(
        self,
        experience_id: str,
        account: BudgetAccount,
        until: datetime,
        again: Callable[[], datetime],
        figures: dict[str, Any],
        *,
        keep_j: float = 0.0,
        interrupted: Callable[[], bool] = bool,
    ) -> tuple[Pause | None, str]:
        """Wait, and return the wait and why it ended; ``None`` and why it did not begin.

        Args:
            experience_id: The experience that waits.
            account: The account that pays.
            until: When the wait ends.
            again: Returns the same by the present forecast.
            figures: What the event before the wait records.
            keep_j: Joules that have to be left in the budget beyond those of the wait.
            interrupted: Returns whether the process has to end.

        Raises:
            LedgerError: If the wait cannot be recorded.
        """
        now, idle_w = self._start_by.now(), self._history.idle_w
        step_j = idle_w * self._start_by.recheck_s
        expected_j = idle_w * (until - now).total_seconds()
        reserved_j = max(RESERVE * expected_j + step_j, MIN_RESERVATION_J)
        short = f"waiting may use {format_energy(reserved_j)}, which the budget cannot spare"
        try:
            if account.balance().left_j < keep_j + reserved_j:
                return None, short
            reservation = account.reserve(reserved_j, f"waiting of {experience_id}")
        except BudgetExceeded:
            return None, short
        self.record(experience_id, {**figures, "until_utc": until.isoformat()})
        recorder, began, reason = self._run.recorder, now, "the chosen start has come"
        with (
            paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment,
            recorder.phase("waiting"),
        ):
            while now < until:
                if (payment.used.total_j or 0.0) + step_j > reserved_j:
                    reason = "the joules reserved for waiting are used"
                    break
                if interrupted():
                    reason = "the process has to end"
                    break
                self._start_by.sleep(
                    min(self._start_by.recheck_s, max(1.0, (until - now).total_seconds()))
                )
                now = self._start_by.now()
                until = again()
        self._history.learn_wait((now - began).total_seconds(), payment.used)
        spent = Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)
        return Pause(began=began, ended=now, used=payment.used, spent=spent), reason

    def record(self, experience_id: str, figures: dict[str, Any]) -> None:
        """Record an event of a wait.

        Raises:
            LedgerError: If it cannot be recorded.
        """
        self._run.run.append(
            "event", topic=TOPIC, experience_id=experience_id, content=canonical(figures)
        )
