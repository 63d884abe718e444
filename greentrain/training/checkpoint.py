"""Save the state of a stream in a folder, so that a later process can resume it."""

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
from greentrain.memory.slot_storage import save_tensors
from greentrain.streams import Experience

FORMAT = 4
"""Version of the saved format."""


class Checkpoint:
    """Save the state of a stream atomically, for one process at a time.

    Args:
        folder: The folder; created if it is missing.

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
                f"the state in {str(folder)!r} is in use by another process; wait until it ends, "
                "or give another state_dir: one process at a time may update a stream"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"cannot use the folder {str(folder)!r} as state_dir: {error.strerror or error}"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state; ``None`` if there is none.

        Raises:
            ConfigurationError: If the file cannot be read, or has another format.
        """
        if not self._file.exists():
            return None
        try:
            state = torch.load(self._file, map_location="cpu", weights_only=True)
            found = state["format"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.PickleError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigurationError(
                f"the state {str(self._file)!r} cannot be read ({reason}); restore a copy of the "
                "folder, or give a new state_dir to start again"
            ) from None
        if found != FORMAT:
            raise ConfigurationError(
                f"the state {str(self._file)!r} has format {found}, and this release reads "
                f"{FORMAT}; resume it with the release that wrote it, or give a new state_dir"
            )
        return dict(state)

    def check(self, experience: Experience) -> None:
        """Refuse an experience whose held-out data cannot be saved, before any energy is used.

        Raises:
            ConfigurationError: If its first sample holds a value that cannot be saved.
        """
        pack(Subset(experience.val, [0]))

    def save(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Replace the saved state; a killed process leaves the old one or the new one.

        Args:
            state: Returns plain values and tensors.

        Raises:
            OSError: If it cannot be written; the old one remains.
        """
        content, written = state(), self._file.with_suffix(".tmp")
        with written.open("wb") as file:
            save_tensors({**content, "format": FORMAT}, file)
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._file)
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Release the folder; calling it again is harmless."""
        self._lock.release()
