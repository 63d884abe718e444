"""Make the files of a stream's run in a background thread, so that training never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from greentrain.texts import get_logger, one_line
from greentrain.tracking.sender import LONGEST_REASON

_log = get_logger(__name__)

FIRST_S = 60.0
"""Seconds before the first files: what Python loads for them would slow a short stream down."""
_RESTS = 19
"""Pauses after the files were made, in times of what that took: so it is 5 % of the time."""


class Publisher:
    """Make the files of the latest state only; an error is a warning."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._make: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._warned = False

    def publish(self, make: Callable[[], None]) -> None:
        """Call a function in a while, in place of an earlier one that was not called yet."""
        with self._lock:
            self._make = make
            if self._thread is None:
                self._ending.clear()
                self._thread = threading.Thread(
                    target=self._run, name="greentrain-publisher", daemon=True
                )
                self._thread.start()

    def finish(self, patience_s: float) -> None:
        """Wait until the last files are made, for some seconds at most."""
        with self._lock:
            thread = self._thread
        self._ending.set()
        if thread is not None:
            thread.join(patience_s)

    def _run(self) -> None:
        pause_s = FIRST_S
        while True:
            self._ending.wait(pause_s)
            with self._lock:
                make, self._make = self._make, None
                if make is None:
                    self._thread = None
                    return
            begun_s = time.monotonic()
            try:
                make()
            except Exception as error:  # training continues after any failure
                self._warn(error)
            pause_s = _RESTS * (time.monotonic() - begun_s)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            reason = one_line(" ".join(str(error).split()) or type(error).__name__, LONGEST_REASON)
            _log.warning(
                "MLflow has no new charts and no new model card of this stream, because they "
                "cannot be made: %s",
                reason,
            )
