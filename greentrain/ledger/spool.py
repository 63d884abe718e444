"""Rows that wait in a local file while their database cannot be written to."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from greentrain.ledger.rows import Row
from greentrain.ledger.schema import canonical
from greentrain.ledger.store import Store

KINDS = ("source", "window", "heartbeat", "closing")
"""What may wait: nothing that spends, and nothing that is decided."""


class Spool:
    """A file of rows, one a line, under a line that says which run's they are.

    Its owner holds a lock on it, so that nobody else takes the rows while the owner lives.

    Args:
        path: The file.
        file: The same, open.
        spool_id: What the ledger calls it once rows of it were replayed.
        run_id: The run.
        attempted: How many of the first rows the database may have after all: it broke off while
            they were written.
    """

    def __init__(
        self, path: Path, file: BinaryIO, *, spool_id: str, run_id: str, attempted: int
    ) -> None:
        self.path = path
        self._file = file
        self.spool_id = spool_id
        self.run_id = run_id
        self.attempted = attempted

    @classmethod
    def create(cls, path: Path, run_id: str, attempted: int) -> Spool:
        """Make a file that its owner alone may read, and lock it.

        Raises:
            OSError: If it cannot be made.
        """
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _NO_FOLLOW, 0o600)
        made = cls(
            path,
            os.fdopen(descriptor, "r+b"),
            spool_id=str(uuid.uuid4()),
            run_id=run_id,
            attempted=attempted,
        )
        try:
            _lock(made._file)
            head = {"spool_id": made.spool_id, "run_id": run_id, "attempted": attempted}
            made._append([canonical(head)])
        except BaseException:
            made.remove()
            raise
        return made

    @classmethod
    def take(cls, path: Path) -> Spool | None:
        """Take over a file that a process left which is gone; ``None`` if it is not ours to take.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no spool.
        """
        file = os.fdopen(os.open(path, os.O_RDWR | _NO_FOLLOW), "r+b")
        try:
            state = os.fstat(file.fileno())
            ours = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid()
            if not ours or stat.S_IMODE(state.st_mode) & 0o077:
                raise ValueError("it may have been written by somebody else")
            try:
                _lock(file)
            except OSError:  # its owner lives
                file.close()
                return None
            head = json.loads(file.readline())
            return cls(
                path,
                file,
                spool_id=str(head["spool_id"]),
                run_id=str(head["run_id"]),
                attempted=int(head["attempted"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            file.close()
            raise ValueError(f"{path} is no spool of ours: {error}") from None
        except BaseException:
            file.close()
            raise

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows, all or none.

        Raises:
            OSError: If the disk takes no more.
        """
        self._append([canonical([kind, content]) for kind, content in rows])

    def rows(self) -> Iterator[Row]:
        """Give all rows, in order; a last one that is not whole was being written when it ended.

        Raises:
            ValueError: If one of them is none.
        """
        self._file.seek(0)
        self._file.readline()
        while (line := self._file.readline()).endswith(b"\n"):
            kind, content = json.loads(line)
            if kind not in KINDS or content.get("run_id") != self.run_id:
                raise ValueError(f"{self.path} holds a row that was not put there by its run")
            yield kind, content

    def remove(self) -> None:
        """Delete the file, whose rows are in the database."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave the file to whoever opens the ledger next."""
        with suppress(OSError):
            self._file.close()

    def _append(self, lines: Sequence[str]) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write("".join(f"{line}\n" for line in lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # what could not be written is thrown away with the buffer
                self._file.close()
            descriptor = os.open(self.path, os.O_RDWR | _NO_FOLLOW)
            self._file = os.fdopen(descriptor, "r+b")
            os.ftruncate(descriptor, end)
            with suppress(OSError):
                _lock(self._file)
            raise


def places(store: Store, run_id: str) -> list[Path]:
    """Return where a run's rows may wait: beside the SQLite file, or among temporary files."""
    found = []
    if store.path is not None:
        found.append(store.path.with_name(f"{store.path.name}-spool-{run_id}.jsonl"))
    found.append(_temporary() / f"greentrain-spool-{_fingerprint(store)}-{run_id}.jsonl")
    return found


def left_behind(store: Store) -> list[Path]:
    """Return the files in which rows of this ledger wait, whoever put them there."""
    found: list[Path] = []
    for place in places(store, "*"):
        begins, _, ends = place.name.partition("*")
        with suppress(OSError), os.scandir(place.parent) as entries:
            names = [entry.name for entry in entries]
            found += [
                place.with_name(name)
                for name in sorted(names)
                if name.startswith(begins) and name.endswith(ends)
            ]
    return found


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _fingerprint(store: Store) -> str:
    name = store.name if store.path is None else str(store.path.absolute().resolve())
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # where there is none, rows wait in memory
        raise OSError("this system has no locks that end with their process") from None
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
