"""Storage of a bounded buffer's samples: numbered slots in RAM or in memory-mapped files."""

from __future__ import annotations

import os
import secrets
import weakref
from pathlib import Path
from typing import IO, Any

import torch

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import ColumnDataset, map_file
from greentrain.memory.layout import Column, Layout, widths

_EMPTY: Layout = ("tuple", (), ())


class SlotStorage:
    """Rows of columns, each of which is overwritten only when nothing refers to it.

    A slot is in use in three cases: the buffer stores its sample, a dataset that was returned
    shows it, or, on disk, the last state names it. A process that is killed between two states
    so leaves everything that the earlier state names.

    On disk each column is a file of rows. Each storage has a new folder, so files of earlier runs
    are not overwritten either.

    Args:
        folder: Folder of the files; ``None`` keeps everything in RAM.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._name = secrets.token_hex(6)
        self._layout = _EMPTY
        self._columns: list[Column] = []
        self._capacity = 0
        self._saved = torch.zeros(0, dtype=torch.int64)
        self._shown: weakref.WeakSet[ColumnDataset] = weakref.WeakSet()

    @classmethod
    def from_state(
        cls, state: dict[str, Any], layout: Layout | None, folder: Path | None
    ) -> tuple[SlotStorage, torch.Tensor]:
        """Return the storage that :meth:`state_dict` describes, and the slots of its samples.

        The layout is ``None`` for a buffer without samples.

        Raises:
            ConfigurationError: If files that the state names are missing.
        """
        storage = cls(folder)
        if layout is None:
            return storage, torch.zeros(0, dtype=torch.int64)
        if "columns" in state:
            rows = ColumnDataset(layout, state["columns"], torch.arange(state["size"]))
            nothing = torch.zeros(0, dtype=torch.int64)
            return storage, storage.write(rows, nothing, state["size"])
        if folder is None:
            raise ConfigurationError(
                f"the samples of this state are in {state['folder']!r}; give the buffer its folder"
            )
        slots = state["slots"].clone()
        if not state["capacity"]:
            return storage, slots
        storage._name, storage._layout, storage._saved = state["name"], layout, slots.clone()
        for number, width in enumerate(widths(layout)):
            path = storage._path(number)
            if width and (not path.exists() or path.stat().st_size < width * state["capacity"]):
                raise ConfigurationError(
                    f"the state's samples cannot be loaded: {path} is missing or cut short"
                )
        storage._grow(state["capacity"])
        storage._put(slots, {int(key): text for key, text in state["texts"].items()})
        return storage, slots

    def write(self, rows: ColumnDataset, kept: torch.Tensor, limit: int) -> torch.Tensor:
        """Write samples to free slots, and return these slots.

        Args:
            rows: The samples, of the same layout as earlier ones.
            kept: Slots of the samples that stay in the buffer.
            limit: Most samples of the buffer.
        """
        n = len(rows)
        if not n:
            return torch.zeros(0, dtype=torch.int64)
        self._layout = rows.layout
        free = self._free(kept)
        if len(free) < n:
            needed = self._capacity + n - len(free)
            # Doubled, so that samples that arrive one by one are not copied each time.
            self._grow(max(needed, min(2 * self._capacity, limit)))
            free = self._free(kept)
        self._put(free[:n], dict(enumerate(rows.copied(range(n)))))
        return free[:n]

    def rows(self, slots: torch.Tensor) -> ColumnDataset:
        """Return the samples in some slots; they are not overwritten while this is in use."""
        files = {
            number: self._path(number).absolute()
            for number, width in enumerate(widths(self._layout))
            if width and self._folder is not None and self._columns
        }
        shown = ColumnDataset(self._layout, list(self._columns), slots, files=files)
        self._shown.add(shown)
        return shown

    def state_dict(self, slots: torch.Tensor) -> dict[str, Any]:
        """Return the samples in some slots, or their place on disk."""
        columns = self.rows(slots).copied(range(len(slots)))
        if self._folder is None:
            return {"size": len(slots), "columns": columns}
        for number, width in enumerate(widths(self._layout)):
            if width:
                flush_to_disk(self._path(number))
        self._saved = slots.clone()
        texts = {
            str(number): column
            for number, column in enumerate(columns)
            if not isinstance(column, torch.Tensor)
        }
        place = {"folder": str(self._folder), "name": self._name, "capacity": self._capacity}
        return {"size": len(slots), "slots": slots.clone(), "texts": texts, **place}

    def _free(self, kept: torch.Tensor) -> torch.Tensor:
        free = torch.ones(self._capacity, dtype=torch.bool)
        for used in (kept, self._saved, *(shown.rows for shown in self._shown)):
            free[used] = False
        return free.nonzero().flatten()

    def _grow(self, capacity: int) -> None:
        self._columns = [
            self._column(number, width, capacity, self._columns[number] if self._columns else None)
            for number, width in enumerate(widths(self._layout))
        ]
        self._capacity = capacity

    def _column(self, number: int, width: int | None, capacity: int, old: Column | None) -> Column:
        if width is None:
            texts = [] if old is None else list(old)
            return [*texts, *[""] * (capacity - len(texts))]
        if self._folder is not None and width:
            path = self._path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            _reserve(path, capacity * width)
            return map_file(path, capacity, width)  # its content stays
        column = torch.zeros(capacity, width, dtype=torch.uint8)
        if isinstance(old, torch.Tensor):
            column[: len(old)] = old
        return column

    def _put(self, slots: torch.Tensor, columns: dict[int, Column]) -> None:
        for number, values in columns.items():
            column = self._columns[number]
            if isinstance(column, torch.Tensor):
                column[slots] = values  # type: ignore[assignment]
            else:
                for slot, text in zip(slots.tolist(), values, strict=True):
                    column[slot] = text

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / self._name / f"{number}.bin"


def save_tensors(content: Any, file: IO[bytes] | Path) -> None:
    """Write plain values and tensors with ``torch.save``.

    Raises:
        OSError: If the disk is full or fails, which torch reports as a ``RuntimeError``.
    """
    try:
        torch.save(content, file)
    except RuntimeError as error:
        raise OSError(f"the disk did not take all of it ({error})") from error


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or on POSIX the entries of a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reserve(path: Path, nbytes: int) -> None:
    # A full disk raises an error here; later, in mapped memory, a signal would kill the process.
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, nbytes)
