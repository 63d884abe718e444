"""Pay for a piece of work: reserve before, measure, and settle after it, also if it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from greentrain.budget import Account
from greentrain.energy import NOTHING, Reading, Window, WindowRecorder
from greentrain.errors import LedgerError
from greentrain.texts import get_logger
from greentrain.units import format_energy

_log = get_logger(__name__)

MIN_RESERVATION_J = 1e-6
"""Smallest amount that is reserved: a reservation of 0 is impossible."""


class Payment:
    """A reservation in use, which pays for all windows from :meth:`begin` to :meth:`end`.

    A payment within another one pays for its own windows, and the outer one for the rest.

    Args:
        recorder: Records the windows, which carry the reservation.
        reservation: The reservation's name.
        reserved_j: Joules set aside.

    Attributes:
        reservation: As given.
        reserved_j: As given.
        overrun_j: Joules used beyond the reservation, once settled.
    """

    def __init__(self, recorder: WindowRecorder, reservation: str, *, reserved_j: float) -> None:
        self.reservation = reservation
        self.reserved_j = reserved_j
        self.overrun_j = 0.0
        self._recorder = recorder
        self._depth = 0
        self._closed: Reading = NOTHING
        self._open = False
        self._outer: str | None = None

    @property
    def used(self) -> Reading:
        """Seconds and joules by source, up to now."""
        return self._closed + self._recorder.used(self._depth) if self._open else self._closed

    @property
    def actual_j(self) -> float:
        """Joules to settle: those measured, and at least the reservation if some are unknown."""
        used = self.used
        known_j = used.total_j or 0.0
        return known_j if used.complete else max(known_j, self.reserved_j)

    def begin(self, phase: str | None = None) -> None:
        """Begin to measure, in a phase of this name if one is given."""
        self._depth, self._open = self._recorder.depth, True
        self._outer, self._recorder.reservation_id = (
            self._recorder.reservation_id,
            self.reservation,
        )
        self._recorder.sinks.append(self._take)
        if phase is not None:
            self._recorder.enter(phase)

    def end(self) -> None:
        """Stop measuring, and close the phases opened since :meth:`begin`."""
        self._recorder.leave_to(self._depth)
        self._recorder.sinks.remove(self._take)
        self._recorder.reservation_id = self._outer
        self._open = False

    def settle(self, account: Account) -> None:
        """Settle the energy used; see :func:`settle`."""
        self.overrun_j = settle(account, self.reservation, self.actual_j)

    def _take(self, window: Window) -> None:
        if window.reservation_id == self.reservation:
            self._closed += window.reading


def settle(account: Account, reservation: str, actual_j: float) -> float:
    """Settle a reservation, and return the joules used beyond it.

    If the ledger cannot be written, a warning is logged, and the whole reservation stays spent: a
    missing row is no reason to lose the trained model.

    Args:
        account: The account that the reservation was made with.
        reservation: The reservation's name.
        actual_j: Joules that were used.
    """
    try:
        return account.settle(reservation, actual_j)
    except LedgerError as error:
        _log.warning(
            "%s used under the reservation %s could not be settled, so all of it stays spent "
            "until it is released: %s",
            format_energy(actual_j),
            reservation,
            error,
        )
        return 0.0


@contextmanager
def paying(
    account: Account, recorder: WindowRecorder, *, reserved_j: float, reservation: str
) -> Iterator[Payment]:
    """Measure a block under a reservation, and settle the sum of its windows at the end.

    Args:
        account: The account that the reservation was made with.
        recorder: Records the windows.
        reserved_j: Joules set aside.
        reservation: The reservation's name.
    """
    payment = Payment(recorder, reservation, reserved_j=reserved_j)
    payment.begin()
    try:
        yield payment
    finally:
        payment.end()
        payment.settle(account)
