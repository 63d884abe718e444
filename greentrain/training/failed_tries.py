"""Count the failed tries of an update, so that one experience cannot stop a stream for ever."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten

from greentrain.memory.disk_files import open_fresh
from greentrain.texts import get_logger

MOST_TRIES = 2
"""Failed tries of an update after which its experience is set aside."""
_LONGEST = 300
"""Characters of an error in the sentence of a decision."""

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
            with open_fresh(written) as file:
                file.write(json.dumps(self._tries).encode())
            written.replace(self._file)
        except OSError as error:
            _log.warning("the failed tries in %s cannot be written: %s", self._file, error)


def failed_again(experience_id: str, error: BaseException) -> str:
    """Return the sentence of a decision that sets an experience aside."""
    reason = shorten(str(error), _LONGEST) or "no message"
    return (
        f"The update on {experience_id} failed twice, so the experience is set aside, and the "
        f"stream goes on without its data. The last error was {type(error).__name__}: {reason}"
    )
