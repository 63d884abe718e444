"""Measure the share of new samples that are exact copies of samples that were trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from greentrain.evaluation.signals.drift import spread
from greentrain.memory import size
from greentrain.memory.datasets import fetch, item_column

Hashes = NDArray[np.uint64]

KEPT = 65_536
"""Hashes that are kept: the smallest ones, which are a uniform sample of all."""
SAMPLES_READ = 64
"""Largest number of samples that are read, if no tensor holds them."""
FEWEST = 16
"""Smallest number of comparable samples from which a share is estimated."""
_LARGEST = np.iinfo(np.uint64).max


class SeenSamples:
    """Hashes of the inputs that were trained on, in a bounded memory.

    Once there are more hashes than are kept, only the smallest ones are: a new sample with a larger
    hash is then not compared. So the share stays right, and its error grows slowly.

    Args:
        limit: Number of hashes to keep.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> first, second = (TensorDataset(torch.randn(20, 4)) for _ in range(2))
        >>> seen = SeenSamples()
        >>> seen.add(first)
        >>> seen.share(first), seen.share(second)
        (1.0, 0.0)
    """

    def __init__(self, *, limit: int = KEPT) -> None:
        self._limit = limit
        self._hashes: Hashes = np.empty(0, dtype=np.uint64)

    def add(self, dataset: Dataset[Any]) -> None:
        """Add the samples of a dataset; of one without tensors, those that are read."""
        found = input_hashes(dataset)
        if found is not None:
            self._hashes = np.union1d(self._hashes, found)[: self._limit]

    def share(self, dataset: Dataset[Any]) -> float | None:
        """Return the share of a dataset's samples that were added before.

        ``None`` before anything was added, if the samples cannot be hashed, or too few of them are
        comparable.
        """
        found = input_hashes(dataset) if len(self._hashes) else None
        if found is None:
            return None
        full = len(self._hashes) == self._limit
        comparable = found[found <= (self._hashes[-1] if full else _LARGEST)]
        if len(comparable) < min(FEWEST, len(found)):
            return None
        return float(np.isin(comparable, self._hashes).mean())

    def state_dict(self) -> dict[str, Any]:
        """Return the hashes as a tensor ``(hashes,)``."""
        return {"hashes": torch.from_numpy(self._hashes.view(np.int64).copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._hashes = state["hashes"].numpy().view(np.uint64).copy()


def input_hashes(dataset: Dataset[Any]) -> Hashes | None:
    """Return the hash of each sample's input: of the first item of a sequence.

    Tensors are all hashed at once, in time that no training notices. Of other datasets up to 64
    samples are read, at even distances: the same ones each time.

    Returns:
        ``(samples,)``; ``None`` without samples, and if an input is neither tensor, array nor text.
    """
    samples = size(dataset)
    if not samples:
        return None
    column = item_column(dataset, 0)
    if column is not None:
        return _of_rows(column.detach().cpu().contiguous().reshape(samples, -1))
    read = fetch(dataset, spread(samples, SAMPLES_READ).tolist())
    content = [_content(sample) for sample in read]
    known = [each for each in content if each is not None]
    if len(known) < len(content):
        return None
    digests = [hashlib.blake2b(each, digest_size=8).digest() for each in known]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def _of_rows(rows: torch.Tensor) -> Hashes:
    """Hash rows by a random linear function of their 64-bit words, modulo 2**64, and mix."""
    content = rows.view(torch.uint8).numpy() if rows.shape[1] else np.zeros((len(rows), 1), "u1")
    if content.shape[1] % 8:
        content = np.pad(content, ((0, 0), (0, -content.shape[1] % 8)))
    words = np.ascontiguousarray(content).view(np.uint64)
    factors = np.random.default_rng(0).integers(_LARGEST, size=words.shape[1], dtype=np.uint64)
    found: Hashes = words @ (factors | np.uint64(1))
    # The finaliser of SplitMix64 (Steele et al. 2014): the smallest hashes are a uniform sample.
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def _content(sample: Any) -> bytes | None:
    """Return the bytes of a sample's input; ``None`` if it has none that are known."""
    value = sample
    if isinstance(value, Mapping):
        value = next(iter(value.values()), None)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.dtype != object else None
    return value.encode() if isinstance(value, str) else None
