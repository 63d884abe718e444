"""Open files that other users may have placed: nothing waits for a pipe, and no device is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file without waiting, and return its descriptor.

    Args:
        path: The file; a symbolic link is followed.
        flags: Flags of :func:`os.open`.
        mode: Its permissions if it is created.

    Raises:
        OSError: If it cannot be opened, or is a pipe, a device or a folder.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), mode)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is no regular file")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the first bytes of a regular file.

    Args:
        path: The file.
        most_bytes: The number of bytes after which reading ends.

    Raises:
        OSError: As for :func:`open_regular`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(most_bytes)
