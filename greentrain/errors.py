"""The exceptions that greentrain raises.

::

    GreentrainError
    ├── ConfigurationError (also a ValueError)   what was given is not allowed
    ├── BudgetExceeded                           a reservation asked for more than is left
    ├── LedgerError                              the ledger cannot be read, written or trusted
    └── MeterError                               a meter cannot measure here

Misuse of a Lightning ``Trainer`` raises Lightning's own ``MisconfigurationException``.
"""

from __future__ import annotations


class GreentrainError(Exception):
    """Root of everything that greentrain raises by itself."""


class ConfigurationError(GreentrainError, ValueError):
    """An argument, a text or a file that cannot be used; the message says what would be right."""


class BudgetExceeded(GreentrainError):
    """A reservation, or a child budget, that asked for more than the budget has left.

    Args:
        message: One sentence that names what was asked, what is left and who holds the rest.
        asked_j: Joules that were asked for; ``None`` if the budget is of carbon and no intensity is
            known.
        left_j: Joules that were left at that instant; ``None`` as above.
        held_by: Who holds what is reserved or promised: amount, run and purpose of each.
    """

    def __init__(
        self,
        message: str,
        *,
        asked_j: float | None,
        left_j: float | None,
        held_by: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.asked_j = asked_j
        self.left_j = left_j
        self.held_by = held_by


class LedgerError(GreentrainError):
    """A ledger that cannot be opened, written or trusted."""


class MeterError(GreentrainError):
    """A meter that cannot measure on this machine."""
