"""What may be kept of past data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from greentrain.errors import ConfigurationError

Sample = Any


class Buffer(Protocol):
    """Stored past samples, each with the name of the experience that it came with."""

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Take up an experience's data, or as much of it as may be kept."""
        ...

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return, as a map-style dataset, the samples whose origin ``keep`` accepts."""
        ...

    def sample(self, n: int) -> list[Sample]:
        """Draw up to ``n`` different samples uniformly from all that is stored."""
        ...

    @property
    def nbytes(self) -> int | None:
        """Bytes of the stored tensors; ``None`` where that cannot be told."""
        ...

    def __len__(self) -> int: ...


class FullBuffer:
    """Keep everything, by reference: nothing is copied.

    Args:
        seed: Seed of :meth:`sample`.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._parts: list[tuple[str, Dataset[Sample]]] = []
        self._random = torch.Generator().manual_seed(seed)

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Keep all of the data."""
        self._parts.append((origin, dataset))

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return the samples whose origin ``keep`` accepts."""
        return concat([dataset for origin, dataset in self._parts if keep(origin)])

    def sample(self, n: int) -> list[Sample]:
        """Draw up to ``n`` different samples uniformly."""
        everything = self.select(lambda origin: True)
        return [everything[index] for index in _choose(len(self), n, self._random)]

    @property
    def nbytes(self) -> int | None:
        """Bytes of the tensors, where all datasets are tensor datasets."""
        sizes = [_dataset_bytes(dataset) for _, dataset in self._parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def __len__(self) -> int:
        return sum(size(dataset) for _, dataset in self._parts)


class ReservoirBuffer:
    """Keep a uniform sample of fixed size of everything that ever came (Vitter 1985, Algorithm R).

    Args:
        max_size: Samples that may be kept.
        seed: Seed of what is kept and drawn.

    Raises:
        ConfigurationError: If ``max_size`` is not a positive whole number.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> buffer = ReservoirBuffer(10)
        >>> buffer.add(TensorDataset(torch.arange(100.0)), origin="first")
        >>> len(buffer), buffer.nbytes
        (10, 40)
    """

    def __init__(self, max_size: int, *, seed: int = 0) -> None:
        if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
            raise ConfigurationError(
                f"max_size is {max_size!r}; it is the number of samples that may be kept, 1 or more"
            )
        self.max_size = max_size
        self._items: list[tuple[str, Sample]] = []
        self._seen = 0
        self._random = torch.Generator().manual_seed(seed)

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Offer each sample of the data for one of the places."""
        for index in range(size(dataset)):
            self._seen += 1
            if len(self._items) < self.max_size:
                self._items.append((origin, _copy(dataset[index])))
                continue
            place = int(torch.randint(self._seen, (), generator=self._random))
            if place < self.max_size:
                self._items[place] = (origin, _copy(dataset[index]))

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return the samples whose origin ``keep`` accepts."""
        return SampleList([sample for origin, sample in self._items if keep(origin)])

    def sample(self, n: int) -> list[Sample]:
        """Draw up to ``n`` different samples uniformly."""
        return [self._items[index][1] for index in _choose(len(self), n, self._random)]

    @property
    def nbytes(self) -> int | None:
        """Bytes of the kept tensors."""
        return sum(_sample_bytes(sample) for _, sample in self._items)

    def __len__(self) -> int:
        return len(self._items)


class SampleList(Dataset[Sample]):
    """A list of samples as a map-style dataset."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def concat(datasets: list[Dataset[Sample]]) -> Dataset[Sample]:
    """Join map-style datasets; empty ones may be among them, and none is an empty dataset."""
    filled = [dataset for dataset in datasets if size(dataset)]
    if len(filled) == 1:
        return filled[0]
    return ConcatDataset(filled) if filled else SampleList([])


def size(dataset: Dataset[Sample]) -> int:
    """Number of samples of a map-style dataset."""
    return len(dataset)  # type: ignore[arg-type]


def _copy(sample: Sample) -> Sample:
    # An item of a tensor dataset is a view that keeps all of the dataset's memory alive.
    if isinstance(sample, torch.Tensor):
        return sample.clone()
    if isinstance(sample, dict):
        return {key: _copy(part) for key, part in sample.items()}
    if type(sample) in (list, tuple):
        return type(sample)(_copy(part) for part in sample)
    return sample


def _choose(total: int, n: int, random: torch.Generator) -> list[int]:
    if n < 0:
        raise ConfigurationError(f"cannot draw {n} samples; it is 0 or more")
    return [int(index) for index in torch.randperm(total, generator=random)[:n]]


def _dataset_bytes(dataset: Dataset[Sample]) -> int | None:
    if isinstance(dataset, Subset):
        whole = _dataset_bytes(dataset.dataset)
        return None if whole is None else whole * size(dataset) // max(1, size(dataset.dataset))
    tensors = getattr(dataset, "tensors", None)
    return None if tensors is None else sum(_sample_bytes(tensor) for tensor in tensors)


def _sample_bytes(sample: Sample) -> int:
    if isinstance(sample, torch.Tensor):
        return sample.element_size() * sample.nelement()
    if isinstance(sample, dict):
        return sum(_sample_bytes(part) for part in sample.values())
    if isinstance(sample, (list, tuple)):
        return sum(_sample_bytes(part) for part in sample)
    return 0
