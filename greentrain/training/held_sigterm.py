"""Hold SIGTERM back while an update runs, so that what it reserved is settled."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_EXIT = 128 + signal.SIGTERM
"""Exit status of a process that ends by SIGTERM, as a shell reports it."""


@contextmanager
def held_sigterm() -> Iterator[Callable[[], None]]:
    """Hold SIGTERM back in the block, and end the program after it.

    ``torchrun`` sends SIGTERM to all ranks if one has died, and SIGKILL 30 s later. The error of a
    lost connection is then often on its way, and the update settles what it used. Within a
    fit, Lightning's own handler ends it at the next batch, too. A handler of the user stays.

    Yields:
        A function that raises ``SystemExit`` if SIGTERM has arrived, for the places where nothing
        has to be finished.

    Raises:
        SystemExit: After the block, if SIGTERM has arrived and the block has raised nothing.
    """
    arrived: list[int] = []

    def note(number: int, frame: Any) -> None:
        arrived.append(number)

    def check() -> None:
        if arrived:
            raise SystemExit(_EXIT)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield check
        return
    signal.signal(signal.SIGTERM, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    check()
