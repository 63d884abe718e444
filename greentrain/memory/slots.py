"""Where a bounded buffer's samples lie: numbered slots, in RAM or in files mapped into memory."""

from __future__ import annotations

import os
import secrets
import weakref
from pathlib import Path
from typing import Any

import torch

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import Rows
from greentrain.memory.layout import Column, Layout, widths

_EMPTY: Layout = ("tuple", (), ())


class Slots:
    """Rows of columns that are written once, and written again only when nothing refers to them.

    A slot is in use while the buffer holds its sample, while a dataset that was handed out shows
    it and, on disk, while the last state names it. So a process that is killed between two states
    leaves all that the earlier one names.

    On disk each column is a file of rows, in a folder of a new name, so that nothing that an
    earlier run's state names is overwritten either.

    Args:
        folder: Where files go; ``None`` keeps everything in RAM.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._name = secrets.token_hex(6)
        self._layout = _EMPTY
        self._columns: list[Column] = []
        self._capacity = 0
        self._saved = torch.zeros(0, dtype=torch.int64)
        self._lent: weakref.WeakSet[Rows] = weakref.WeakSet()

    @classmethod
    def opened(
        cls, state: dict[str, Any], layout: Layout, folder: Path | None
    ) -> tuple[Slots, torch.Tensor]:
        """Return what :meth:`state_dict` told of, and in which slots the samples are.

        Raises:
            ConfigurationError: If files that the state names are not there.
        """
        slots = cls(folder)
        if "columns" in state:
            held = torch.arange(state["size"])
            brought = Rows(layout, state["columns"], held)
            return slots, slots.write(brought, torch.zeros(0, dtype=torch.int64), state["size"])
        if folder is None:
            raise ConfigurationError(
                f"the samples of this state lie in {state['folder']!r}; give the buffer its folder"
            )
        if not state["capacity"]:
            return slots, state["slots"].clone()
        slots._name, slots._layout, slots._saved = state["name"], layout, state["slots"].clone()
        for number, width in enumerate(widths(layout)):
            path = slots._path(number)
            if width and (not path.exists() or path.stat().st_size < width * state["capacity"]):
                raise ConfigurationError(f"the state's samples are not there: {path} is missing")
        slots._grow(state["capacity"])
        slots._put(state["slots"], {int(key): text for key, text in state["texts"].items()})
        return slots, state["slots"].clone()

    def write(self, rows: Rows, held: torch.Tensor, most: int) -> torch.Tensor:
        """Put samples into free slots, and return which.

        Args:
            rows: The samples, of the layout of those before them.
            held: Slots that the buffer goes on holding.
            most: Samples that it may hold.
        """
        n = len(rows)
        if not n:
            return torch.zeros(0, dtype=torch.int64)
        self._layout = rows.layout
        free = self._free(held)
        if len(free) < n:
            needed = self._capacity + n - len(free)
            # Doubled, so that samples which come one by one are not copied each time.
            self._grow(max(needed, min(2 * self._capacity, most)))
            free = self._free(held)
        self._put(free[:n], dict(enumerate(rows.taken(range(n)))))
        return free[:n]

    def rows(self, slots: torch.Tensor) -> Rows:
        """Return the samples in some slots; they stay as long as this is referred to."""
        shown = Rows(self._layout, list(self._columns), slots)
        self._lent.add(shown)
        return shown

    def state_dict(self, held: torch.Tensor) -> dict[str, Any]:
        """Return the held samples, or where on disk they are."""
        columns = self.rows(held).taken(range(len(held)))
        if self._folder is None:
            return {"size": len(held), "columns": columns}
        for number, width in enumerate(widths(self._layout)):
            if width:
                _sync(self._path(number))
        self._saved = held.clone()
        texts = {
            str(number): column
            for number, column in enumerate(columns)
            if not isinstance(column, torch.Tensor)
        }
        place = {"folder": str(self._folder), "name": self._name, "capacity": self._capacity}
        return {"size": len(held), "slots": held.clone(), "texts": texts, **place}

    def _free(self, held: torch.Tensor) -> torch.Tensor:
        free = torch.ones(self._capacity, dtype=torch.bool)
        for used in (held, self._saved, *(shown.rows for shown in self._lent)):
            free[used] = False
        return free.nonzero().flatten()

    def _grow(self, capacity: int) -> None:
        for number, width in enumerate(widths(self._layout)):
            old = self._columns[number] if number < len(self._columns) else None
            grown = self._column(number, width, capacity, old)
            self._columns[number : number + 1] = [grown]
        self._capacity = capacity

    def _column(self, number: int, width: int | None, capacity: int, old: Column | None) -> Column:
        if width is None:
            texts = [] if old is None else list(old)
            return [*texts, *[""] * (capacity - len(texts))]
        if self._folder is not None and width:
            path = self._path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            nbytes = capacity * width
            _reserve(path, nbytes)
            # Mapped as shared: what is in the file stays, and what is written goes there.
            mapped = torch.from_file(str(path), shared=True, size=nbytes, dtype=torch.uint8)
            return mapped.view(capacity, width)
        column = torch.zeros(capacity, width, dtype=torch.uint8)
        if isinstance(old, torch.Tensor):
            column[: len(old)] = old
        return column

    def _put(self, slots: torch.Tensor, columns: dict[int, Column]) -> None:
        for number, values in columns.items():
            mine = self._columns[number]
            if isinstance(mine, torch.Tensor):
                mine[slots] = values  # type: ignore[assignment]
            else:
                for slot, text in zip(slots.tolist(), values, strict=True):
                    mine[slot] = text

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / self._name / f"{number}.bin"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reserve(path: Path, nbytes: int) -> None:
    # A full disk is an error here; in the mapped memory it would be a signal that kills.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, nbytes)
    finally:
        os.close(descriptor)
