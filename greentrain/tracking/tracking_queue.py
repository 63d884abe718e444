"""Keep what is logged in a local file until MLflow has it, without delaying training."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from greentrain.ledger.disk_queue import DiskQueue, NewRow, QueuedRow, queue_files
from greentrain.ledger.writer import Writer
from greentrain.texts import get_logger

_log = get_logger(__name__)

LIMIT = 100_000
"""Rows of points that may wait, one for each epoch: some 50 MB."""
POINTS = "points"
"""The only kind of row that is discarded when too many wait."""
RUN, END = "run", "end"
"""Kinds of rows that begin a run and end it."""

_Put = tuple[NewRow, bool]


class TrackingQueue:
    """Keep rows for an MLflow server in a :class:`~greentrain.ledger.disk_queue.DiskQueue`.

    A background thread writes the rows, without waiting for the disk. They survive the end of the
    process, except for the last milliseconds, but not a power failure. If no file can be made, a
    warning says so and rows wait in memory. A forked or unpickled queue uses a separate file.

    Args:
        folder: Folder for the file. Files of processes that have ended are adopted there. ``None``
            if there is none.
        target: Where the rows are sent. Rows for other targets are left alone.
        limit: Rows of points that may wait. The oldest ones beyond that are discarded.

    Attributes:
        dropped: Rows of points that were discarded.
        in_memory: Whether rows wait in memory, because no file could be made.
        sending: Number of the last row that is being sent; rows up to it are not discarded.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     queue = TrackingQueue(Path(folder), "http://localhost:5000")
        ...     queue.put("a-run", "tags", {"colour": "green"})
        ...     waiting = queue.after(0, 10)
        ...     queue.remove([row.number for row in waiting])
        ...     queue.close()
        >>> [(row.run, row.kind, row.content) for row in waiting]
        [('a-run', 'tags', {'colour': 'green'})]
    """

    def __init__(self, folder: Path | None, target: str, *, limit: int = LIMIT) -> None:
        self.folder = folder
        self.target = target
        self.limit = limit
        self.dropped = 0
        digest = hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()
        self._prefix = f"{digest[:12]}-"
        self._queue: DiskQueue | None
        self._begin(flushes=False)

    def put(self, run: str, kind: str, content: Any, *, replace: bool = False) -> None:
        """Add a row, and return at once.

        Args:
            run: Key of the run that it belongs to.
            kind: Kind of row.
            content: Plain values.
            replace: Whether it replaces waiting rows of its run and kind.
        """
        self._check_process()
        self._writer.put(((run, kind, content), replace))
        if self._flushes:
            self._writer.flush()

    def after(self, number: int, count: int) -> list[QueuedRow]:
        """Return the first rows after a number, in order."""
        self.flush()
        with self._lock:
            found = self._opened().read(number, count)
            if found:
                self.sending = found[-1].number
        return found

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove rows that have arrived."""
        with self._lock:
            queue = self._opened()
            queue.remove(numbers)
            self._points = queue.count(POINTS)

    def count(self) -> int:
        """Return how many rows wait."""
        self.flush()
        with self._lock:
            return 0 if self._queue is None else self._queue.count()

    def flush(self) -> None:
        """Wait until all rows so far are in the file, where they survive a killed process."""
        self._check_process()
        self._writer.flush()

    def adopt(self) -> int:
        """Adopt the rows that ended processes left, and return their number.

        A run that such a process began and did not end is ended as killed.
        """
        adopted = 0
        self._check_process()
        with self._lock:
            for path in [] if self.folder is None else queue_files(self.folder, self._prefix):
                if path in self._refused or (self._queue and path == self._queue.path):
                    continue
                try:
                    left = DiskQueue.adopt(path)
                    adopted += 0 if left is None else self._move(left)
                except OSError as error:
                    self._refused.add(path)
                    _log.warning("rows for MLflow in %s were not sent, because %s", path, error)
        return adopted

    def close(self) -> None:
        """Leave waiting rows to the next process, or delete the file if none wait."""
        self._check_process()
        self._writer.close()
        with self._lock:
            queue, self._queue = self._queue, None
            if queue is not None and queue.count():
                queue.close()
            elif queue is not None:
                queue.delete()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "target": self.target, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["target"], limit=state["limit"])  # type: ignore[misc]
        self._flushes = True

    def _begin(self, *, flushes: bool) -> None:
        """Start without a file; ``flushes`` for a process that ends without notice to threads."""
        self._flushes = flushes
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._writer: Writer[_Put] = Writer(self._write, name="greentrain-queue")
        self._queue = None
        self._points = 0
        self.sending = 0
        self._failed = False
        self.in_memory = False
        self._refused: set[Path] = set()

    def _check_process(self) -> None:
        if os.getpid() != self._process:  # forked: the file and the lock belong to the parent
            self._begin(flushes=True)

    def _write(self, puts: list[_Put], awaited: bool) -> None:
        """Write rows in order; training continues if that fails."""
        rows: list[NewRow] = []
        replaced: set[tuple[str, str]] = set()
        for row, replace in puts:
            if replace:
                rows = [each for each in rows if each[:2] != row[:2]]
                replaced.add(row[:2])
            rows.append(row)
        try:
            if rows:
                with self._lock:
                    self._append(rows, replaced)
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning("MLflow will miss rows that cannot be kept on this disk: %s", error)

    def _append(self, rows: list[NewRow], replaced: set[tuple[str, str]]) -> None:
        queue = self._opened()
        before = queue.note.get("open", [])
        unfinished = dict.fromkeys(before)
        for run, kind, _ in rows:
            if kind == RUN:
                unfinished[run] = None
            elif kind == END:
                unfinished.pop(run, None)
        note = None if list(unfinished) == before else {"open": list(unfinished)}
        queue.append(rows, replace=replaced, note=note)
        self._points += sum(kind == POINTS for _, kind, _ in rows)
        if self._points > self.limit:
            excess = self._points - self.limit
            removed = queue.remove_oldest(POINTS, excess, after=self.sending)
            self._points -= removed
            self.dropped += removed

    def _opened(self) -> DiskQueue:
        """Return the queue; called with the lock held."""
        if self._queue is None:
            try:
                if self.folder is None:
                    raise OSError("set HOME or queue_folder=")
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._queue = DiskQueue.create(self.folder, self._prefix, durable=False)
            except OSError as error:
                _log.warning(
                    "rows for MLflow wait in memory, because %s cannot be used: %s",
                    *(self.folder or "the cache folder of a user without a home", error),
                )
                self.in_memory = True
                self._queue = DiskQueue.create(None)
        return self._queue

    def _move(self, left: DiskQueue) -> int:
        """Move the rows of another queue into this one, and return their number."""
        try:
            rows = [(row.run, row.kind, row.content) for row in left.read()]
            killed = {"status": "KILLED", "at_ms": int(left.written_s * 1000)}
            rows += [(run, END, killed) for run in left.note.get("open", [])]
            if rows:
                queue = self._opened()
                queue.append(rows)
                self._points = queue.count(POINTS)
        except BaseException:
            left.close()
            raise
        # If this process is killed here, the rows wait twice and arrive once.
        left.delete()
        return len(rows)
