"""The contract between a ledger and the database that stores its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from greentrain.errors import LedgerError


class RowError(LedgerError):
    """A row that a ledger never takes, so that another try is useless."""


class UnreadableError(LedgerError):
    """A file that is no readable ledger: empty, cut short, another file, or texts not in UTF-8."""


class LedgerStore(ABC):
    """Storage of a ledger's rows; :class:`greentrain.ledger.Ledger` creates and uses one.

    Rows:
        Rows are only appended. Each belongs to a chain, has the next number of its chain, and is
        hashed with the row before it. Entry numbers increase in the order of the commits, so a
        reader that has seen entry ``n`` never finds a new entry below ``n``.

    Transactions:
        :meth:`write` and :meth:`read` begin a transaction, which ends with their ``with`` block: it
        commits, or rolls back on any exception. A write transaction excludes every other writer of
        the ledger, in all threads, processes and hosts. It therefore sees all that was committed
        before it. A read transaction sees one state of the ledger and blocks no writer. A thread
        must end a transaction before it begins the next one. Committed rows survive the loss of
        the process and of power, unless the ledger is in memory.

    Threads:
        Every method may be called from any thread. A connection belongs to the thread that began
        the transaction, and must not be used after the ``with`` block.

    Processes:
        A process that forks must create its store with ``keep_open=False``, or the child must
        create its own.

    Ownership:
        The ledger owns its store and closes it. Runs, accounts and outboxes borrow the store and
        never close it. A closed store opens again when it is used.

    Errors:
        Wrong arguments raise ``ConfigurationError``, at construction only. Every failure of the
        database raises ``LedgerError`` with a message of one sentence. It is ``RowError`` if the
        database refuses the values of a row, so that trying again is useless. It is
        ``UnreadableError`` if the file is damaged or no ledger. After an error the
        transaction is rolled back and the store can be used again. Exceptions of the ``with`` block
        itself are raised unchanged.

    Attributes:
        key: Key that rows are hashed with; ``None`` for plain hashes.
        host: Hash of the host's name, recorded with each run.
        clock: Function that returns the present time as an aware time.
    """

    key: bytes | None
    host: str
    clock: Callable[[], datetime]

    @property
    @abstractmethod
    def name(self) -> str:
        """Name for messages: the file, or the URL without secrets."""

    @property
    @abstractmethod
    def public_name(self) -> str:
        """Name for reports: the file's name or the database's name, without folder and server."""

    @property
    @abstractmethod
    def url(self) -> str:
        """URL without secrets."""

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """The SQLite file; ``None`` for a ledger in memory or on a server."""

    @property
    @abstractmethod
    def in_memory(self) -> bool:
        """``True`` if the rows are lost when the store is closed."""

    @abstractmethod
    def write(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that no other writer can overlap.

        Raises:
            LedgerError: If the database fails, or another writer holds it for 30 seconds.
        """

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that sees one state of the ledger and blocks no writer.

        Raises:
            LedgerError: If the database fails.
        """

    @abstractmethod
    def append(
        self, connection: Connection, kind: str, chain: str, content: Mapping[str, Any]
    ) -> str:
        """Append one row to a chain, and return its hash.

        The first row of a run's chain follows from the run's opening row. An opening row or a
        budget row also holds the heads of all chains that changed since the last such row.

        Args:
            connection: Connection of a write transaction.
            kind: Kind of entry, a key of ``schema.CONTENT``.
            chain: Name of the chain.
            content: Values by column. Columns that are left out are NULL.

        Raises:
            RowError: If a number is not finite, or the run does not exist.
            LedgerError: If the ledger was created with another key, or another host writes to the
                same SQLite file.
        """

    @abstractmethod
    def rows(self, kind: str, **equals: Any) -> list[dict[str, Any]]:
        """Return the rows of a kind in order, with ``recorded_utc``, as ``Ledger.rows`` does.

        Raises:
            LedgerError: If the database fails.
        """

    @abstractmethod
    def head(self, chain: str) -> tuple[int, str] | None:
        """Return the number of rows of a chain and its last hash; ``None`` if it has no row.

        Raises:
            LedgerError: If the database fails.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the database; calling it again has no effect."""
