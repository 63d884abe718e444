"""The exceptions that greentrain raises.

::

    - GreentrainError: root of all errors that greentrain raises
      - ConfigurationError (also a ValueError): an argument, text or file that cannot be used
      - BudgetExceeded: a reservation of more than a budget has left
      - LedgerError: a ledger that cannot be read, written or trusted
      - MeterError: a meter that cannot measure on this machine
      - IntensityError: a provider of carbon intensities that gives none

Misuse of a Lightning ``Trainer`` raises Lightning's own ``MisconfigurationException``.
"""

from __future__ import annotations

from greentrain.texts import one_line


class GreentrainError(Exception):
    """Root of all errors that greentrain raises; its text is one line without secrets."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigurationError(GreentrainError, ValueError):
    """An argument, a text or a file that cannot be used; the message says how to correct it."""


class BudgetExceeded(GreentrainError):
    """A reservation, or a child budget, of more than the budget has left.

    Args:
        message: One sentence that names the request, the amount left and the holders of the rest.
        requested_j: Joules requested; ``None`` for a budget of carbon without a known intensity.
        left_j: Joules left at that instant; ``None`` as above.
        held_by: Amount, run and purpose of each open reservation or promise.
    """

    def __init__(
        self,
        message: str,
        *,
        requested_j: float | None,
        left_j: float | None,
        held_by: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.requested_j = requested_j
        self.left_j = left_j
        self.held_by = held_by


class LedgerError(GreentrainError):
    """A ledger that cannot be opened, written or trusted."""


class MeterError(GreentrainError):
    """A meter that cannot measure on this machine."""


class IntensityError(GreentrainError):
    """A provider of carbon intensities that gives none: no network, a refused key, no data."""
