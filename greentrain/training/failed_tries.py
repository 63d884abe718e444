"""Count the failed tries of an update, so that one experience cannot stop a stream for ever."""

from __future__ import annotations

import json
from pathlib import Path

from greentrain.texts import get_logger

MOST_TRIES = 2
"""Failed tries of an update after which its experience is set aside."""

_log = get_logger(__name__)


class FailedTries:
    """Count failed tries by experience.

    Args:
        folder: The folder in which they are kept for the next process; ``None`` keeps them in
            memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "failed_tries.json"
        self._tries: dict[str, int] = {}
        if self._file is not None and self._file.exists():
            try:
                found = json.loads(self._file.read_text(encoding="utf-8"))
                self._tries = {str(name): int(count) for name, count in found.items()}
            except (OSError, ValueError, TypeError, AttributeError) as error:
                _log.warning(
                    "the failed tries in %s cannot be read, so they count as none: %s",
                    *(self._file, error),
                )

    def add(self, experience_id: str) -> int:
        """Count a failed try of an experience, and return the number of its failed tries."""
        self._tries[experience_id] = self._tries.get(experience_id, 0) + 1
        self._write()
        return self._tries[experience_id]

    def forget(self, experience_id: str) -> None:
        """Forget the failed tries of an experience that is finished."""
        if self._tries.pop(experience_id, 0):
            self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        written = self._file.with_suffix(".tmp")
        try:
            written.write_text(json.dumps(self._tries), encoding="utf-8")
            written.replace(self._file)
        except OSError as error:
            _log.warning("the failed tries in %s cannot be written: %s", self._file, error)
