"""Map-style datasets: joined, measured, and read many samples at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory.layout import (
    Column,
    Layout,
    as_bytes,
    decode,
    encode,
    layout_of,
    sample_bytes,
    written,
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


class Rows(Dataset[Sample]):
    """Samples of one layout, as rows of columns.

    Args:
        layout: How a sample is built.
        columns: One for each leaf of the layout.
        rows: Which rows of the columns, and in which order.
    """

    def __init__(self, layout: Layout, columns: Sequence[Column], rows: torch.Tensor) -> None:
        self.layout = layout
        self.columns = columns
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return samples that share nothing with the columns."""
        return decode(self.layout, self.taken(indices), len(indices))

    def taken(self, indices: Sequence[int] | torch.Tensor) -> list[Column]:
        """Return copies of some rows of the columns."""
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64)]
        return [
            column[rows] if isinstance(column, torch.Tensor) else [column[row] for row in rows]
            for column in self.columns
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of the samples' tensors and arrays."""
        return len(self) * sample_bytes(self.layout)


class Joined(ConcatDataset[Sample]):
    """Datasets one after another, from each of which a batch is read at once."""

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
    """Join map-style datasets; empty ones may be among them, and none is an empty dataset."""
    filled = [dataset for dataset in datasets if size(dataset)]
    if len(filled) == 1:
        return filled[0]
    return Joined(filled) if filled else SampleList([])


def size(dataset: Dataset[Sample]) -> int:
    """Number of samples of a map-style dataset."""
    return len(dataset)  # type: ignore[arg-type]


def fetch(dataset: Dataset[Sample], indices: Sequence[int]) -> list[Sample]:
    """Read some samples, all at once where the dataset can do so."""
    if type(dataset) is TensorDataset:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return list(zip(*(part[chosen].unbind(0) for part in dataset.tensors), strict=True))
    many = getattr(dataset, "__getitems__", None)
    return list(many(indices)) if many else [dataset[index] for index in indices]


def item_column(dataset: Dataset[Sample], item: int) -> torch.Tensor | None:
    """Return one item of all samples of tensor datasets, subsets and joins of them, else ``None``.

    What a subclass makes of its samples is not known, so only the classes themselves will do.
    """
    if type(dataset) is TensorDataset and item < len(dataset.tensors):
        return dataset.tensors[item]
    if type(dataset) is Subset:
        whole = item_column(dataset.dataset, item)
        return None if whole is None else whole[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset) and type(dataset) in (ConcatDataset, Joined):
        parts = [item_column(part, item) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    return None


def gather(dataset: Dataset[Sample], indices: Sequence[int], layout: Layout) -> Rows:
    """Copy some samples into columns.

    Args:
        dataset: A map-style dataset.
        indices: Which of its samples.
        layout: How each has to be built.

    Raises:
        ConfigurationError: If a sample is built otherwise, or holds what cannot be kept.
    """
    rows = tensor_rows(dataset, indices)
    if rows is not None:
        check_layout(rows.layout, layout)
        return rows
    samples = fetch(dataset, indices) if len(indices) else []
    for sample in samples:
        check_layout(layout_of(sample), layout)
    return Rows(layout, encode(layout, samples) if samples else [], torch.arange(len(samples)))


def tensor_rows(dataset: Dataset[Sample], indices: Sequence[int]) -> Rows | None:
    """Copy some samples of a tensor dataset, or of a subset of one, without a step for each.

    Returns:
        ``None`` for other datasets.
    """
    while type(dataset) is Subset:
        places: Any = dataset.indices
        dataset, indices = dataset.dataset, [places[index] for index in indices]
    if type(dataset) is not TensorDataset or not len(indices):
        return None
    chosen = torch.as_tensor(indices, dtype=torch.int64)
    tensors = [tensor.detach()[chosen].cpu() for tensor in dataset.tensors]
    layout: Layout = ("tuple", tuple(layout_of(tensor[0]) for tensor in tensors), ())
    return Rows(layout, [as_bytes(tensor) for tensor in tensors], torch.arange(len(chosen)))


def check_layout(offered: Layout, kept: Layout) -> None:
    """Refuse samples that are not built as those before them.

    Raises:
        ConfigurationError: If they are not.
    """
    if offered != kept:
        raise ConfigurationError(
            f"a sample is {written(offered)} where those before it are {written(kept)}; samples in "
            "one memory have the same structure, shapes and dtypes"
        )
