"""Pay for a piece of work: reserve before, measure, settle after, whatever happens in between."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from greentrain.budget import Account
from greentrain.energy import NOTHING, Reading, Window, WindowRecorder
from greentrain.errors import LedgerError
from greentrain.units import format_energy

_log = logging.getLogger(__name__)

MIN_RESERVATION_J = 1e-6


class Payment:
    """A reservation that is being worked under.

    Attributes:
        reserved_j: Joules set aside.
        drawn: Seconds and joules by source of the windows that have closed.
        overrun_j: Joules drawn beyond the reservation, once settled.
    """

    def __init__(self, reserved_j: float) -> None:
        self.reserved_j = reserved_j
        self.drawn: Reading = NOTHING
        self.overrun_j = 0.0

    def take(self, window: Window) -> None:
        """Add a window that has closed."""
        self.drawn += window.reading

    @property
    def actual_j(self) -> float:
        """Joules to settle: what was measured; where some is unknown, the reservation at least."""
        known_j = self.drawn.total_j or 0.0
        return known_j if self.drawn.complete else max(known_j, self.reserved_j)


@contextmanager
def paying(
    account: Account, recorder: WindowRecorder, *, reserved_j: float, reservation: str
) -> Iterator[Payment]:
    """Work under a reservation: its windows carry its name, and their sum is what is settled.

    If the ledger cannot be told, a warning says so, and the reservation stays spent as a whole.

    Args:
        account: The account that the reservation was made with.
        recorder: Records the windows.
        reserved_j: Joules set aside.
        reservation: The reservation's name.
    """
    payment = Payment(reserved_j)
    depth = recorder.depth
    recorder.reservation_id = reservation
    recorder.sinks.append(payment.take)
    try:
        yield payment
    finally:
        recorder.leave_to(depth)
        recorder.sinks.remove(payment.take)
        recorder.reservation_id = None
        try:
            payment.overrun_j = account.settle(reservation, payment.actual_j)
        except LedgerError as error:  # what was trained is not lost for want of a row
            _log.warning(
                "%s drawn for the reservation %s could not be settled, so all of it stays spent "
                "until it is released: %s",
                format_energy(payment.actual_j),
                reservation,
                error,
            )
