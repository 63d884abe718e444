"""Run a part of this package in a second process, which can be done without."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_PATIENCE_S = 60.0
_ROW_S = 0.001
"""Seconds that a result is waited for: some, and a multiple of what each row takes."""


def start(program: str, request: Any) -> subprocess.Popen[bytes] | None:
    """Start a process, and send it a request as JSON through its standard input.

    No other user can read that input. No module is imported from the present folder, which may hold
    the files of a stranger.

    Args:
        program: Python code. It prints its result as JSON.
        request: The request.

    Returns:
        The process, which the caller has to end; ``None`` if there cannot be one.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    stdin, process.stdin = process.stdin, None
    if stdin is not None:
        try:
            with stdin:
                stdin.write(json.dumps(request).encode())
        except OSError:  # it has ended, and its result says so
            pass
    return process


def result(process: subprocess.Popen[bytes], rows: int) -> Any:
    """Wait for the result of a process, for a minute and longer with many rows.

    Args:
        process: The process.
        rows: Number of rows that it reads.

    Returns:
        The result; ``None`` if the process failed, was killed, hangs, or printed something else.
    """
    try:
        printed, _ = process.communicate(timeout=_PATIENCE_S + _ROW_S * rows)
        return json.loads(printed) if process.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None
