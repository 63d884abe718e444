"""A buffer of compressed samples: codes of learned codebooks, within a bound on the error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.bounded import sample_positions
from greentrain.memory.datasets import SampleList, fetch, size
from greentrain.memory.pairs import as_pairs, pairs_of, positive
from greentrain.memory.protocol import Sample
from greentrain.memory.retention import reservoir_slots
from greentrain.units import is_whole, whole_seed

_ROUNDS = 10
"""Rounds of k-means for a codebook."""
_MOST_BLOCKS = 20_000
"""Most blocks that a codebook is learned from."""


class QuantisedBuffer:
    """Keep a uniform sample of the past, each compressed if its error stays below a threshold.

    One level of adaptive quantisation modules (Caccia et al. 2020). An input is cut into blocks of
    neighbouring values, and each block is stored as the number of its nearest code: a byte. A
    sample whose mean squared error is above the threshold is stored as it is, so no sample is worse
    than the threshold allows. Which samples stay is Vitter's algorithm R (1985).

    The paper learns stacked codebooks by gradients, and lets them change. Here codes are learned by
    k-means from the samples that were not compressible, and never change: what was stored is always
    decoded alike. Each :meth:`add` may add codes until there are ``codes``. A sample with a value
    that is not finite is stored as it is.

    Samples are ``(input, label)``: a tensor of floating point and a class. They are returned with
    their dtype.

    Args:
        max_size: Most stored samples.
        threshold: Highest mean squared error of a compressed sample.
        block: Values of a block.
        codes: Most codes, at most 256.
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
        block: int = 7,
        codes: int = 256,
        seed: int = 0,
    ) -> None:
        for name, value in (("max_size", max_size), ("block", block), ("codes", codes)):
            if not is_whole(value, 1):
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a whole number from 1 on"
                )
        if codes > 256:
            raise ConfigurationError(
                f"codes is {codes!r}; a code is stored in a byte, so there are at most 256"
            )
        self._max_size, self.block, self.codes = int(max_size), int(block), int(codes)
        self.threshold = positive(threshold, "threshold", above=False)
        self._seed = whole_seed(seed)
        self._codebook = torch.zeros(0, self.block)
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32
        self._numbers = torch.zeros(0, 0, dtype=torch.uint8)
        self._labels = torch.zeros(0, dtype=torch.int64)
        self._origins: list[str] = []
        self._raw: dict[int, Tensor] = {}
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
        """Bytes of codebook, codes, labels and samples that are not compressed."""
        coded = (len(self) - len(self._raw)) * self._numbers.shape[1]
        raw = sum(each.numel() * each.element_size() for each in self._raw.values())
        return self._codebook.numel() * 4 + coded + raw + self._labels.numel() * 8

    @property
    def compressed(self) -> int:
        """Number of stored samples that are compressed."""
        return len(self) - len(self._raw)

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
        shape, before = tuple(inputs.shape[1:]), (self._shape, self._dtype)
        if len(self) and (shape, inputs.dtype) != before:
            raise ConfigurationError(
                f"inputs are {list(shape)} of {inputs.dtype} where those before are "
                f"{list(self._shape)} of {self._dtype}; samples in one buffer must have the same "
                "shape and dtype"
            )
        self._plain, self._shape, self._dtype = plain, shape, inputs.dtype
        self._planned = None
        places = reservoir_slots(len(labels), self._seen, self._max_size, self._generator)
        self._seen += len(labels)
        if not places:
            return
        chosen = torch.tensor(list(places.values()), dtype=torch.int64)
        slots = torch.tensor(list(places), dtype=torch.int64)
        self._grow(int(slots.max()) + 1)
        numbers, fits = self._encoded(inputs[chosen])
        self._numbers[slots], self._labels[slots] = numbers, labels[chosen]
        for row, slot in enumerate(slots.tolist()):
            self._origins[slot] = origin
            self._raw.pop(slot, None)
            if not fits[row]:
                self._raw[slot] = inputs[chosen[row]].clone()

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
            "settings": [self._max_size, self.block, self.codes, self.threshold],
            "codebook": self._codebook.clone(),
            "shape": list(self._shape),
            "dtype": str(self._dtype).removeprefix("torch."),
            "numbers": self._numbers.clone(),
            "labels": self._labels.clone(),
            "origins": list(self._origins),
            "raw": {str(slot): each.clone() for slot, each in self._raw.items()},
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
        own = [self._max_size, self.block, self.codes, self.threshold]
        if state["settings"] != own:
            raise ConfigurationError(
                f"the state is of a buffer with max_size, block, codes and threshold "
                f"{state['settings']}, and this one has {own}; use the same arguments"
            )
        self._codebook, self._numbers = state["codebook"].clone(), state["numbers"].clone()
        self._labels, self._origins = state["labels"].clone(), list(state["origins"])
        self._raw = {int(slot): each.clone() for slot, each in state["raw"].items()}
        self._shape, self._seen = tuple(state["shape"]), state["seen"]
        self._dtype = getattr(torch, state.get("dtype", "float32"))
        self._plain = state["plain"]
        self._n_sampled, self._planned = state["n_sampled"], None
        self._generator.set_state(state["random"])

    def _grow(self, count: int) -> None:
        more = count - len(self)
        if more > 0:
            blocks = -(-int(torch.Size(self._shape).numel()) // self.block)
            old = self._numbers if len(self) else self._numbers.new_zeros(0, blocks)
            self._numbers = torch.cat([old, old.new_zeros(more, blocks)])
            self._labels = torch.cat([self._labels, self._labels.new_zeros(more)])
            self._origins += [""] * more

    def _encoded(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of inputs, and whether each is within the threshold."""
        blocks = self._blocks(inputs)
        numbers, errors = self._nearest(blocks, inputs)
        over = (errors > self.threshold) & blocks.isfinite().all(2).all(1)
        if bool(over.any()) and len(self._codebook) < self.codes:
            self._learn(blocks[over].flatten(0, 1))
            numbers, errors = self._nearest(blocks, inputs)
        return numbers.to(torch.uint8), errors <= self.threshold

    def _blocks(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1).float()
        flat = torch.nn.functional.pad(flat, (0, -flat.shape[1] % self.block))
        return flat.view(len(flat), -1, self.block)

    def _nearest(self, blocks: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest code of each block, and the mean squared error of each input."""
        if not len(self._codebook):
            numbers = torch.zeros(blocks.shape[:2], dtype=torch.int64)
            return numbers, torch.full((len(blocks),), torch.inf)
        codes: list[Tensor] = []
        errors: list[Tensor] = []
        for part, values in zip(torch.split(blocks, 256), torch.split(inputs, 256), strict=True):
            codes.append(torch.cdist(part, self._codebook[None]).argmin(2))
            wrong = self._decoded_codes(codes[-1]).double() - values.double()
            errors.append(wrong.square().flatten(1).mean(1))
        return torch.cat(codes), torch.cat(errors)

    def _learn(self, blocks: Tensor) -> None:
        """Add codes by k-means (Lloyd 1982), half of those that are left."""
        left = self.codes - len(self._codebook)
        count = left if left < 4 else -(-left // 2)
        order = torch.randperm(len(blocks), generator=self._generator)[:_MOST_BLOCKS]
        blocks = torch.unique(blocks[order], dim=0)
        blocks = blocks[torch.randperm(len(blocks), generator=self._generator)]
        codes = blocks[:count].clone()
        for _ in range(_ROUNDS):
            nearest = torch.cdist(blocks, codes).argmin(1)
            sums = torch.zeros_like(codes).index_add_(0, nearest, blocks)
            counts = torch.bincount(nearest, minlength=len(codes))[:, None]
            codes = torch.where(counts > 0, sums / counts.clamp_min(1), codes)
        self._codebook = torch.cat([self._codebook, codes])

    def _decoded(self, rows: list[int]) -> Tensor:
        inputs = torch.zeros(len(rows), *self._shape, dtype=self._dtype)
        coded = [place for place, row in enumerate(rows) if row not in self._raw]
        if coded:
            inputs[coded] = self._decoded_codes(self._numbers[[rows[place] for place in coded]])
        for place, row in enumerate(rows):
            if row in self._raw:
                inputs[place] = self._raw[row]
        return inputs

    def _decoded_codes(self, numbers: Tensor) -> Tensor:
        values = int(torch.Size(self._shape).numel())
        flat = self._codebook[numbers.long()].flatten(1)[:, :values]
        return flat.reshape(len(numbers), *self._shape).to(self._dtype)
