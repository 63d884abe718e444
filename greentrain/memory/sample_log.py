"""Append experiences to one file, each tied by its hash to the one before it.

A state names only the last record, so it has the same size after ten experiences and after ten
thousand. Records are never overwritten, so earlier states stay readable.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from greentrain.errors import ConfigurationError
from greentrain.memory.disk_files import flush_to_disk, map_bytes, open_own
from greentrain.memory.layout import Column, from_text, widths

FILE = "samples.log"
"""Name of the file in a buffer's folder."""
_PREFIX = 8
"""Bytes before a record's header that hold the header's length."""

Run = dict[str, Any]
"""Samples of one layout: ``layout`` as text, ``size``, and ``columns``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a record.

    Args:
        start: Its first byte in the file.
        nbytes: Its length in bytes.
        digest: SHA-256 of it in hexadecimal digits.
    """

    start: int
    nbytes: int
    digest: str

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.nbytes

    def as_list(self) -> list[Any]:
        """Return plain values, which :meth:`from_list` reads."""
        return [self.start, self.nbytes, self.digest]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Place:
        """Return the place that :meth:`as_list` described."""
        start, nbytes, digest = values
        return cls(start=int(start), nbytes=int(nbytes), digest=str(digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record that was read.

    Args:
        origin: Name of the experience.
        runs: Its samples; the columns are mapped from the file.
        place: Its place.
    """

    origin: str
    runs: list[Run]
    place: Place


class SampleLog:
    """The records of one or more buffers in a file.

    Args:
        folder: Folder of the file; created with the first record.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def append(self, origin: str, runs: Sequence[Run], before: Place | None) -> Place:
        """Append a record, wait until it is on the disk, and return its place.

        A process that was killed after an ``append`` may repeat it: the bytes are used that are
        there already.

        Args:
            origin: Name of the experience.
            runs: Its samples.
            before: The record before it; ``None`` for the first one.

        Raises:
            OSError: If it cannot be written; the file is as it was then.
        """
        content = list(_encoded(origin, runs, before))
        hashed = hashlib.sha256()
        for part in content:
            hashed.update(part)
        nbytes, digest = sum(len(part) for part in content), hashed.hexdigest()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open_own(self.path) as file, _alone(file):
            repeated = Place(start=before.end if before else 0, nbytes=nbytes, digest=digest)
            if _holds(file, repeated):
                return repeated
            start = file.seek(0, os.SEEK_END)
            try:
                for part in content:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.ftruncate(file.fileno(), start)
                raise
        if not start:
            flush_to_disk(self.path.parent)
        return Place(start=start, nbytes=nbytes, digest=digest)

    def read(self, last: Place) -> list[Record]:
        """Return a record and all before it, the oldest first, after comparing their hashes.

        Raises:
            ConfigurationError: If the file is missing, or a byte of a record was changed.
        """
        if self.path.is_symlink() or not self.path.is_file():
            raise ConfigurationError(
                f"the state's samples cannot be loaded: {str(self.path)!r} is missing or no "
                "regular file; restore it from a copy, or start again with a new folder"
            )
        size = self.path.stat().st_size
        found: list[Record] = []
        if last.end <= size:
            mapped = map_bytes(self.path, size, writes=False)
            place: Place | None = last
            while place is not None:
                limit = found[-1].place.start if found else size
                if not 0 <= place.start < place.end <= limit:
                    break
                bytes_ = mapped[place.start : place.end]
                if hashlib.sha256(bytes_.numpy().data).hexdigest() != place.digest:
                    break
                record, place = _decoded(bytes_, place)
                found.append(record)
            else:
                return found[::-1]
        raise ConfigurationError(
            f"the state's samples cannot be loaded: {str(self.path)!r} was changed or cut short "
            f"(record {len(found)} from the end); restore it from a copy, or start again with a "
            "new folder"
        )


def _encoded(origin: str, runs: Sequence[Run], before: Place | None) -> Iterator[Any]:
    """Yield the parts of a record: the header's length, the header, and columns of bytes."""
    header = {
        "origin": origin,
        "before": None if before is None else before.as_list(),
        "runs": [
            {
                "layout": run["layout"],
                "size": run["size"],
                "texts": [None if _is_bytes(column) else column for column in run["columns"]],
            }
            for run in runs
        ],
    }
    text = json.dumps(header).encode("ascii")
    yield len(text).to_bytes(_PREFIX, "little")
    yield text
    for run in runs:
        for column in run["columns"]:
            if _is_bytes(column):
                yield column.contiguous().reshape(-1).numpy()


def _decoded(record: torch.Tensor, place: Place) -> tuple[Record, Place | None]:
    """Return a record whose hash is right, and the place of the one before it."""
    length = int.from_bytes(record[:_PREFIX].numpy().tobytes(), "little")
    end = _PREFIX + length
    header = json.loads(record[_PREFIX:end].numpy().tobytes())
    runs = []
    for run in header["runs"]:
        columns: list[Column] = []
        for width, texts in zip(widths(from_text(run["layout"])), run["texts"], strict=True):
            if width is None:
                columns.append(texts)
            else:
                start, end = end, end + run["size"] * width
                columns.append(record[start:end].view(run["size"], width))
        runs.append({"layout": run["layout"], "size": run["size"], "columns": columns})
    before = header["before"]
    return (
        Record(origin=header["origin"], runs=runs, place=place),
        None if before is None else Place.from_list(before),
    )


def _is_bytes(column: Column) -> bool:
    return isinstance(column, torch.Tensor)


def _holds(file: IO[bytes], place: Place) -> bool:
    """Return whether a file has a record at a place already."""
    if place.end > os.fstat(file.fileno()).st_size:
        return False
    file.seek(place.start)
    hashed, left = hashlib.sha256(), place.nbytes
    while left:
        read = file.read(min(left, 1 << 20))
        if not read:
            return False
        hashed.update(read)
        left -= len(read)
    return hashed.hexdigest() == place.digest


@contextmanager
def _alone(file: IO[bytes]) -> Iterator[None]:
    """Wait for other buffers that append to the same file; only POSIX has such a lock."""
    if os.name != "posix":
        yield
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
