"""A buffer that keeps everything."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.memory.bounded import check_seed, choose
from greentrain.memory.datasets import Rows, concat, fetch, size, tensor_rows
from greentrain.memory.layout import encode, from_text, layout_of, to_text
from greentrain.memory.protocol import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    origin: str
    dataset: Dataset[Sample]
    file: str | None


class FullBuffer:
    """Keep everything, by reference: nothing is copied.

    With a folder each experience is also written there, once, and a state only names the files.
    Without one a state carries all samples. Samples may differ in shape from each other.

    Args:
        folder: Where each experience is written, in a file of its own.
        seed: Seed of :meth:`sample`.

    Raises:
        ConfigurationError: If the seed is no whole number, 0 or more.
    """

    def __init__(self, *, folder: str | Path | None = None, seed: int = 0) -> None:
        check_seed(seed)
        self._folder = None if folder is None else Path(folder)
        self._seed = seed
        self._draws = 0
        self._parts: list[_Part] = []

    @property
    def max_size(self) -> None:
        """There is no limit."""
        return None

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Keep all of the data.

        Raises:
            ConfigurationError: If it is to be written and a sample holds what cannot be; nothing
                has changed then.
        """
        if size(dataset):
            file = None if self._folder is None else _write(self._folder, pack(dataset))
            self._parts.append(_Part(origin=origin, dataset=dataset, file=file))

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return all that would be held with the data.

        Raises:
            ConfigurationError: If it is to be written and its first sample holds what cannot be.
        """
        if self._folder is not None and size(dataset):
            layout_of(fetch(dataset, [0])[0])
        return concat([*(part.dataset for part in self._parts), dataset])

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return the samples whose origin ``keep`` accepts."""
        return concat([part.dataset for part in self._parts if keep(part.origin)])

    def sample(self, n: int) -> list[Sample]:
        """Draw up to ``n`` different samples uniformly."""
        chosen = choose(len(self), n, [self._seed, self._draws])
        self._draws += 1
        return fetch(self.select(lambda origin: True), chosen) if chosen else []

    @property
    def nbytes(self) -> int | None:
        """Bytes of the tensors, where all datasets are tensor datasets or parts of them."""
        sizes = [_dataset_bytes(part.dataset) for part in self._parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def __len__(self) -> int:
        return sum(size(part.dataset) for part in self._parts)

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the files or, without a folder, the samples.

        Raises:
            ConfigurationError: If a sample holds what cannot be saved.
        """
        parts = [
            {"origin": part.origin, "runs": pack(part.dataset)}
            if part.file is None
            else {"origin": part.origin, "file": part.file}
            for part in self._parts
        ]
        return {"kind": "FullBuffer", "seed": self._seed, "draws": self._draws, "parts": parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned; files are read when they are used.

        Raises:
            ConfigurationError: If the state is of another kind of buffer, or a file is missing;
                nothing has changed then.
        """
        if state.get("kind") != "FullBuffer":
            raise ConfigurationError(
                f"the state is of a {state.get('kind')!r}, and this buffer is a FullBuffer"
            )
        self._parts = [self._brought(part) for part in state["parts"]]
        self._seed, self._draws = state["seed"], state["draws"]

    def _brought(self, part: dict[str, Any]) -> _Part:
        file = part.get("file")
        if file is None:
            runs = part["runs"]
            file = None if self._folder is None else _write(self._folder, runs)
        elif self._folder is None or not (self._folder / file).exists():
            raise ConfigurationError(
                f"the state names the file {file!r}, which is not in the folder {self._folder}"
            )
        else:
            runs = torch.load(self._folder / file, weights_only=True, mmap=True)
        return _Part(origin=part["origin"], dataset=unpack(runs), file=file)


def pack(dataset: Dataset[Sample]) -> list[dict[str, Any]]:
    """Write samples as runs of one layout each, which load with ``weights_only=True``.

    Raises:
        ConfigurationError: If a sample holds what cannot be saved.
    """
    everything = range(size(dataset))
    whole = tensor_rows(dataset, everything)
    if whole is not None:
        return [_run(whole)]
    runs = []
    for layout, group in groupby(fetch(dataset, everything), key=layout_of):
        samples = list(group)
        runs.append(_run(Rows(layout, encode(layout, samples), torch.arange(len(samples)))))
    return runs


def owned(dataset: Dataset[Sample]) -> list[Sample]:
    """Return samples that share no memory with their dataset, as far as they can be copied."""
    everything = range(size(dataset))
    try:
        return fetch(unpack(pack(dataset)), everything) if everything else []
    except ConfigurationError:  # of a kind that only the dataset knows
        return fetch(dataset, everything)


def unpack(runs: list[dict[str, Any]]) -> Dataset[Sample]:
    """Return the samples that :func:`pack` wrote."""
    return concat(
        [Rows(from_text(run["layout"]), run["columns"], torch.arange(run["size"])) for run in runs]
    )


def _run(rows: Rows) -> dict[str, Any]:
    return {"layout": to_text(rows.layout), "size": len(rows), "columns": list(rows.columns)}


def _write(folder: Path, runs: list[dict[str, Any]]) -> str:
    """Write a file whole or not at all, and name it after what is in it.

    So what is written again, after a kill, is the same file, and no other one is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            torch.save(runs, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        part.replace(folder / f"{digest}.pt")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    return f"{digest}.pt"


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _dataset_bytes(dataset: Dataset[Sample]) -> int | None:
    if isinstance(dataset, Rows):
        return dataset.nbytes
    if isinstance(dataset, ConcatDataset):
        parts = [_dataset_bytes(part) for part in dataset.datasets]
        return None if None in parts else sum(part for part in parts if part is not None)
    if isinstance(dataset, Subset):
        whole = _dataset_bytes(dataset.dataset)
        return None if whole is None else whole * size(dataset) // max(1, size(dataset.dataset))
    tensors = getattr(dataset, "tensors", None)
    return None if tensors is None else sum(tensor.nbytes for tensor in tensors)
