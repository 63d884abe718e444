"""Map-style datasets: joined, measured, and read many samples at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory.disk_files import map_bytes
from greentrain.memory.layout import (
    Column,
    Layout,
    as_bytes,
    decode,
    encode,
    format_layout,
    layout_of,
    sample_bytes,
)
from greentrain.memory.protocol import Sample


class SampleList(Dataset[Sample]):
    """A list of samples as a map-style dataset."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class ColumnDataset(Dataset[Sample]):
    """Samples of one layout, stored as rows of columns.

    Args:
        layout: Structure of a sample.
        columns: One column for each leaf of the layout.
        rows: Row of each sample in the columns, in order.
        files: Files that columns are mapped from, by the number of the column. A worker process
            that is started by spawn or forkserver maps them again.
    """

    def __init__(
        self,
        layout: Layout,
        columns: Sequence[Column],
        rows: torch.Tensor,
        *,
        files: Mapping[int, Path] | None = None,
    ) -> None:
        self.layout = layout
        self.columns = columns
        self.rows = rows
        self.files = files or {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return samples that share no memory with the columns."""
        return decode(self.layout, self.copied(indices), len(indices))

    def copied(self, indices: Sequence[int]) -> list[Column]:
        """Return copies of some rows of the columns."""
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64)]
        return [
            column[rows]
            if isinstance(column, torch.Tensor)
            else [column[row] for row in rows.tolist()]
            for column in self.columns
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of the samples' tensors and arrays."""
        return len(self) * sample_bytes(self.layout)


def map_file(path: Path, rows: int, width: int) -> torch.Tensor:
    """Map a file as a column of bytes ``(rows, width)``; writes go to the file.

    Raises:
        OSError: If the system cannot open or map it.
    """
    return map_bytes(path, rows * width, writes=True).view(rows, width)


def _for_worker(dataset: ColumnDataset) -> tuple[Any, ...]:
    """Return what another process needs to build a dataset again."""
    columns: list[Any] = list(dataset.columns)
    for number, path in dataset.files.items():
        columns[number] = (path, *dataset.columns[number].shape)  # type: ignore[union-attr]
    return _in_worker, (type(dataset), dataset.layout, columns, dataset.rows, dataset.files)


def _in_worker(
    kind: type[ColumnDataset],
    layout: Layout,
    columns: list[Any],
    rows: torch.Tensor,
    files: Mapping[int, Path],
) -> ColumnDataset:
    for number in files:
        columns[number] = map_file(*columns[number])
    return kind(layout, columns, rows, files=files)


# The descriptor of a mapped file exists in its own process only.
ForkingPickler.register(ColumnDataset, _for_worker)


class BatchedConcatDataset(ConcatDataset[Sample]):
    """Datasets one after another, each of which is read once for a batch."""

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return the samples at some indices."""
        samples: list[Sample] = [None] * len(indices)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, index in enumerate(indices):
            part = bisect_right(self.cumulative_sizes, index)
            start = self.cumulative_sizes[part - 1] if part else 0
            wanted.setdefault(part, []).append((place, index - start))
        for part, pairs in wanted.items():
            read = fetch(self.datasets[part], [index for _, index in pairs])
            for (place, _), sample in zip(pairs, read, strict=True):
                samples[place] = sample
        return samples


def concat(datasets: Sequence[Dataset[Sample]]) -> Dataset[Sample]:
    """Join map-style datasets, some or all of which may be empty."""
    filled = [dataset for dataset in datasets if size(dataset)]
    if len(filled) == 1:
        return filled[0]
    return BatchedConcatDataset(filled) if filled else SampleList([])


def size(dataset: Dataset[Sample]) -> int:
    """Return the number of samples of a map-style dataset."""
    return len(dataset)  # type: ignore[arg-type]


def fetch(dataset: Dataset[Sample], indices: Sequence[int]) -> list[Sample]:
    """Read some samples, all at once where the dataset can do so."""
    if type(dataset) is TensorDataset:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return list(zip(*(part[chosen].unbind(0) for part in dataset.tensors), strict=True))
    many = getattr(dataset, "__getitems__", None)
    return list(many(indices)) if many else [dataset[index] for index in indices]


def item_column(dataset: Dataset[Sample], item: int) -> torch.Tensor | None:
    """Return one item of all samples of tensor datasets, and of subsets and joins of them.

    Returns:
        ``None`` for other datasets. A subclass may change its samples, so it counts as another.
    """
    if type(dataset) is TensorDataset and item < len(dataset.tensors):
        return dataset.tensors[item]
    if type(dataset) is Subset:
        whole = item_column(dataset.dataset, item)
        return None if whole is None else whole[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, ConcatDataset) and type(dataset) in (
        ConcatDataset,
        BatchedConcatDataset,
    ):
        parts = [item_column(part, item) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    return None


def item_columns(dataset: Dataset[Sample]) -> list[torch.Tensor] | None:
    """Return all items of all samples of tensor datasets: see :func:`item_column`."""
    columns: list[torch.Tensor] = []
    while (column := item_column(dataset, len(columns))) is not None:
        columns.append(column)
    return columns or None


def gather(dataset: Dataset[Sample], indices: Sequence[int], layout: Layout) -> ColumnDataset:
    """Copy some samples into columns.

    Args:
        dataset: A map-style dataset.
        indices: Positions of the samples.
        layout: Structure that each sample must have.

    Raises:
        ConfigurationError: If a sample has another structure, or contains what cannot be stored.
    """
    runs = column_runs(dataset, indices)
    for run in runs:
        check_layout(run.layout, layout)
    return runs[0] if runs else ColumnDataset(layout, [], torch.arange(0))


def column_runs(dataset: Dataset[Sample], indices: Sequence[int]) -> list[ColumnDataset]:
    """Copy some samples into columns, separately for each run of samples with the same layout.

    Tensor datasets and columns are copied in one step, and so are subsets and joins of them.

    Raises:
        ConfigurationError: If a sample contains what cannot be stored.
    """
    if not len(indices):
        return []
    while type(dataset) is Subset:
        places: Any = dataset.indices
        dataset, indices = dataset.dataset, [places[index] for index in indices]
    if type(dataset) is TensorDataset:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        tensors = [tensor.detach()[chosen].cpu() for tensor in dataset.tensors]
        layout: Layout = ("tuple", tuple(layout_of(tensor[0]) for tensor in tensors), ())
        return [ColumnDataset(layout, list(map(as_bytes, tensors)), torch.arange(len(chosen)))]
    if type(dataset) is ColumnDataset:
        columns = dataset.copied(indices)
        return [ColumnDataset(dataset.layout, columns, torch.arange(len(indices)))]
    if type(dataset) is BatchedConcatDataset:
        parts = _by_part(dataset, indices)
        return _joined([run for part, places in parts for run in column_runs(part, places)])
    runs = []
    for layout, group in groupby(fetch(dataset, indices), key=layout_of):
        samples = list(group)
        runs.append(ColumnDataset(layout, encode(layout, samples), torch.arange(len(samples))))
    return runs


def _by_part(
    dataset: BatchedConcatDataset, indices: Sequence[int]
) -> Iterator[tuple[Dataset[Sample], list[int]]]:
    """Yield parts of a join, each with positions in it that follow each other in ``indices``."""
    ends = dataset.cumulative_sizes
    for part, group in groupby(indices, key=lambda index: bisect_right(ends, index)):
        start = ends[part - 1] if part else 0
        yield dataset.datasets[part], [index - start for index in group]


def _joined(runs: Sequence[ColumnDataset]) -> list[ColumnDataset]:
    """Join neighbouring runs of the same layout, whose rows are all in order."""
    joined = []
    for layout, group in groupby(runs, key=lambda run: run.layout):
        same = list(group)
        columns = [
            _one_after_another(parts) for parts in zip(*(run.columns for run in same), strict=True)
        ]
        joined.append(ColumnDataset(layout, columns, torch.arange(sum(map(len, same)))))
    return joined


def _one_after_another(parts: Sequence[Column]) -> Column:
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(cast(list[torch.Tensor], parts))
    return list(chain.from_iterable(parts))


def check_layout(new: Layout, stored: Layout) -> None:
    """Check that new samples have the structure of the stored ones.

    Raises:
        ConfigurationError: If they have another one.
    """
    if new != stored:
        raise ConfigurationError(
            f"a sample is {format_layout(new)} where those before it are {format_layout(stored)}; "
            "samples in one buffer must have the same structure, shapes and dtypes"
        )
