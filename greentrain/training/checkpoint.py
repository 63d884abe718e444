"""What a stream needs to go on after its process has ended, in one folder."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch.utils.data import Subset

from greentrain.errors import ConfigurationError
from greentrain.memory import pack
from greentrain.streams import Experience

FORMAT = 3
"""Number of the form in which a state is saved."""


class Checkpoint:
    """Save the state of a stream whole or not at all, for one process at a time.

    Args:
        folder: The folder; made if it is missing.

    Raises:
        ConfigurationError: If the folder cannot be used, or another process is using it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.pt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigurationError(
                f"the state in {str(folder)!r} is in use by another process; a stream is updated "
                "by one at a time"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"cannot use the folder {str(folder)!r} for a state: {error.strerror or error}"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last; ``None`` if nothing was.

        Raises:
            ConfigurationError: If the file cannot be read, or another release wrote it.
        """
        if not self._file.exists():
            return None
        try:
            state = torch.load(self._file, map_location="cpu", weights_only=True)
            found = state["format"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.PickleError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigurationError(
                f"the state {str(self._file)!r} cannot be read ({reason}); bring back a copy of "
                "the folder, or give a new one to begin anew"
            ) from None
        if found != FORMAT:
            raise ConfigurationError(
                f"the state {str(self._file)!r} has format {found}, and this release reads {FORMAT}"
            )
        return dict(state)

    def check(self, experience: Experience) -> None:
        """Refuse an experience whose held-out data cannot be saved, before anything is paid for.

        Raises:
            ConfigurationError: If its first sample holds what cannot be.
        """
        pack(Subset(experience.val, [0]))

    def save(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Put a state in place of the one before; a process that is killed leaves one of them.

        Args:
            state: Returns plain values and tensors.

        Raises:
            OSError: If it cannot be written; the one before stays.
        """
        content, beside = state(), self._file.with_suffix(".tmp")
        with beside.open("wb") as file:
            torch.save({**content, "format": FORMAT}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._file)
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Let others use the folder; harmless the second time."""
        self._lock.release()


class NoCheckpoint:
    """Stand in where a stream ends with its process."""

    def load(self) -> None:
        """Return nothing."""

    def check(self, experience: Experience) -> None:
        """Do nothing."""

    def save(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
