"""Files of a recording: the lines of the table, and the weights of trained models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from greentrain.control.action import Action
from greentrain.errors import ConfigurationError
from greentrain.memory.disk_files import save_tensors
from greentrain.simulation.recorded_table import (
    Header,
    Place,
    RecordedProbe,
    RecordedRow,
    TablePart,
    from_line,
    to_line,
)


class TableFile:
    """Append to a table, line by line; an interrupted recording is continued.

    Args:
        path: The file.
        header: Description of the table.

    Attributes:
        probes: Probes in the file, including appended ones, by place.
        rows: Rows likewise, by place and action.

    Raises:
        ConfigurationError: If the file is not a table, has another header, or cannot be written.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.probes: dict[Place, RecordedProbe] = {}
        self.rows: dict[Place, dict[Action, RecordedRow]] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]  # an incomplete line is recorded again
            for line in whole.splitlines():
                self._take(path, from_line(line), header)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+" if path.exists() else "w", encoding="utf-8")
            self._file.truncate(len(whole.encode()))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write the table {str(path)!r}: {error.strerror or error}"
            ) from None
        if not whole:
            self._write(to_line(header))

    def append(self, part: RecordedProbe | RecordedRow) -> None:
        """Add a line; it is on disk when this returns."""
        self._put(part)
        self._write(to_line(part))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take(self, path: Path, part: TablePart, header: Header) -> None:
        if not isinstance(part, Header):
            self._put(part)
        elif (differs := _differs(part, header)) is not None:
            raise ConfigurationError(
                f"the table {str(path)!r} was started with {differs}; use the same settings to "
                "continue it, or another file to start again"
            )

    def _put(self, part: RecordedProbe | RecordedRow) -> None:
        place = (part.position, part.before)
        if isinstance(part, RecordedProbe):
            self.probes[place] = part
        else:
            self.rows.setdefault(place, {})[part.action] = part

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class WeightsFolder:
    """Keep trained models in a folder, as long as another training may continue from them.

    Args:
        folder: The folder; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Write plain values and tensors under a name, atomically."""
        temporary = self._path(name).with_suffix(".tmp")
        save_tensors(dict(content), temporary)
        temporary.replace(self._path(name))

    def load(self, name: str) -> dict[str, Any]:
        """Return the saved values.

        Raises:
            ConfigurationError: If the file is missing.
        """
        try:
            content = torch.load(self._path(name), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ConfigurationError(
                f"the weights {str(self._path(name))!r} are missing, and the recording needs "
                "them; restore them, or start again with another file"
            ) from None
        return dict(content)

    def keep(self, names: Collection[str]) -> None:
        """Remove all files but these."""
        paths = {self._path(name) for name in names}
        for path in self._folder.iterdir():
            if path not in paths:
                path.unlink()

    def remove(self) -> None:
        """Remove the folder with its files."""
        shutil.rmtree(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pt"


def _differs(before: Header, now: Header) -> str | None:
    """Name the first setting that differs; the environment does not count."""
    for name in Header.__dataclass_fields__:
        if name != "environment" and getattr(before, name) != getattr(now, name):
            return f"{name}={getattr(before, name)!r}, and it is now {getattr(now, name)!r}"
    return None
