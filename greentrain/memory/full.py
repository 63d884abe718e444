"""A buffer that keeps everything, and the format in which samples are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.memory.bounded import sample_positions
from greentrain.memory.datasets import (
    BatchedConcatDataset,
    ColumnDataset,
    SampleList,
    column_runs,
    concat,
    fetch,
    size,
)
from greentrain.memory.layout import from_text, layout_of, to_text
from greentrain.memory.protocol import Sample
from greentrain.memory.sample_log import Place, SampleLog
from greentrain.units import whole_seed

_BLOCK = 64
"""Experiences that are joined once, so that joining all does not take longer and longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    origins: tuple[str, ...]
    dataset: Dataset[Sample]


class FullBuffer:
    """Keep all samples by reference; nothing is copied.

    With a folder, each experience is also appended to one file there, and a state names only the
    last of them. Each is tied to the one before it by its hash, so a changed file is refused.
    Without a folder, a state contains all samples. Samples may differ in shape from each other.

    Args:
        folder: Folder of the file that each experience is appended to.
        appends: Whether this buffer writes the file. Of several processes with one folder, a single
            one may; the others read what was saved, and keep later samples by reference.
        seed: Seed of :meth:`sample`.

    Raises:
        ConfigurationError: If the seed is no whole number, 0 or more.
    """

    def __init__(
        self, *, folder: str | Path | None = None, appends: bool = True, seed: int = 0
    ) -> None:
        self._appends = appends
        self._log = None if folder is None else SampleLog(Path(folder))
        self._last: Place | None = None
        self._seed = whole_seed(seed)
        self._n_sampled = 0
        self._blocks: list[_Part] = []
        self._newest: list[_Part] = []
        self._size = 0

    @property
    def max_size(self) -> None:
        """Always ``None``: there is no limit."""
        return None

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Keep all of the data.

        Raises:
            ConfigurationError: If the data has to be written and a sample cannot be. The buffer
                is unchanged then.
            OSError: If the data has to be written and the disk does not take it. The buffer is
                unchanged then.
        """
        if size(dataset):
            if self._log is not None and self._appends:
                self._last = self._log.append(origin, pack(dataset), self._last)
            self._put(dataset, origin)

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return the content after an :meth:`add`, without changing anything.

        Raises:
            ConfigurationError: If the data has to be written and its first sample cannot be.
        """
        if self._log is not None and size(dataset):
            layout_of(fetch(dataset, [0])[0])
        return concat([*(part.dataset for part in self._all()), dataset])

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return the samples whose origin ``keep`` accepts."""
        chosen: list[Dataset[Sample]] = []
        for part in self._all():
            kept = [*map(keep, part.origins)]
            if all(kept):
                chosen.append(part.dataset)
            elif any(kept) and isinstance(part.dataset, ConcatDataset):
                each = zip(part.dataset.datasets, kept, strict=True)
                chosen += [dataset for dataset, wanted in each if wanted]
        return concat(chosen)

    def sample(self, n: int) -> list[Sample]:
        """Return up to ``n`` different samples, chosen uniformly."""
        chosen = sample_positions(len(self), n, [self._seed, self._n_sampled])
        self._n_sampled += 1
        return fetch(self._whole(), chosen) if chosen else []

    @property
    def nbytes(self) -> int | None:
        """Bytes of the tensors, where all datasets are tensor datasets or parts of them."""
        return _known_sum(_dataset_bytes(part.dataset) for part in self._all())

    def __len__(self) -> int:
        return self._size

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the last experience in the file or, without a folder, the samples.

        Raises:
            ConfigurationError: If a sample cannot be saved.
        """
        state = {"kind": "FullBuffer", "seed": self._seed, "n_sampled": self._n_sampled}
        if self._log is not None:
            return {**state, "last": None if self._last is None else self._last.as_list()}
        parts = [
            {"origin": origin, "runs": pack(dataset)}
            for part in self._all()
            for origin, dataset in _separate(part)
        ]
        return {**state, "parts": parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; samples are read when they are used.

        Raises:
            ConfigurationError: If the state is of another kind of buffer, or its file is missing
                or was changed. The buffer is unchanged then.
        """
        if state.get("kind") != "FullBuffer":
            raise ConfigurationError(
                f"the state is of a {state.get('kind')!r}, and this buffer is a FullBuffer"
            )
        last: Place | None = None
        loaded: list[tuple[str, Dataset[Sample]]] = []
        if "parts" in state:
            for part in state["parts"]:
                if self._log is not None:
                    last = self._log.append(part["origin"], part["runs"], last)
                loaded.append((part["origin"], unpack(part["runs"])))
        elif state["last"] is not None:
            if self._log is None:
                raise ConfigurationError(
                    "the samples of this state are in a file; give the buffer its folder"
                )
            last = Place.from_list(state["last"])
            loaded = [(each.origin, unpack(each.runs)) for each in self._log.read(last)]
        self._blocks, self._newest, self._size, self._last = [], [], 0, last
        for origin, dataset in loaded:
            self._put(dataset, origin)
        self._seed, self._n_sampled = state["seed"], state["n_sampled"]

    def _put(self, dataset: Dataset[Sample], origin: str) -> None:
        self._size += size(dataset)
        self._newest.append(_Part(origins=(origin,), dataset=dataset))
        if len(self._newest) == _BLOCK:
            origins = tuple(part.origins[0] for part in self._newest)
            joined = BatchedConcatDataset([part.dataset for part in self._newest])
            self._blocks.append(_Part(origins=origins, dataset=joined))
            self._newest = []

    def _all(self) -> list[_Part]:
        return [*self._blocks, *self._newest]

    def _whole(self) -> Dataset[Sample]:
        return concat([part.dataset for part in self._all()])


def _separate(part: _Part) -> list[tuple[str, Dataset[Sample]]]:
    """Return the experiences of a part with their data."""
    if len(part.origins) > 1 and isinstance(part.dataset, ConcatDataset):
        return list(zip(part.origins, part.dataset.datasets, strict=True))
    return [(part.origins[0], part.dataset)]


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


def owned(dataset: Dataset[Sample]) -> Dataset[Sample]:
    """Return samples that share no memory with their dataset, where they can be copied."""
    try:
        return unpack(pack(dataset))
    except ConfigurationError:  # samples of a kind that only the dataset can make
        return SampleList(fetch(dataset, range(size(dataset))))


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
