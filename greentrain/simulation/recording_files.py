"""The files of a recording: its lines as they are made, and the weights of its branches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from greentrain.control.action import Action
from greentrain.errors import ConfigurationError
from greentrain.simulation.recorded_table import (
    Header,
    Place,
    RecordedLook,
    RecordedRow,
    from_line,
    to_line,
)


class TableFile:
    """Append to a table, line by line; one that was broken off is gone on with.

    Args:
        path: The file.
        header: What the table is of.

    Attributes:
        looks: What is in the file already, and what was appended.
        rows: Likewise, by place and action.

    Raises:
        ConfigurationError: If the file is no table, one of something else, or cannot be written.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.looks: dict[Place, RecordedLook] = {}
        self.rows: dict[Place, dict[Action, RecordedRow]] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]  # a line that was broken off is made anew
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

    def append(self, part: RecordedLook | RecordedRow) -> None:
        """Add a line, which is on the disk when this returns."""
        self._put(part)
        self._write(to_line(part))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take(self, path: Path, part: Header | RecordedLook | RecordedRow, header: Header) -> None:
        if not isinstance(part, Header):
            self._put(part)
        elif (differs := _differs(part, header)) is not None:
            raise ConfigurationError(
                f"the table {str(path)!r} was begun with {differs}; give the same to go on with "
                "it, or another file to begin anew"
            )

    def _put(self, part: RecordedLook | RecordedRow) -> None:
        place = (part.position, part.before)
        if isinstance(part, RecordedLook):
            self.looks[place] = part
        else:
            self.rows.setdefault(place, {})[part.action] = part

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Branches:
    """Keep what was trained in files of a folder, as long as a branch may start from it.

    Args:
        folder: The folder; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Write plain values and tensors under a name, whole or not at all."""
        beside = self._path(name).with_suffix(".tmp")
        torch.save(dict(content), beside)
        beside.replace(self._path(name))

    def load(self, name: str) -> dict[str, Any]:
        """Return what was saved.

        Raises:
            ConfigurationError: If it is not there.
        """
        try:
            content = torch.load(self._path(name), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ConfigurationError(
                f"the weights {str(self._path(name))!r} are missing, without which the recording "
                "cannot go on; bring them back, or begin anew with another file"
            ) from None
        return dict(content)

    def keep(self, names: Collection[str]) -> None:
        """Remove all others."""
        paths = {self._path(name) for name in names}
        for path in self._folder.iterdir():
            if path not in paths:
                path.unlink()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pt"


def _differs(before: Header, now: Header) -> str | None:
    """Name the first setting that is not the same; another machine or version is none."""
    for name in Header.__dataclass_fields__:
        if name != "environment" and getattr(before, name) != getattr(now, name):
            return f"{name}={getattr(before, name)!r}, and it is {getattr(now, name)!r} now"
    return None
