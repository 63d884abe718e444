"""Hand the results of a callback from a process that Lightning started to the one that started it.

After ``ddp_fork`` or ``ddp_spawn``, Lightning returns weights and metrics to the main process, and
calls none of its callbacks there. So the results wait in a file until they are read.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from greentrain.callbacks.messages import warn


class Origin(NamedTuple):
    """The process in which a callback was made, and an unguessable name of the callback.

    Args:
        pid: Number of the process.
        token: The name.
    """

    pid: int
    token: str

    @classmethod
    def of(cls, callback: object) -> Origin:
        """Return an origin for a new callback, whose files go when the callback does."""
        origin = cls(os.getpid(), uuid.uuid4().hex)
        weakref.finalize(callback, origin.discard)
        return origin

    def hand_over(self, results: Mapping[str, Any]) -> None:
        """Write results for the process of origin, if it started this one."""
        parent = multiprocessing.parent_process()
        if parent is None or parent.pid != self.pid:
            return
        try:
            folder = self._folder()
            folder.mkdir(mode=0o700, exist_ok=True)
            path = folder / f"{time.time_ns()}-{os.getpid()}"
            path.write_bytes(pickle.dumps(dict(results)))
            path.rename(path.with_suffix(".pickle"))
        except Exception as error:  # a result that is lost must not lose a trained model
            warn(f"the results of a callback do not reach the main process: {error}")

    def collect(self) -> list[dict[str, Any]]:
        """Return the results handed over since the last call, oldest first."""
        folder = self._folder()
        if os.getpid() != self.pid or not folder.is_dir():
            return []
        # Nothing else can write there: the name is random, and the folder is this user's alone.
        found = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("*.pickle"))]
        self.discard()
        return found

    def discard(self) -> None:
        """Delete results that were handed over; without effect in other processes."""
        if os.getpid() == self.pid:
            shutil.rmtree(self._folder(), ignore_errors=True)

    def _folder(self) -> Path:
        return Path(tempfile.gettempdir()) / f"greentrain-{self.token}"
