"""Save the state of a stream in a folder, so that a later process can resume it."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from torch.utils.data import Subset

from greentrain.errors import ConfigurationError
from greentrain.memory import pack
from greentrain.memory.disk_files import flush_to_disk, open_fresh, save_tensors
from greentrain.streams import Experience

FORMAT = 6
"""Version of the saved format."""
_MARK = b"\ngreentrain state, SHA-256 "
"""Text before the checksum at the end of a file."""
_DIGITS = 64


class Checkpoint:
    """Save the state of a stream atomically, for one process at a time.

    ``state.pt`` is the state, and ``state.previous.pt`` the one before it. Both end with a checksum
    of all bytes before it. Only their owner can read them.

    Args:
        folder: The folder; created for its owner alone if it is missing.

    Raises:
        ConfigurationError: If the folder cannot be used, or another process is using it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.pt"
        self._previous = folder / "state.previous.pt"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = FileLock(folder / "lock", mode=0o600)
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
            ConfigurationError: If the file cannot be read, a byte of it was changed, or it has
                another format. The error says how to go back to the state before it.
        """
        if not self._file.exists() and not self._previous.exists():
            return None
        try:
            state = _read(self._file)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(
                f"the state {str(self._file)!r} cannot be read ({reason}); {self._way_back()}"
            ) from None
        if state["format"] != FORMAT:
            raise ConfigurationError(
                f"the state {str(self._file)!r} has format {state['format']}, and this release "
                f"reads {FORMAT}; resume it with the release that wrote it, or give a new state_dir"
            )
        return state

    def check(self, experience: Experience) -> None:
        """Refuse an experience whose held-out data cannot be saved, before any energy is used.

        Raises:
            ConfigurationError: If its first sample holds a value that cannot be saved.
        """
        pack(Subset(experience.val, [0]))

    def save(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Replace the saved state, and keep the one before it.

        A killed process leaves the old state or the new one.

        Args:
            state: Returns plain values and tensors.

        Raises:
            OSError: If it cannot be written; the old one remains.
        """
        content, written = state(), self._file.with_suffix(".tmp")
        with open_fresh(written) as file:
            save_tensors({**content, "format": FORMAT}, file)
            digest = _digest(file, file.seek(0, os.SEEK_END))
            file.write(_MARK + digest.encode())
            file.flush()
            os.fsync(file.fileno())
        self._keep_previous()
        written.replace(self._file)
        flush_to_disk(self.folder)

    def close(self) -> None:
        """Release the folder; calling it again is harmless."""
        self._lock.release()

    def _keep_previous(self) -> None:
        """Keep the present state under the name of the one before the next."""
        if not self._file.exists():
            return
        second = self._previous.with_suffix(".tmp")
        second.unlink(missing_ok=True)
        try:
            os.link(self._file, second)
        except OSError:  # a file system without links: after a kill here, `load` names the way back
            second = self._file
        second.replace(self._previous)

    def _way_back(self) -> str:
        """Return what to do about a state that cannot be read."""
        with suppress(OSError, ValueError):
            before = _read(self._previous)
            if before["format"] == FORMAT:
                last = before["outcome"]["experience_id"]
                move = "mv" if os.name == "posix" else "move"
                files = " ".join(shlex.quote(str(path)) for path in (self._previous, self._file))
                return (
                    f"the state before it, after experience {last!r}, is whole; to go back to it "
                    f"and update on later experiences again, run: {move} {files}"
                )
        return "restore a copy of the folder, or give a new state_dir to start again"


def _read(path: Path) -> dict[str, Any]:
    """Read a state, after comparing its checksum.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a byte of it was changed.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        length = max(0, size - len(_MARK) - _DIGITS)
        file.seek(length)
        end = file.read()
        if not end.startswith(_MARK):
            return {"format": _earlier_format(path)}
        if end[len(_MARK) :] != _digest(file, length).encode():
            raise ValueError("its checksum is wrong: it was changed or cut short")
        file.seek(0)
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _digest(file: IO[bytes], length: int) -> str:
    """Return the SHA-256 of the first bytes of a file."""
    file.flush()
    file.seek(0)
    hashed, left = hashlib.sha256(), length
    while left:
        read = file.read(min(left, 1 << 20))
        if not read:
            break
        hashed.update(read)
        left -= len(read)
    file.seek(length)
    return hashed.hexdigest()


def _earlier_format(path: Path) -> int:
    """Return the format of a state without a checksum, as earlier releases saved it.

    Raises:
        ValueError: If it is none.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)["format"]
    except Exception:  # torch raises errors of many kinds on other files
        found = None
    if not isinstance(found, int) or not 0 < found < FORMAT:
        raise ValueError("it has no checksum: it was changed or cut short, or is another file")
    return found
