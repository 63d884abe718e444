"""Storage of a bounded buffer's samples: numbered slots in RAM or in memory-mapped files."""

from __future__ import annotations

import os
import re
import secrets
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import ColumnDataset, map_file
from greentrain.memory.disk_files import flush_to_disk, open_own
from greentrain.memory.layout import Column, Layout, widths

_EMPTY: Layout = ("tuple", (), ())
_NAME = re.compile(r"[0-9a-f]{12}")


class SlotStorage:
    """Rows of columns, each of which is overwritten only when nothing refers to it.

    A slot is in use if the buffer stores its sample, or a dataset that was returned shows it. On
    disk, it is also in use if one of the last two states names it. So both states stay readable,
    also after a kill. A state has a checksum of each of its samples on disk.

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
        self._sums = torch.zeros(0, dtype=torch.int64)
        self._saved = torch.zeros(0, dtype=torch.int64)
        self._saved_before = torch.zeros(0, dtype=torch.int64)
        self._shown: weakref.WeakSet[ColumnDataset] = weakref.WeakSet()

    @classmethod
    def from_state(
        cls, state: dict[str, Any], layout: Layout | None, folder: Path | None
    ) -> tuple[SlotStorage, torch.Tensor]:
        """Return the storage that :meth:`state_dict` describes, and the slots of its samples.

        The layout is ``None`` for a buffer without samples.

        Raises:
            ConfigurationError: If files that the state names are missing or were changed.
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
        if not _NAME.fullmatch(str(state["name"])):
            raise ConfigurationError(
                f"the state names the folder {str(state['name'])!r} of samples, which is none of a "
                "buffer; load a state that greentrain saved"
            )
        storage._name, storage._layout, storage._saved = state["name"], layout, slots.clone()
        storage._saved_before = state["before"].clone()
        for number, width in enumerate(widths(layout)):
            path = storage._path(number)
            if width and not _is_complete(path, width * state["capacity"]):
                raise ConfigurationError(
                    f"the state's samples cannot be loaded: {path} is missing or cut short"
                )
        storage._grow(state["capacity"])
        storage._put(slots, {int(key): text for key, text in state["texts"].items()})
        storage._sums[slots] = state["sums"]
        if not torch.equal(storage._checksums(slots), state["sums"]):
            raise ConfigurationError(
                f"the state's samples cannot be loaded: a file in {folder / state['name']} was "
                "changed; restore the folder from a copy, or start again with a new one"
            )
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
        if self._folder is not None:
            self._sums[free[:n]] = self._checksums(free[:n])
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
        if self._folder is None:
            columns = self.rows(slots).copied(range(len(slots)))
            return {"size": len(slots), "columns": columns}
        for number, width in enumerate(widths(self._layout)):
            if width:
                flush_to_disk(self._path(number))
        self._saved, self._saved_before = slots.clone(), self._saved
        texts = {
            str(number): [column[slot] for slot in slots.tolist()]
            for number, column in enumerate(self._columns)
            if not isinstance(column, torch.Tensor)
        }
        return {
            "size": len(slots),
            "slots": slots.clone(),
            "before": self._saved_before.clone(),
            "sums": self._sums[slots],
            "texts": texts,
            "folder": str(self._folder),
            "name": self._name,
            "capacity": self._capacity,
        }

    def _free(self, kept: torch.Tensor) -> torch.Tensor:
        free = torch.ones(self._capacity, dtype=torch.bool)
        for used in (kept, self._saved, self._saved_before, *(shown.rows for shown in self._shown)):
            free[used] = False
        return free.nonzero().flatten()

    def _grow(self, capacity: int) -> None:
        self._columns = [
            self._column(number, width, capacity, self._columns[number] if self._columns else None)
            for number, width in enumerate(widths(self._layout))
        ]
        sums = torch.zeros(capacity, dtype=torch.int64)
        sums[: self._capacity] = self._sums
        self._capacity, self._sums = capacity, sums

    def _column(self, number: int, width: int | None, capacity: int, old: Column | None) -> Column:
        if width is None:
            texts = [] if old is None else list(old)
            return [*texts, *[""] * (capacity - len(texts))]
        if self._folder is not None and width:
            path = self._path(number)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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

    def _checksums(self, slots: torch.Tensor) -> torch.Tensor:
        """Return the CRC-32 of the bytes in some slots of all columns."""
        sums: Sequence[int] = [0] * len(slots)
        for column in self._columns:
            if isinstance(column, torch.Tensor):
                rows = column[slots].numpy()
                sums = [zlib.crc32(row, before) for row, before in zip(rows, sums, strict=True)]
        return torch.tensor(sums, dtype=torch.int64)

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / self._name / f"{number}.bin"


def _is_complete(path: Path, nbytes: int) -> bool:
    """Return whether a file of this length is there, under its own name and not through a link."""
    links = path.is_symlink() or path.parent.is_symlink()
    return not links and path.is_file() and path.stat().st_size >= nbytes


def _reserve(path: Path, nbytes: int) -> None:
    # A full disk raises an error here; later, in mapped memory, a signal would kill the process.
    with open_own(path) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, nbytes)
