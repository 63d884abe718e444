"""Create a ledger's SQLite file, with all tables or not at all."""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing, suppress
from glob import escape
from pathlib import Path

from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from greentrain.errors import ConfigurationError
from greentrain.ledger.filesystems import is_network
from greentrain.ledger.schema import REVISIONS, metadata, versions


def statements(dialect: Dialect) -> tuple[str, ...]:
    """Return the SQL that creates the tables of an empty database and records their revision."""
    made = []
    for table in (versions, *metadata.sorted_tables):
        made.append(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=str):
            made.append(str(CreateIndex(index).compile(dialect=dialect)))
    return (*made, f"INSERT INTO {versions.name} VALUES ('{REVISIONS[-1]}')")


# Computed at import, so that opening a ledger is fast.
STATEMENTS = statements(sqlite.dialect())
"""SQL that creates the tables of an empty SQLite file."""


def create_file(path: Path) -> None:
    """Create a ledger's file and its folder; only the owner can read the file.

    The file is filled under a temporary name and then linked to its name. No process therefore
    sees half a file, and the disk is synchronised only once. If several processes do this, the
    first file is kept. If links are not possible, the file is left empty for the first transaction.

    Raises:
        ConfigurationError: If the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _created_whole(path):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"cannot create the ledger {str(path)!r}: {error.strerror}"
        ) from None


def remove_drafts(path: Path) -> None:
    """Delete the second names of a file whose process died in :func:`create_file`."""
    found = path.stat()
    for draft in path.parent.glob(f".{escape(path.name)}.????????"):
        with suppress(OSError):  # its process may delete it at the same time
            if os.path.samestat(draft.stat(), found):
                draft.unlink()


def wal_works(path: Path) -> bool:
    """Return whether a write-ahead log works in a file's folder, by a test with a scratch file.

    Network file systems return ``False`` without a test: there a log may seem to work, and lose
    rows as soon as a second machine writes.
    """
    if is_network(path):
        return False
    scratch = _scratch_path(path)
    try:
        _make(scratch)
        return _probe(scratch)
    except (OSError, sqlite3.Error):
        return False
    finally:
        _remove(scratch)


def _created_whole(path: Path) -> bool:
    draft = _scratch_path(path)
    try:
        _make(draft)
        _fill(draft)
        if not is_network(path) and not _probe(draft):
            _remove(draft)
            _make(draft)
            _fill(draft)
        _synchronise(draft)
        os.link(draft, path)
    except (OSError, sqlite3.Error):  # such as a file system without links, or a full disk
        return path.exists()
    finally:
        _remove(draft)
    return True


def _scratch_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _fill(draft: Path) -> None:
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")  # the file is synchronised later, whole
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("BEGIN")
        for statement in STATEMENTS:
            connection.execute(statement)
        connection.execute("COMMIT")


def _probe(scratch: Path) -> bool:
    """Return whether one connection reads what another one has just written to the log."""
    try:
        with (
            closing(sqlite3.connect(scratch, isolation_level=None)) as writer,
            closing(sqlite3.connect(scratch, isolation_level=None)) as reader,
        ):
            writer.execute("PRAGMA synchronous=OFF")
            if writer.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
                return False
            writer.execute("PRAGMA user_version=1")
            seen: bool = reader.execute("PRAGMA user_version").fetchone() == (1,)
            return seen
    except sqlite3.Error:
        return False


def _synchronise(draft: Path) -> None:
    # Only safe while SQLite has the file closed: closing it here would release SQLite's locks.
    descriptor = os.open(draft, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
