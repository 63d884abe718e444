"""Kill a process, or let a call fail, at any of its calls that change files in a folder."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

WRITES, SYNCS, OPENS, NAMES, READS = 1, 2, 4, 8, 16
CHANGES = WRITES | SYNCS | OPENS | NAMES
"""Kinds of calls: writes, fsync, files opened for writing, renamed or deleted; reads are extra."""
KILL = 0
FOR_EVER = 2**62
_SOURCE = Path(__file__).with_name("failpoints.c")


def build(folder: Path) -> Path:
    """Compile the library that processes are started with.

    Raises:
        FileNotFoundError: If there is no C compiler.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("no C compiler `cc` on the PATH")
    library = folder / "failpoints.so"
    command = [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(_SOURCE), "-ldl"], check=True)
    return library


def arm(folder: Path, kinds: int, *, first: int, last: int = FOR_EVER, error: int = KILL) -> None:
    """Let some calls on the files in a folder fail from now on.

    The process must have been started with the library in ``LD_PRELOAD``.

    Args:
        folder: The folder.
        kinds: Kinds of calls that are counted.
        first: Number of the first call that fails, counted from 1.
        last: Number of the last one.
        error: Its errno; 0 kills the process before the call.
    """
    call = ctypes.CDLL(None).failpoints_arm
    call.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    call(os.fsencode(folder), kinds, first, last, error)


def disarm() -> int:
    """Let no more calls fail, and return the number of calls that were counted."""
    call = ctypes.CDLL(None).failpoints_disarm
    call.restype = ctypes.c_long
    return int(call())
