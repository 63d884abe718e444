"""Run a function in a forked process, which may be killed."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from typing import Any

from _reliability import failpoints


def forked(work: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked process; ``None`` if it was killed.

    Raises:
        RuntimeError: If the function raised, with the error's text.
    """
    ends, begins = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = pickle.dumps((True, work()))
        except BaseException as error:
            result = pickle.dumps((False, f"{type(error).__name__}: {error}"))
        failpoints.disarm()
        with os.fdopen(begins, "wb") as pipe:
            pipe.write(result)
        os._exit(0)
    os.close(begins)
    with os.fdopen(ends, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    succeeded, result = pickle.loads(content)
    if not succeeded:
        raise RuntimeError(result)
    return result


def spread(count: int, most: int, part: tuple[int, int] = (0, 1)) -> list[int]:
    """Return the numbers from 1 to ``count``, or ``most`` of them, evenly spread.

    Args:
        count: The highest number.
        most: How many numbers; 0 for all.
        part: Which part of how many: one of several processes that share the numbers.
    """
    some = min(count, most) if most else count
    numbers = sorted({1 + (2 * each + 1) * count // (2 * some) for each in range(some)})
    return numbers[part[0] :: part[1]]
