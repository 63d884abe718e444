"""A buffer of compressed samples: codes of learned codebooks, within a bound on the error."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.bounded import sample_positions
from greentrain.memory.codebook import Codebook
from greentrain.memory.datasets import SampleList, fetch, size
from greentrain.memory.pairs import as_pairs, pairs_of, positive, whole
from greentrain.memory.protocol import Sample
from greentrain.memory.retention import reservoir_slots
from greentrain.units import whole_seed


class QuantisedBuffer:
    """Keep a uniform sample of the past, each compressed if its error stays below a threshold.

    Adaptive quantisation modules (Caccia et al. 2020). An input is cut into blocks of neighbouring
    values, and each block is stored as the number of its nearest code: a byte. Several block sizes
    are several levels, each with its own codebook. A sample is stored by the level that compresses
    it most with a mean squared error up to the threshold, and as it is if no level does. So no
    sample is worse than the threshold allows. Which samples stay is Vitter's algorithm R (1985).

    The paper learns a stack of codebooks by gradients, and lets them change. Here codes are learned
    by k-means from samples that were not compressible, and never change: what was stored is always
    decoded alike. Each :meth:`add` may add codes until a level has ``codes``. A level of larger
    blocks gets new codes only if they save more bytes than they need. A sample with a value that is
    not finite is stored as it is.

    Samples are ``(input, label)``: a tensor of floating point and a class. They are returned with
    their dtype.

    Args:
        max_size: Most stored samples.
        threshold: Highest mean squared error of a compressed sample.
        block: Values of a block, or those of each level.
        codes: Most codes of a level, at most 256.
        seed: Seed of codes, and of the choice of samples to keep and to return.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> buffer = QuantisedBuffer(100, threshold=0.05, block=4, codes=16)
        >>> rows = torch.eye(4).repeat(50, 2)  # two blocks of four values each
        >>> buffer.add(TensorDataset(rows, torch.arange(200) % 2), origin="first")
        >>> buffer.nbytes, buffer.compressed  # 4 codes of 16 bytes, and 100 times 2 + 8 bytes
        (1064, 100)
    """

    def __init__(
        self,
        max_size: int,
        *,
        threshold: float = 0.01,
        block: int | Sequence[int] = 7,
        codes: int = 256,
        seed: int = 0,
    ) -> None:
        self._max_size, self.codes = whole(max_size, "max_size"), whole(codes, "codes")
        if codes > 256:
            raise ConfigurationError(
                f"codes is {codes!r}; a code is stored in a byte, so there are at most 256"
            )
        given = list(block) if isinstance(block, (list, tuple)) else [block]
        self.blocks = sorted({whole(each, "block") for each in given}, reverse=True)
        if not self.blocks:
            raise ConfigurationError("block is empty; give the values of a block, such as 7")
        self.threshold = positive(threshold, "threshold", above=False)
        self._seed = whole_seed(seed)
        self._books = [Codebook(torch.zeros(0, each)) for each in self.blocks]
        self._like = torch.zeros(1, 0)  # has the shape and the dtype of inputs
        self._levels = torch.zeros(0, dtype=torch.uint8)  # one more than the last: as it is
        self._rows: list[Tensor] = []  # codes, or a sample as it is
        self._labels = torch.zeros(0, dtype=torch.int64)
        self._origins: list[str] = []
        self._plain = False  # whether labels are plain numbers
        self._seen = self._n_sampled = 0
        self._planned: tuple[Dataset[Sample], str, QuantisedBuffer] | None = None
        self._generator = torch.Generator().manual_seed(self._seed % 2**63)

    @property
    def max_size(self) -> int:
        """Most stored samples."""
        return self._max_size

    @property
    def nbytes(self) -> int:
        """Bytes of codebooks, codes, labels, levels, and samples that are not compressed."""
        rows = sum(each.numel() * each.element_size() for each in self._rows)
        levels = len(self) if len(self._books) > 1 else 0
        return sum(each.nbytes for each in self._books) + rows + levels + self._labels.numel() * 8

    @property
    def compressed(self) -> int:
        """Number of stored samples that are compressed."""
        return sum(self.by_level[:-1])

    @property
    def by_level(self) -> list[int]:
        """Stored samples of each level, largest blocks first, and at last those as they are."""
        counts: list[int] = torch.bincount(self._levels, minlength=len(self._books) + 1).tolist()
        return counts

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Compress and store the chosen samples of an experience's data.

        Raises:
            ConfigurationError: If samples have another shape or dtype than earlier ones, or cannot
                be stored.
        """
        if not size(dataset):
            return
        if self._planned and self._planned[0] is dataset and self._planned[1] == origin:
            vars(self).update(vars(self._planned[2]), _planned=None)
            return
        inputs, labels, plain = pairs_of(dataset)
        if len(self) and (inputs.shape[1:], inputs.dtype) != (
            self._like.shape[1:],
            self._like.dtype,
        ):
            raise ConfigurationError(
                f"inputs are {list(inputs.shape[1:])} of {inputs.dtype} where those before are "
                f"{list(self._like.shape[1:])} of {self._like.dtype}; samples in one buffer must "
                "have the same shape and dtype"
            )
        self._plain, self._like = plain, torch.zeros_like(inputs[:1])
        self._planned = None
        places = reservoir_slots(len(labels), self._seen, self._max_size, self._generator)
        self._seen += len(labels)
        if not places:
            return
        chosen = torch.tensor(list(places.values()), dtype=torch.int64)
        slots = torch.tensor(list(places), dtype=torch.int64)
        self._grow(int(slots.max()) + 1)
        levels, rows = self._encoded(inputs[chosen])
        self._levels[slots], self._labels[slots] = levels, labels[chosen]
        for row, slot in zip(rows, slots.tolist(), strict=True):
            self._rows[slot], self._origins[slot] = row, origin

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return the content after an :meth:`add`, which then need not compress again."""
        if not size(dataset):
            return self.select(lambda name: True)
        self._planned = None
        other = copy.deepcopy(self)
        other.add(dataset, origin=origin)
        self._planned = (dataset, origin, other)
        return other.select(lambda name: True)

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return the decoded samples whose origin is accepted."""
        rows = [row for row, origin in enumerate(self._origins) if keep(origin)]
        if not rows:
            return SampleList([])
        return as_pairs(self._decoded(rows), self._labels[rows], self._plain)

    def sample(self, n: int) -> list[Sample]:
        """Return up to ``n`` different samples, decoded.

        Raises:
            ConfigurationError: If ``n`` is negative.
        """
        chosen = sample_positions(len(self), n, [self._seed, 1, self._n_sampled])
        self._n_sampled += 1
        rows = as_pairs(self._decoded(chosen), self._labels[chosen], self._plain)
        return fetch(rows, range(len(chosen)))

    def state_dict(self) -> dict[str, Any]:
        """Return codebook, codes, and samples that are not compressed."""
        return {
            "settings": self._settings(),
            "codes": [each.codes.clone() for each in self._books],
            "like": self._like.clone(),
            "levels": self._levels.clone(),
            "rows": [torch.stack(each) if each else None for each in self._rows_by_level()],
            "labels": self._labels.clone(),
            "origins": list(self._origins),
            "seen": self._seen,
            "plain": self._plain,
            "n_sampled": self._n_sampled,
            "random": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`.

        Raises:
            ConfigurationError: If it is of a buffer with other arguments.
        """
        own = self._settings()
        if state["settings"] != own:
            raise ConfigurationError(
                f"the state is of a buffer with max_size, blocks, codes and threshold "
                f"{state['settings']}, and this one has {own}; use the same arguments"
            )
        self._books = [Codebook(each.clone()) for each in state["codes"]]
        self._like, self._levels = state["like"].clone(), state["levels"].clone()
        parts = [iter(()) if each is None else iter(each.clone()) for each in state["rows"]]
        self._rows = [next(parts[level]).clone() for level in self._levels.tolist()]
        self._labels, self._origins = state["labels"].clone(), list(state["origins"])
        self._seen, self._plain = state["seen"], state["plain"]
        self._n_sampled, self._planned = state["n_sampled"], None
        self._generator.set_state(state["random"])

    def _settings(self) -> list[Any]:
        return [self._max_size, list(self.blocks), self.codes, self.threshold]

    def _rows_by_level(self) -> list[list[Tensor]]:
        found: list[list[Tensor]] = [[] for _ in range(len(self._books) + 1)]
        for row, level in zip(self._rows, self._levels.tolist(), strict=True):
            found[level].append(row)
        return found

    def _grow(self, count: int) -> None:
        more = max(0, count - len(self))
        self._levels = torch.cat([self._levels, self._levels.new_zeros(more)])
        self._labels = torch.cat([self._labels, self._labels.new_zeros(more)])
        self._rows += [self._levels[:0]] * more
        self._origins += [""] * more

    def _encoded(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the level of each input, and its codes, or itself."""
        levels = torch.full((len(inputs),), len(self._books), dtype=torch.uint8)
        rows = [each.clone() for each in inputs]
        for number in range(len(self._books)):
            left = (levels == len(self._books)).nonzero()[:, 0]
            numbers, errors = self._by_level(number, inputs[left])
            for place in (errors <= self.threshold).nonzero()[:, 0].tolist():
                at = int(left[place])
                levels[at], rows[at] = number, numbers[place].clone()
        return levels, rows

    def _by_level(self, number: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of inputs and their errors, with new codes if these are worth it."""
        book = self._books[number]
        numbers, errors = book.encode(inputs)
        over = (errors > self.threshold) & inputs.isfinite().flatten(1).all(1)
        if not bool(over.any()) or len(book) >= self.codes:
            return numbers, errors
        grown = book.grown(inputs[over], self.codes, self._generator)
        again = grown.encode(inputs)
        if number + 1 < len(self._books):
            saved = self._books[number + 1].blocks(inputs).shape[1] - numbers.shape[1]
            more = int((again[1] <= self.threshold).sum() - (errors <= self.threshold).sum())
            if more * saved <= grown.nbytes - book.nbytes:
                return numbers, errors
        self._books[number] = grown
        return again

    def _decoded(self, rows: list[int]) -> Tensor:
        inputs = self._like.new_zeros(len(rows), *self._like.shape[1:])
        levels = self._levels[rows]
        for number in sorted(set(levels.tolist())):
            places = (levels == number).nonzero()[:, 0]
            stored = torch.stack([self._rows[rows[place]] for place in places.tolist()])
            raw = number == len(self._books)
            inputs[places] = stored if raw else self._books[number].decode(stored, self._like)
        return inputs
