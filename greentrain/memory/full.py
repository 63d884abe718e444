"""A buffer that keeps everything, and the format in which samples are saved."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.memory.bounded import check_seed, sample_positions
from greentrain.memory.datasets import ColumnDataset, column_runs, concat, fetch, size
from greentrain.memory.layout import from_text, layout_of, to_text
from greentrain.memory.protocol import Sample
from greentrain.memory.slot_storage import flush_to_disk, save_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredExperience:
    origin: str
    dataset: Dataset[Sample]
    file: str | None


class FullBuffer:
    """Keep all samples by reference; nothing is copied.

    With a folder, each experience is also written there once, and a state names only the files.
    Without a folder, a state contains all samples. Samples may differ in shape from each other.

    Args:
        folder: Folder to write each experience to, one file each.
        seed: Seed of :meth:`sample`.

    Raises:
        ConfigurationError: If the seed is no whole number, 0 or more.
    """

    def __init__(self, *, folder: str | Path | None = None, seed: int = 0) -> None:
        check_seed(seed)
        self._folder = None if folder is None else Path(folder)
        self._seed = seed
        self._n_sampled = 0
        self._parts: list[_StoredExperience] = []

    @property
    def max_size(self) -> None:
        """Always ``None``: there is no limit."""
        return None

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Keep all of the data.

        Raises:
            ConfigurationError: If the data has to be written and a sample cannot be. The buffer
                is unchanged then.
        """
        if size(dataset):
            file = None if self._folder is None else _write(self._folder, pack(dataset))
            self._parts.append(_StoredExperience(origin=origin, dataset=dataset, file=file))

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return the content after an :meth:`add`, without changing anything.

        Raises:
            ConfigurationError: If the data has to be written and its first sample cannot be.
        """
        if self._folder is not None and size(dataset):
            layout_of(fetch(dataset, [0])[0])
        return concat([*(part.dataset for part in self._parts), dataset])

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return the samples whose origin ``keep`` accepts."""
        return concat([part.dataset for part in self._parts if keep(part.origin)])

    def sample(self, n: int) -> list[Sample]:
        """Return up to ``n`` different samples, chosen uniformly."""
        chosen = sample_positions(len(self), n, [self._seed, self._n_sampled])
        self._n_sampled += 1
        return fetch(self.select(lambda origin: True), chosen) if chosen else []

    @property
    def nbytes(self) -> int | None:
        """Bytes of the tensors, where all datasets are tensor datasets or parts of them."""
        return _known_sum(_dataset_bytes(part.dataset) for part in self._parts)

    def __len__(self) -> int:
        return sum(size(part.dataset) for part in self._parts)

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the files or, without a folder, the samples.

        Raises:
            ConfigurationError: If a sample cannot be saved.
        """
        parts = [
            {"origin": part.origin, "runs": pack(part.dataset)}
            if part.file is None
            else {"origin": part.origin, "file": part.file}
            for part in self._parts
        ]
        return {
            "kind": "FullBuffer",
            "seed": self._seed,
            "n_sampled": self._n_sampled,
            "parts": parts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; files are read when they are used.

        Raises:
            ConfigurationError: If the state is of another kind of buffer, or a file is missing.
                The buffer is unchanged then.
        """
        if state.get("kind") != "FullBuffer":
            raise ConfigurationError(
                f"the state is of a {state.get('kind')!r}, and this buffer is a FullBuffer"
            )
        self._parts = [self._loaded(part) for part in state["parts"]]
        self._seed, self._n_sampled = state["seed"], state["n_sampled"]

    def _loaded(self, part: dict[str, Any]) -> _StoredExperience:
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
        return _StoredExperience(origin=part["origin"], dataset=unpack(runs), file=file)


def pack(dataset: Dataset[Sample]) -> list[dict[str, Any]]:
    """Convert samples to runs of one layout each, which load with ``weights_only=True``.

    Raises:
        ConfigurationError: If a sample cannot be saved.
    """
    return [
        {"layout": to_text(run.layout), "size": len(run), "columns": list(run.columns)}
        for run in column_runs(dataset, range(size(dataset)))
    ]


def unpack(runs: list[dict[str, Any]]) -> Dataset[Sample]:
    """Return the samples that :func:`pack` converted."""
    return concat(
        [
            ColumnDataset(from_text(run["layout"]), run["columns"], torch.arange(run["size"]))
            for run in runs
        ]
    )


def owned(dataset: Dataset[Sample]) -> list[Sample]:
    """Return samples that share no memory with their dataset, where they can be copied."""
    indices = range(size(dataset))
    try:
        return fetch(unpack(pack(dataset)), indices) if indices else []
    except ConfigurationError:  # samples of a kind that only the dataset can make
        return fetch(dataset, indices)


def _write(folder: Path, runs: list[dict[str, Any]]) -> str:
    """Write a file atomically, and return its name, which is a hash of its content.

    Writing the same again after a kill gives the same file, and no other file is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            save_tensors(runs, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        temporary.replace(folder / f"{digest}.pt")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_to_disk(folder)
    return f"{digest}.pt"


def _dataset_bytes(dataset: Dataset[Sample]) -> int | None:
    if isinstance(dataset, ColumnDataset):
        return dataset.nbytes
    if isinstance(dataset, ConcatDataset):
        return _known_sum(map(_dataset_bytes, dataset.datasets))
    if isinstance(dataset, Subset):
        whole = _dataset_bytes(dataset.dataset)
        return None if whole is None else whole * size(dataset) // max(1, size(dataset.dataset))
    tensors = getattr(dataset, "tensors", None)
    return None if tensors is None else sum(tensor.nbytes for tensor in tensors)


def _known_sum(parts: Iterable[int | None]) -> int | None:
    total = 0
    for part in parts:
        if part is None:
            return None
        total += part
    return total
