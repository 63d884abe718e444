"""Open and write files of samples and states: private, whole, and never through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Any

import torch

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def open_fresh(path: Path) -> IO[bytes]:
    """Create a file that only its owner can read, and open it to write and read.

    A file or a symbolic link of this name is removed first, and not followed.

    Raises:
        OSError: If it cannot be created.
    """
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600), "w+b")


def open_own(path: Path) -> IO[bytes]:
    """Open a file to write and read, and create it for its owner alone if it is missing.

    Raises:
        OSError: If it cannot be opened, is a symbolic link, or is no regular file.
    """
    # Without O_NONBLOCK, opening a pipe would wait for its other end.
    flags = os.O_RDWR | os.O_CREAT | _NO_LINK | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(descriptor, "r+b")


def map_bytes(path: Path, size: int, *, writes: bool) -> torch.Tensor:
    """Map the first bytes of a file as a tensor ``(size,)``.

    Args:
        path: The file.
        size: Number of bytes.
        writes: Whether writes to the tensor go to the file.

    Raises:
        OSError: If the system cannot open or map it, which torch reports as a ``RuntimeError``.
    """
    try:
        return torch.from_file(str(path), shared=writes, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise OSError(f"{path} cannot be mapped ({error})") from error


def save_tensors(content: Any, file: IO[bytes] | Path) -> None:
    """Write plain values and tensors with ``torch.save``.

    Raises:
        OSError: If the disk is full or fails, which torch reports as a ``RuntimeError``.
    """
    try:
        torch.save(content, file)
    except RuntimeError as error:
        raise OSError(f"the disk did not take all of it ({error})") from error


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or on POSIX the entries of a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
